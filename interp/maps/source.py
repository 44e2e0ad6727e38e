"""`MapSource`: what one head's attention map is made of: O(N) numbers from which any part of the N x N map comes back exactly."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from interp_kernels import Edit, Mask


@dataclass(frozen=True, kw_only=True, eq=False)
class MapSource:
    """One head of one text. The leading axes of every tensor have size 1 (batch and head), as the kernels want them.

    Attributes:
        q: queries after rotary and QK norm.
        k: keys that this head reads (its group's under grouped-query attention).
        lse: row log-sum-exp of the visible logits, a learned sink's logit included.
        mask: who sees whom.
        scale: factor on q.k.
        softcap: logit soft-cap, or None.
        edit: what interventions changed inside the kernel, or None; the map is that of the softmax, before factors and gates.
    """

    q: Float[Tensor, "1 1 query feature"]
    k: Float[Tensor, "1 1 key feature"]
    lse: Float[Tensor, "1 1 query"]
    mask: Mask
    scale: float
    softcap: float | None
    edit: Edit | None = None
