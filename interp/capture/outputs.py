"""`OutputKeeper`: a listener that keeps head outputs z (before W_O) of some layers and measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from interp.capture.call import AttentionCall
from interp.capture.sites import Site
from interp_kernels import Attended, Collect
from interp_kernels.dispatch import BackendChoice


@dataclass(kw_only=True, eq=False)
class OutputKeeper:
    """Keeps z [B, H, Nq, Dv] of the self-attention of the wanted layers (None: all), with their gradient history if there is one."""

    sites: Mapping[int, Site]
    layers: frozenset[int] | None
    backend: BackendChoice
    outputs: dict[int, Tensor] = field(default_factory=dict)

    def wish(self, call: AttentionCall) -> Collect | None:
        """Nothing is measured."""
        return None

    def hear(self, call: AttentionCall, attended: Attended) -> None:
        """Keep one layer's outputs."""
        if call.site.kind == "self" and (self.layers is None or call.site.layer in self.layers):
            self.outputs[call.site.layer] = attended.out
