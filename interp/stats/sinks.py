"""The sink metric of Gu et al. (2025): attention received per key, and the rate of heads whose mean mass on the first token is large."""

from __future__ import annotations

import torch
from torch import Tensor

from interp.errors import CaptureError
from interp.stats.declaration import POSITIVE, UNIT, Statistic
from interp.stats.needs import Needs
from interp.stats.rows import Rows

EPSILONS = (0.2, 0.3, 0.4, 0.5)
MIN_ROWS = 16
RECEIVED = Needs(received=True)
CITATION = "Gu et al. 2025 (arXiv 2410.10781), section 3: alpha_k is the mean over the rows that can see key k"
SWEEP = "a second sweep over q and k, about half the forward's work"


def _received(rows: Rows) -> tuple[Tensor, Tensor]:
    if rows.received is None or rows.received_rows is None:
        raise CaptureError("received mass was not measured in this run; ask for the statistic by name in collect=")
    return rows.received, rows.received_rows.expand_as(rows.received)


def _alpha(rows: Rows) -> Tensor:
    total, seen = _received(rows)
    return torch.where(seen >= MIN_ROWS, total / seen.clamp(min=1), torch.nan)


def _first_alpha(rows: Rows) -> Tensor:
    real = rows.queries.real[:, None]
    seen = (real & (rows.visible > 0)).sum(-1)
    return torch.where(real, rows.mass("first_token"), 0.0).sum(-1) / seen


def _sink_rate(rows: Rows, eps: float) -> Tensor:
    alpha = _first_alpha(rows)
    return torch.where(alpha.isnan(), torch.nan, (alpha > eps).to(torch.float32))


STATISTICS: tuple[Statistic, ...] = (
    Statistic(
        name="received_mass",
        title="received mass",
        formula="sum_i p_ij over the rows of the text",
        axis="key",
        unit="rows",
        scale=POSITIVE,
        needs=RECEIVED,
        derive=lambda rows: _received(rows)[0],
        cost=SWEEP,
        citation="column sums of the attention map (heavy hitters: Zhang et al. 2023, arXiv 2306.14048)",
    ),
    Statistic(
        name="received_rows",
        title="rows that see the key",
        formula="number of rows i that see key j",
        axis="key",
        unit="rows",
        scale=POSITIVE,
        needs=RECEIVED,
        derive=lambda rows: _received(rows)[1].to(torch.float32),
        cost="nothing beside received_mass",
        citation=CITATION,
    ),
    Statistic(
        name="alpha",
        title="attention received per row",
        formula="alpha_j = received_mass_j / received_rows_j",
        axis="key",
        unit="probability",
        scale=UNIT,
        needs=RECEIVED,
        derive=_alpha,
        undefined=f"keys that fewer than {MIN_ROWS} rows see (the tail averages too few rows)",
        cost="nothing beside received_mass",
        citation=CITATION,
    ),
    Statistic(
        name="first_token_alpha",
        title="alpha of the first token",
        formula="mean over rows of p_{i,first}",
        axis="prompt",
        unit="probability",
        scale=UNIT,
        needs=Needs(sets=frozenset({"first_token"})),
        derive=_first_alpha,
        undefined="prompts of which no row sees anything",
        cost="one masked add per score",
        citation=CITATION,
    ),
    *(
        Statistic(
            name=f"sink_rate_{eps}",
            title=f"sink rate at {eps}",
            formula=f"1 if alpha of the first token > {eps} else 0; its mean over prompts, heads and layers is Sink_1",
            axis="prompt",
            unit="share of prompts",
            scale=UNIT,
            needs=Needs(sets=frozenset({"first_token"})),
            derive=lambda rows, eps=eps: _sink_rate(rows, eps),
            undefined="prompts of which no row sees anything",
            cost="one masked add per score",
            citation=CITATION + "; the paper uses 0.3 at T = 64, and the rate falls with T",
        )
        for eps in EPSILONS
    ),
)
