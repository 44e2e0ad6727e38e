"""`Probe`: a listener for analyses that need other measurements than the catalogue of statistics has.

It asks the kernel for a `Collect` of its own on some layers and hands each finished call to a function, so nothing is kept that the
function does not keep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from interp.capture.call import AttentionCall
from interp.capture.sites import Site
from interp_kernels import Attended, Collect
from interp_kernels.dispatch import BackendChoice

Wish = Callable[[AttentionCall], Collect | None]
Take = Callable[[AttentionCall, Attended], None]


@dataclass(kw_only=True, eq=False)
class Probe:
    """Measures self-attention calls of the wanted layers.

    Attributes:
        sites: the model's attention modules.
        layers: layer numbers, None for all.
        backend: which kernel backend to ask for.
        collect: what to collect of a call.
        take: gets every call and its result, in layer order.
    """

    sites: Mapping[int, Site]
    layers: frozenset[int] | None
    backend: BackendChoice
    collect: Wish
    take: Take

    def wish(self, call: AttentionCall) -> Collect | None:
        """What to collect of this call."""
        return self.collect(call) if self._wants(call) else None

    def hear(self, call: AttentionCall, attended: Attended) -> None:
        """Hand the result on."""
        if self._wants(call):
            self.take(call, attended)

    def _wants(self, call: AttentionCall) -> bool:
        return call.site.kind == "self" and (self.layers is None or call.site.layer in self.layers)
