"""More of a finished attention call: sums of its map by key, diagonal and block, and single weights of one head. O(N) memory.

For functions that `Probe` hands calls to: both read q, k and lse of the call once more and take its mask, scale, soft-cap and edit along.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.capture.call import AttentionCall
from interp_kernels import Attended, ColumnCollect, columns, entries


def column_sums(
    call: AttentionCall,
    attended: Attended,
    *,
    rows: Bool[Tensor, "subset query"],
    collect: ColumnCollect | None = None,
) -> dict[str, Tensor]:
    """Sums of the map over subsets of its rows, by the names of `interp_kernels.ColumnCollect`; None: received mass [B, H, subset, key]."""
    swept = columns(
        call.q,
        call.k,
        attended.lse,
        mask=call.mask,
        rows=rows,
        collect=collect,
        scale=call.scale,
        softcap=call.softcap,
        edit=call.edit,
    )
    return swept.stats


def weights_at(
    call: AttentionCall, attended: Attended, i: Int[Tensor, " entry"], j: Int[Tensor, " entry"], *, head: int
) -> Float[Tensor, " entry"]:
    """Attention weights of one head of the first text at the pairs (row i, key j); 0 where hidden."""
    group = head // (call.heads // call.k.shape[1])
    found = entries(
        call.q[:1, head : head + 1],
        call.k[:1, group : group + 1],
        attended.lse[:1, head : head + 1],
        i,
        j,
        mask=call.mask.select(0, head),
        scale=call.scale,
        softcap=call.softcap,
        edit=None if call.edit is None else call.edit.select(0, head),
    )
    return found[0, 0]
