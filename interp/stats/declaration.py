"""`Statistic`: one declaration per statistic; the catalogue gathers them.

A statistic is a pure function of `Rows`: float32 out, inputs untouched, NaN where it is undefined. To add one, see CONTRIBUTING.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from interp.stats.needs import Needs
from interp.stats.rows import Rows

Axis = Literal["query", "key", "prompt"]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Where the values of a statistic lie, and so the histogram in which a merge keeps them.

    Attributes:
        low, high: ends of the range; of the absolute values for "signed".
        kind: "linear"; "log" (logarithmic from low to high); or "signed": logarithmic to both sides of zero.
    """

    low: float
    high: float
    kind: Literal["linear", "log", "signed"] = "linear"


UNIT = Scale(low=0.0, high=1.0)
NATS = Scale(low=0.0, high=16.0)
POSITIVE = Scale(low=2.0**-20, high=2.0**20, kind="log")
SIGNED = Scale(low=2.0**-6, high=2.0**20, kind="signed")


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """One measurable quantity of an attention head.

    Attributes:
        name: key in `run.stats` and in tables.
        title: what a chart calls it.
        formula: definition in p_ij (weights), s_ij (logits), n_i (visible keys), z_i (head output), v_j (values).
        axis: one value per query row, per key, or per prompt; shape [batch, head, query], [batch, head, key] or [batch, head].
        unit: nats, tokens, probability, norm.
        scale: range of values.
        needs: what the kernel has to measure.
        derive: the definition in code.
        undefined: where the value is NaN.
        cost: what it adds to the sweep.
        citation: source.
        merge: how values of rows, prompts and shards join: counted, with mean and variance by Chan's rule, extremes, and a
            histogram over `scale` from which quantiles are read. Order of folding is the plan's, so results are bit-identical.
        optional: left out silently where the model cannot have it (no learned sink).
    """

    name: str
    title: str
    formula: str
    axis: Axis
    unit: str
    scale: Scale
    needs: Needs
    derive: Callable[[Rows], Tensor]
    undefined: str = "nowhere"
    cost: str
    citation: str
    merge: str = "count, mean, variance, extremes, histogram over all defined values"
    optional: bool = False


def span_mass(name: str) -> Statistic:
    """The mass on one user-given key set; `name` is span:NAME."""
    return Statistic(
        name=name,
        title=f"mass on {name.removeprefix('span:')}",
        formula="sum_{j in span} p_ij",
        axis="query",
        unit="probability",
        scale=UNIT,
        needs=Needs(sets=frozenset({name})),
        derive=lambda rows: rows.mass(name),
        cost="one masked add per score",
        citation="mass on a named key set",
    )
