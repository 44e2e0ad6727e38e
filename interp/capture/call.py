"""`AttentionCall`: one attention call of one layer, on its way into the kernel."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from interp.capture.placed import PlacedMask
from interp.capture.sites import Site
from interp.errors import EditError
from interp_kernels import Attended, Collect, Edit, Mask, attention, visible_count
from interp_kernels.dispatch import BackendChoice
from interp_kernels.spec.edit import MAX_FACTOR_SETS
from interp_kernels.visibility import visible_at

Phase = Literal["prefill", "decode"]


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionCall:
    """One attention call of one layer, as the kernel will get it.

    Attributes:
        site: which attention of which layer.
        phase: "prefill" where the rows start at the first key (whole texts), "decode" where keys of earlier calls stand before them.
        q: [B, H, Nq, D].
        k, v: [B, Hkv, Nk, D or Dv].
        mask, scale, softcap, sink_logits: see `interp_kernels.attention`.
        edit: changes inside the kernel that earlier interventions asked for.
        backend: which kernel backend to ask for.
        lse: row log-sum-exp [B, H, Nq] of the finished call; None before it.
        memory: what the intervention that holds this call has kept of earlier calls of this site; empty at every prefill.
    """

    site: Site
    phase: Phase
    q: Tensor
    k: Tensor
    v: Tensor
    mask: Mask
    scale: float | None
    softcap: float | None
    sink_logits: Tensor | None
    edit: Edit | None = None
    backend: BackendChoice = "auto"
    lse: Tensor | None = None
    memory: dict[str, Any] = field(default_factory=dict[str, Any])

    # ------------------------------------------------------------------ sizes
    @property
    def heads(self) -> int:
        """Query heads."""
        return self.q.shape[1]

    @property
    def group(self) -> int:
        """Query heads per key head."""
        return self.q.shape[1] // self.k.shape[1]

    @property
    def queries(self) -> int:
        """Rows of this call."""
        return self.q.shape[2]

    @property
    def keys(self) -> int:
        """Keys of this call, those of the cache included."""
        return self.k.shape[2]

    @property
    def work_dtype(self) -> torch.dtype:
        """Dtype for the tensors of edits: float64 for float64 calls, else float32."""
        return torch.float64 if self.q.dtype == torch.float64 else torch.float32

    # ------------------------------------------------------------------ places in the text
    @property
    def first_key(self) -> int:
        """Number, on the padded token axis, of this call's key 0; above 0 only where a sliding cache has dropped keys."""
        return self.mask.first_key if isinstance(self.mask, PlacedMask) else 0

    def key_positions(self) -> Tensor:
        """Place of each key in its text, counted from the text's first token, int64 [B or 1, Nk]; negative at left padding."""
        keys = torch.arange(self.keys, device=self.q.device) + self.first_key
        return keys[None] - self._text_start()

    def row_positions(self) -> Tensor:
        """Place of each row in its text, int64 [B or 1, Nq]; negative at left padding."""
        rows = torch.arange(self.queries, device=self.q.device) + self.mask.resolved_offset(self.queries, self.keys)
        return rows[None] + self.first_key - self._text_start()

    def real_rows(self) -> Tensor:
        """Whether each row is a token of its text and not padding at an end, bool [B or 1, Nq]; in cross-attention all count as real."""
        if self.site.kind == "cross":  # the mask's padding is that of the keys
            return torch.ones(1, self.queries, dtype=torch.bool, device=self.q.device)
        row = torch.arange(self.queries, device=self.q.device) + self.mask.resolved_offset(self.queries, self.keys)
        left, right = (
            torch.zeros(1, 1, dtype=torch.int64) if x is None else x[:, None] for x in (self.mask.left, self.mask.right)
        )
        return (row >= left.to(row.device)) & (row < self.keys - right.to(row.device))

    def visible_count(self) -> Tensor:
        """Number of keys that each row sees, int64 [B or 1, H or 1, Nq]."""
        mask = self.mask.to(self.q.device)
        return visible_count(mask, self.q.shape[0], self.heads, self.queries, self.keys, self.q.device)

    def sees_first(self) -> Tensor:
        """Whether each row sees the first token of its text, bool [B or 1, H or 1, Nq]."""
        mask, rows = self.mask.to(self.q.device), torch.arange(self.queries, device=self.q.device)
        firsts = (-self.key_positions()[:, 0]).tolist()
        parts = []
        for b, first in enumerate(firsts):
            item = mask if len(firsts) == 1 else mask.narrow(slice(b, b + 1), slice(0, self.heads))
            seen = visible_at(item, self.heads, self.queries, self.keys, rows, torch.full_like(rows, max(first, 0)))
            parts.append(seen & (first >= 0))
        return torch.cat(parts)

    def _text_start(self) -> Tensor:
        if isinstance(self.mask, PlacedMask):
            return self.mask.text_start[:, None].to(self.q.device)
        if self.mask.left is not None:
            return self.mask.left[:, None].to(self.q.device).long()
        return torch.zeros(1, 1, dtype=torch.int64, device=self.q.device)

    # ------------------------------------------------------------------ changes
    def with_edit(
        self, *, logit_scale: Tensor | None = None, key_bias: Tensor | None = None, gate: Tensor | None = None
    ) -> AttentionCall:
        """The call with one more change inside the kernel; factors multiply and biases add to those that are there.

        Shapes as in `interp_kernels.Edit`: logit_scale and gate [B or 1, H or 1, Nq or 1], key_bias [B or 1, H or 1, Nk].
        """
        old = self.edit or Edit()

        def times(a: Tensor | None, b: Tensor | None) -> Tensor | None:
            return a if b is None else b if a is None else a * b

        bias = old.key_bias if key_bias is None else key_bias if old.key_bias is None else old.key_bias + key_bias
        changed = replace(
            old, logit_scale=times(old.logit_scale, logit_scale), key_bias=bias, gate=times(old.gate, gate)
        )
        return replace(self, edit=changed)

    def with_factors(self, sets: Tensor, factors: Tensor) -> AttentionCall:
        """The call with set-wise factors after the softmax; they multiply with those that are there.

        Args:
            sets: disjoint key sets, bool [B or 1, H or 1, C, Nk].
            factors: [B or 1, H or 1, Nq or 1, C + 1], the last for keys in no set.

        Raises:
            EditError: the common refinement of old and new sets has more sets than a kernel keeps apart.
        """
        old = self.edit or Edit()
        if old.sets is not None and old.factors is not None:
            sets, factors = _refined((old.sets, old.factors), (sets, factors))
        if sets.shape[2] > MAX_FACTOR_SETS:
            raise EditError(
                f"layer {self.site.layer}: interventions that weigh key sets after the softmax cut the keys into {sets.shape[2]} sets; "
                f"the kernels keep {MAX_FACTOR_SETS} apart; use fewer of them on one layer"
            )
        return replace(self, edit=replace(old, sets=sets, factors=factors))

    def ungrouped(self) -> AttentionCall:
        """The call with a key and a value head for every query head, for changes that differ within a group."""
        if self.group == 1:
            return self
        k, v = (x.repeat_interleave(self.group, 1) for x in (self.k, self.v))
        return replace(self, k=k, v=v)

    def head(self, head: int) -> AttentionCall:
        """The call of one query head, for measurements of few heads."""
        one, key = slice(head, head + 1), slice(head // self.group, head // self.group + 1)
        everyone = slice(0, self.q.shape[0])
        return replace(
            self,
            q=self.q[:, one],
            k=self.k[:, key],
            v=self.v[:, key],
            mask=self.mask.narrow(everyone, one),
            sink_logits=None if self.sink_logits is None else self.sink_logits.reshape(-1)[one],
            edit=None if self.edit is None else self.edit.narrow(everyone, one),
        )

    def attend(self, collect: Collect | None, backend: BackendChoice | None = None) -> Attended:
        """Make the call; `backend` None asks for the call's own."""
        return attention(
            self.q,
            self.k,
            self.v,
            mask=self.mask,
            scale=self.scale,
            softcap=self.softcap,
            sink_logits=self.sink_logits,
            edit=self.edit,
            collect=collect,
            backend=self.backend if backend is None else backend,
        )


def phase_of(site: Site, q: Tensor, k: Tensor, mask: Mask) -> Phase:
    """Decode is when keys of earlier calls stand before the first row; cross-attention is always counted as prefill."""
    if site.kind == "cross":
        return "prefill"
    behind = mask.resolved_offset(q.shape[2], k.shape[2]) > 0 if mask.is_causal else q.shape[2] < k.shape[2]
    return "decode" if behind else "prefill"


def _refined(old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Every non-empty intersection of the sets of two partitions, with the product of their factors."""
    parts = [_with_rest(sets, factors) for sets, factors in (old, new)]
    pairs = [(a & b, f * g) for a, f in parts[0] for b, g in parts[1]]
    *inner, (_, last) = pairs
    kept = [(s, f) for s, f in inner if bool(s.any())] or inner[:1]
    sets = torch.broadcast_tensors(*(s for s, _ in kept))
    factors = torch.broadcast_tensors(*(f for _, f in kept), last)
    return torch.stack(sets, 2), torch.stack(factors, -1)


def _with_rest(sets: Tensor, factors: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(members, factor) of each set and, last, of the keys in none."""
    members = [*sets.unbind(2), ~sets.any(2)]
    return list(zip(members, factors.unbind(-1), strict=True))
