"""Head gates: z_h(i) <- g_h(i) z_h(i), inside the kernel, behind the softmax and its factors.

`GateHeads` has the gates given, one number a head or one a head and token; g = 0 is zero ablation, and a gradient of the loss to a gate is the
first-order effect of removing its head (Michel et al. 2019, arXiv 1905.10650). `RouteHeads` chooses heads per token by the norm of their
query, as MoH does on a pretrained model (arXiv 2410.11842, MoH-LLaMA3: half of the heads always on, a quarter routed); only the choice is
reproduced, the weights that MoH trains are not, so a chosen head keeps its output as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.capture.call import AttentionCall
from interp.errors import EditError
from interp.interventions.where import HeadEdit, PerHead, by_position


@dataclass(frozen=True, kw_only=True, eq=False)
class GateHeads(HeadEdit):
    """Multiply head outputs by gates.

    Attributes:
        gate: factor for the chosen heads, or (layer, head) -> factor.
        tokens: instead of `gate`: layer -> gates by head and token position, [H, N] or [B, H, N]; other layers are left alone.
    """

    gate: PerHead | None = None
    tokens: Mapping[int, Tensor] | None = None

    def __post_init__(self) -> None:
        """Check that there is one kind of gates."""
        if (self.gate is None) == (self.tokens is None):
            raise EditError(
                "GateHeads: give gate= (numbers) or tokens= (layer -> gates by head and token), one of them"
            )
        if self.gate is not None:
            self.take_heads_of(self.gate)
        elif self.tokens is not None:
            self.take_layers_of(self.tokens)
        super().__post_init__()

    def before(self, call: AttentionCall) -> AttentionCall:
        """Gate in the kernel."""
        if self.gate is not None:
            return call.with_edit(gate=self.per_head(self.gate, call, 1.0)[None, :, None])
        gates = {} if self.tokens is None else self.tokens
        gate = gates[call.site.layer]
        if gate.ndim not in (2, 3) or gate.shape[-2] != call.heads:
            raise EditError(
                f"GateHeads: layer {call.site.layer} wants gates [{call.heads}, token] or [batch, {call.heads}, token], got {tuple(gate.shape)}"
            )
        chosen = self.chosen(call)[None, :, None]
        return call.with_edit(gate=by_position(self.name, gate, call).where(chosen, 1.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class RouteHeads(HeadEdit):
    """Keep, of the chosen heads, only those `keep` whose query has the largest norm at each token; the other heads are shared and stay on.

    Attributes:
        keep: how many of the chosen heads of a layer stay on at a token, at least 1; ties go to the lower head number.
    """

    keep: int

    def __post_init__(self) -> None:
        """Check the number."""
        super().__post_init__()
        if self.keep < 1:
            raise EditError(
                f"RouteHeads: keep must be at least 1, got {self.keep}; to switch heads off use AblateHeads"
            )

    @property
    def detail(self) -> str:
        """How many stay."""
        return f"{self.keep} of"

    def before(self, call: AttentionCall) -> AttentionCall:
        """Gate in the kernel, by row."""
        routed = self.chosen(call)
        if self.keep >= int(routed.sum()):
            raise EditError(
                f"RouteHeads: layer {call.site.layer} has {int(routed.sum())} chosen heads, so keeping {self.keep} of them changes nothing"
            )
        norm = call.q.detach().to(call.work_dtype).norm(dim=-1).masked_fill(~routed[None, :, None], -1.0)
        order = torch.sort(norm, dim=1, descending=True, stable=True).indices[:, : self.keep]
        gate = torch.zeros_like(norm).scatter(1, order, 1.0).masked_fill(~routed[None, :, None], 1.0)
        return call.with_edit(gate=gate)
