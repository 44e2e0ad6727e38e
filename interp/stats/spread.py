"""Statistics of how far a row spreads its attention: entropies, effective keys, maximum, spread of logits."""

from __future__ import annotations

import torch
from torch import Tensor

from interp.stats.declaration import NATS, POSITIVE, UNIT, Statistic
from interp.stats.needs import Needs
from interp.stats.rows import Rows

ENTROPY = Needs(kernel=frozenset({"entropy"}))
FREE = "nothing: comes with the softmax"


def _normalised_entropy(rows: Rows) -> Tensor:
    # A learned sink is one more outcome, which the entropy counts.
    outcomes = rows.visible + 1 if "sink_logit_mass" in rows.measured else rows.visible
    bound = outcomes.to(torch.float32).log()
    return rows.where(rows.visible >= 2, rows.measured["entropy"] / bound)


def _non_sink_entropy(rows: Rows) -> Tensor:
    return rows.where(rows.measured["rest_mass"] > 0, rows.measured["rest_entropy"])


def _logit_norm(rows: Rows) -> Tensor:
    first, second = rows.measured["logit_moments"].unbind(-1)
    return (second - first.square() / rows.visible.clamp(min=1)).clamp(min=0).sqrt()


STATISTICS: tuple[Statistic, ...] = (
    Statistic(
        name="entropy",
        title="entropy",
        formula="H_i = -sum_j p_ij ln p_ij (a learned sink's outcome is counted)",
        axis="query",
        unit="nats",
        scale=NATS,
        needs=ENTROPY,
        derive=lambda rows: rows.measured["entropy"],
        cost="one FMA per score",
        citation="Shannon entropy of the attention row; Zhai et al. 2023 (arXiv 2303.06296)",
    ),
    Statistic(
        name="normalised_entropy",
        title="normalised entropy",
        formula="H_i / ln n_i (n_i + 1 outcomes with a learned sink)",
        axis="query",
        unit="share",
        scale=UNIT,
        needs=ENTROPY,
        derive=_normalised_entropy,
        undefined="rows that see fewer than two keys (row 0 of a causal map)",
        cost="one FMA per score",
        citation="per visible keys, never per context length: dividing by ln T caps a uniform causal head at 0.88 for T = 4096",
    ),
    Statistic(
        name="effective_keys",
        title="effective keys",
        formula="exp(H_i)",
        axis="query",
        unit="tokens",
        scale=POSITIVE,
        needs=ENTROPY,
        derive=lambda rows: rows.measured["entropy"].exp(),
        cost="one FMA per score",
        citation="perplexity of the attention row",
    ),
    Statistic(
        name="collision_entropy",
        title="collision entropy",
        formula="-ln sum_j p_ij^2",
        axis="query",
        unit="nats",
        scale=NATS,
        needs=Needs(kernel=frozenset({"prob_square"})),
        derive=lambda rows: rows.where(rows.measured["prob_square"] > 0, -rows.measured["prob_square"].log()).clamp(
            min=0
        ),
        undefined="rows that see nothing",
        cost="one FMA per score",
        citation="Renyi entropy of order 2",
    ),
    Statistic(
        name="max_probability",
        title="max probability",
        formula="max_j p_ij",
        axis="query",
        unit="probability",
        scale=UNIT,
        needs=Needs(kernel=frozenset({"row_max"})),
        derive=lambda rows: rows.where(rows.lse > -torch.inf, (rows.measured["row_max"] - rows.lse).exp()),
        undefined="rows that see nothing",
        cost=FREE,
        citation="exp(row max - log-sum-exp)",
    ),
    Statistic(
        name="non_sink_entropy",
        title="non-sink entropy",
        formula="entropy of p_ij over j other than the first token, renormalised",
        axis="query",
        unit="nats",
        scale=NATS,
        needs=Needs(rest=True),
        derive=_non_sink_entropy,
        undefined="rows that see only the first token",
        cost="two FMA per score",
        citation="chain rule H = h2(M) + M H_sink + (1 - M) H_rest: separates a sink head from a sharp one",
    ),
    Statistic(
        name="logit_norm",
        title="centred logit norm",
        formula="rho_i = sqrt(sum_j s_ij^2 - (sum_j s_ij)^2 / n_i) over visible keys",
        axis="query",
        unit="logits",
        scale=POSITIVE,
        needs=Needs(kernel=frozenset({"logit_moments"})),
        derive=_logit_norm,
        cost="two FMA per score",
        citation="row-wise form of the entropy bound of Zhai et al. 2023, with rho_i for sigma and n_i for T",
    ),
)
