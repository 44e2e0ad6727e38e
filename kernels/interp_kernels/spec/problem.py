"""`Problem`: the part of a call that all operations share, validated once: q, k, mask, scale, soft-cap, sink logits, edit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from interp_kernels.spec.edit import Edit
from interp_kernels.spec.mask import Mask


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """One attention problem. Build it with `Problem.of`, which checks it and fills the defaults.

    Attributes:
        q: [B, H, Nq, D] float.
        k: [B, Hkv, Nk, D] of the same dtype and device; H is a multiple of Hkv (query head h reads key head h // (H // Hkv)).
        mask: on the same device.
        scale: factor on q.k.
        softcap: c of c tanh(s / c), or None.
        sink_logits: [H] learned logit of an extra outcome without key or value (gpt-oss), or None.
        edit: on the same device, or None when it changes nothing.
    """

    q: Tensor
    k: Tensor
    mask: Mask
    scale: float
    softcap: float | None
    sink_logits: Tensor | None
    edit: Edit | None

    @staticmethod
    def of(
        q: Tensor,
        k: Tensor,
        *,
        mask: Mask,
        scale: float | None,
        softcap: float | None,
        sink_logits: Tensor | None,
        edit: Edit | None,
    ) -> Problem:
        """Check a call and bring it to canonical form. Raises ValueError that names every mismatch at once."""
        bad = _mismatches(q, k, mask=mask, softcap=softcap, sink_logits=sink_logits, edit=edit)
        if bad:
            raise ValueError("; ".join(bad))
        return Problem(
            q=q,
            k=k,
            mask=mask.to(q.device),
            scale=q.shape[3] ** -0.5 if scale is None else float(scale),
            softcap=None if softcap is None else float(softcap),
            sink_logits=None if sink_logits is None else sink_logits.reshape(-1).to(q.device),
            edit=None if edit is None or edit.is_empty else edit.to(q.device),
        )

    @property
    def batch(self) -> int:
        """B."""
        return self.q.shape[0]

    @property
    def heads(self) -> int:
        """H, query heads."""
        return self.q.shape[1]

    @property
    def key_heads(self) -> int:
        """Hkv, key and value heads."""
        return self.k.shape[1]

    @property
    def group(self) -> int:
        """Query heads per key head."""
        return self.heads // self.key_heads

    @property
    def queries(self) -> int:
        """Nq."""
        return self.q.shape[2]

    @property
    def keys(self) -> int:
        """Nk."""
        return self.k.shape[2]

    @property
    def offset(self) -> int:
        """Position of row 0 on the key axis."""
        return self.mask.resolved_offset(self.queries, self.keys)

    @property
    def work_dtype(self) -> torch.dtype:
        """The dtype in which sums are kept: float64 for float64 input, else float32."""
        return torch.float64 if self.q.dtype == torch.float64 else torch.float32


def _mismatches(
    q: Tensor, k: Tensor, *, mask: Mask, softcap: float | None, sink_logits: Tensor | None, edit: Edit | None
) -> list[str]:
    """Everything about a call that does not fit, in words; empty when all fits."""
    if q.ndim != 4 or k.ndim != 4:
        return [f"q, k: wanted [batch, head, token, feature], got {tuple(q.shape)} and {tuple(k.shape)}"]
    bad: list[str] = []
    if q.dtype != k.dtype or not q.is_floating_point():
        bad.append(f"q, k: wanted one floating dtype, got {q.dtype} and {k.dtype}")
    if q.device != k.device:
        bad.append(f"q, k: wanted one device, got {q.device} and {k.device}")
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        bad.append(f"q, k: wanted equal batch and feature axes, got {tuple(q.shape)} and {tuple(k.shape)}")
    if 0 in q.shape or 0 in k.shape:
        bad.append(f"q, k: wanted at least 1 along every axis, got {tuple(q.shape)} and {tuple(k.shape)}")
    elif q.shape[1] % k.shape[1]:
        bad.append(f"heads: wanted a multiple of the {k.shape[1]} key heads, got {q.shape[1]} query heads")
    if softcap is not None and not softcap > 0:
        bad.append(f"softcap: wanted a positive number or None, got {softcap}")
    if sink_logits is not None and sink_logits.numel() != q.shape[1]:
        bad.append(f"sink_logits: wanted one per query head ({q.shape[1]}), got shape {tuple(sink_logits.shape)}")
    sizes = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    for part in (mask, edit):
        try:
            if part is not None:
                part.check(*sizes)
        except ValueError as said:
            bad.append(str(said))
    return bad
