"""`AttentionCall`: one attention call of one layer, on its way into the kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from interp.capture.sites import Site
from interp.errors import EditError
from interp_kernels import Attended, Collect, Edit, Mask, attention
from interp_kernels.dispatch import BackendChoice

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

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.q.shape[1]

    @property
    def queries(self) -> int:
        """Rows of this call."""
        return self.q.shape[2]

    @property
    def keys(self) -> int:
        """Keys of this call, those of the cache included."""
        return self.k.shape[2]

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
        """The call with set-wise factors after the softmax; one intervention at a time may ask for them."""
        if self.edit is not None and self.edit.sets is not None:
            raise EditError(
                f"two interventions change layer {self.site.layer} by factors after the softmax, which do not compose; use one of them"
            )
        return replace(self, edit=replace(self.edit or Edit(), sets=sets, factors=factors))

    def attend(self, collect: Collect | None, backend: BackendChoice) -> Attended:
        """Make the call."""
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
            backend=backend,
        )


def phase_of(site: Site, q: Tensor, k: Tensor, mask: Mask) -> Phase:
    """Decode is when keys of earlier calls stand before the first row; cross-attention is always counted as prefill."""
    if site.kind == "cross":
        return "prefill"
    behind = mask.resolved_offset(q.shape[2], k.shape[2]) > 0 if mask.is_causal else q.shape[2] < k.shape[2]
    return "decode" if behind else "prefill"
