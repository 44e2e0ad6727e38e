"""Statistics of what a head writes: the norm of its output and the part of it that comes from the sink."""

from __future__ import annotations

from torch import Tensor

from interp.stats.declaration import POSITIVE, Statistic
from interp.stats.needs import Needs
from interp.stats.rows import Rows


def _value_weighted_sink_share(rows: Rows) -> Tensor:
    sink = rows.mass("first_token") * rows.first_value_norm()[..., None]
    norm = rows.out.float().norm(dim=-1)
    return rows.where(norm > 0, sink / norm)


STATISTICS: tuple[Statistic, ...] = (
    Statistic(
        name="output_norm",
        title="output norm",
        formula="norm of z_i = sum_j p_ij v_j",
        axis="query",
        unit="norm",
        scale=POSITIVE,
        needs=Needs(),
        derive=lambda rows: rows.out.float().norm(dim=-1),
        cost="one pass over the output",
        citation="no-op heads: Sandoval-Segura et al. 2025 (arXiv 2504.03889); before W_O",
    ),
    Statistic(
        name="value_weighted_sink_share",
        title="value-weighted sink share",
        formula="norm(p_{i,first} v_first) / norm(z_i)",
        axis="query",
        unit="ratio",
        scale=POSITIVE,
        needs=Needs(sets=frozenset({"first_token"})),
        derive=_value_weighted_sink_share,
        undefined="rows whose output is zero",
        cost="one pass over the output",
        citation="norm-weighted attention (Kobayashi et al. 2020, arXiv 2004.10102) at the first token; above 1 where the rest cancels it",
    ),
)
