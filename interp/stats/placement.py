"""Statistics of where a row puts its attention: named key sets, neighbours, equal tokens, distance, windows, learned sinks."""

from __future__ import annotations

from torch import Tensor

from interp.stats.declaration import SIGNED, UNIT, Statistic
from interp.stats.needs import Needs
from interp.stats.rows import Rows

WINDOWS = (64, 256, 1024)
KEY_SETS = {
    "first_token": "the first token of the text",
    "first_four": "the first four tokens of the text",
    "special": "the tokenizer's special tokens",
    "punctuation": "tokens that hold punctuation and no letter or digit",
}
MATCH_COST = "one integer compare and masked add per score"


def _previous(rows: Rows) -> Tensor:
    return rows.where((rows.visible >= 2) & ~rows.queries.sets["first_token"][:, None], rows.offset(1))


def _duplicate(rows: Rows) -> Tensor:
    mass = (rows.match("duplicate") - rows.offset(0)).clamp(min=0)
    return rows.where(rows.queries.repeated()[:, None], mass)


def _induction(rows: Rows) -> Tensor:
    return rows.where(rows.queries.repeated()[:, None], rows.match("induction"))


STATISTICS: tuple[Statistic, ...] = (
    *(
        Statistic(
            name=f"{set_name}_mass",
            title=f"{set_name.replace('_', ' ')} mass",
            formula=f"sum of p_ij over {words}",
            axis="query",
            unit="probability",
            scale=UNIT,
            needs=Needs(sets=frozenset({set_name})),
            derive=lambda rows, name=set_name: rows.mass(name),
            cost="one masked add per score",
            citation="attention sinks: Xiao et al. 2024 (arXiv 2309.17453), Gu et al. 2025 (arXiv 2410.10781)",
        )
        for set_name, words in KEY_SETS.items()
    ),
    Statistic(
        name="previous_token_mass",
        title="previous-token mass",
        formula="p_{i,i-1}",
        axis="query",
        unit="probability",
        scale=UNIT,
        needs=Needs(offsets=frozenset({1})),
        derive=_previous,
        undefined="the first token, and rows that see fewer than two keys",
        cost="one O(D) product per row",
        citation="Olsson et al. 2022 (arXiv 2209.11895); the first token counts where it is the previous one",
    ),
    Statistic(
        name="current_token_mass",
        title="current-token mass",
        formula="p_{i,i}",
        axis="query",
        unit="probability",
        scale=UNIT,
        needs=Needs(offsets=frozenset({0})),
        derive=lambda rows: rows.offset(0),
        cost="one O(D) product per row",
        citation="the diagonal of the attention map",
    ),
    Statistic(
        name="duplicate_token_mass",
        title="duplicate-token mass",
        formula="sum of p_ij over j < i with x_j = x_i (all earlier copies)",
        axis="query",
        unit="probability",
        scale=UNIT,
        needs=Needs(matches=frozenset({"duplicate"}), offsets=frozenset({0})),
        derive=_duplicate,
        undefined="rows whose token did not occur before; left out where rows see later keys",
        cost=MATCH_COST,
        citation="duplicate-token heads of the IOI circuit (Wang et al. 2023, arXiv 2211.00593), by token equality on real text",
    ),
    Statistic(
        name="induction_mass",
        title="induction mass",
        formula="sum of p_ij over j <= i with x_{j-1} = x_i (all tokens after an earlier copy)",
        axis="query",
        unit="probability",
        scale=UNIT,
        needs=Needs(matches=frozenset({"induction"})),
        derive=_induction,
        undefined="rows whose token did not occur before; left out where rows see later keys",
        cost=MATCH_COST,
        citation="prefix matching (Olsson et al. 2022, arXiv 2209.11895), by token equality on real text",
    ),
    Statistic(
        name="mean_distance",
        title="mean key distance",
        formula="sum_j p_ij (i - j); negative where later keys weigh more",
        axis="query",
        unit="tokens",
        scale=SIGNED,
        needs=Needs(kernel=frozenset({"distance"})),
        derive=lambda rows: rows.measured["distance"],
        cost="one FMA per score",
        citation="attention distance (Dosovitskiy et al. 2021, arXiv 2010.11929, appendix D.7), in tokens",
    ),
    *(
        Statistic(
            name=f"window_mass_{width}",
            title=f"mass within {width}",
            formula=f"sum of p_ij over 0 <= i - j < {width}",
            axis="query",
            unit="probability",
            scale=UNIT,
            needs=Needs(windows=frozenset({width})),
            derive=lambda rows, width=width: rows.window(width),
            cost="a partial sum of the row",
            citation="streaming heads: mass kept by a window (Xiao et al. 2024, arXiv 2410.10819); 1 by definition while n_i <= width",
        )
        for width in WINDOWS
    ),
    Statistic(
        name="learned_sink_mass",
        title="learned-sink mass",
        formula="exp(sink logit - lse_i)",
        axis="query",
        unit="probability",
        scale=UNIT,
        needs=Needs(),
        derive=lambda rows: rows.measured["sink_logit_mass"],
        cost="nothing: comes with the softmax",
        citation="learned sink logits (gpt-oss); off-sequence mass, its own column, never part of a key set",
        optional=True,
    ),
)
