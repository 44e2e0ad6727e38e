"""`Schedule`: an intervention that is in force for some layers or some steps of a generation only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from interp.capture.call import AttentionCall, Phase
from interp.capture.edits import Intervention
from interp.capture.sites import Site
from interp.errors import EditError


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """Limit another intervention.

    Attributes:
        edit: the intervention.
        layers: half-open range (first, stop) of layers, None for all that the intervention names; (2, 31) is ACT's for 32 layers.
        steps: half-open range of steps, stop None for no end: step 0 is the prompt's pass, step 1 the first decode call behind it.
    """

    edit: Intervention
    layers: tuple[int, int] | None = None
    steps: tuple[int, int | None] | None = None
    selective: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check that the ranges hold something."""
        for name, span in (("layers", self.layers), ("steps", self.steps)):
            if span is not None and (span[0] < 0 or (span[1] is not None and span[1] <= span[0])):
                raise EditError(f"Schedule: {name} {span} is no range; wanted (first, stop) with 0 <= first < stop")
        if self.layers is None and self.steps is None:
            raise EditError("Schedule: give layers=, steps= or both; without them use the intervention itself")

    @property
    def name(self) -> str:
        """The intervention's, and when."""
        parts = [f"{what} {span[0]} to {'the end' if span[1] is None else span[1] - 1}"
                 for what, span in (("layers", self.layers), ("steps", self.steps)) if span is not None]  # fmt: skip
        return f"{self.edit.name} in {', '.join(parts)}"

    @property
    def phases(self) -> frozenset[Phase]:
        """Both: it counts the steps; the intervention's own are kept to."""
        return frozenset({"prefill", "decode"})

    def check(self, *, layers: int, heads: int) -> None:
        """As the intervention, and no layer that does not exist."""
        self.edit.check(layers=layers, heads=heads)
        if self.layers is not None and self.layers[1] > layers:
            raise EditError(f"Schedule: layers {self.layers} go past the model's {layers}")

    def acts_on(self, site: Site) -> bool:
        """Where the intervention acts, inside the range."""
        return self.edit.acts_on(site) and (self.layers is None or self.layers[0] <= site.layer < self.layers[1])

    def before(self, call: AttentionCall) -> AttentionCall:
        """Count the step; let the intervention act if it is one of its own."""
        step = 0 if call.phase == "prefill" else call.memory.get("step", None)
        if step is None:
            raise EditError(f"{self.name}: steps are counted from a prompt, which was not run inside this context")
        call.memory["step"] = step + 1
        return self.edit.before(call) if self._is_on(call) else call

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """The same on the way out."""
        return self.edit.after(replace(call), out) if self._is_on(call) else out

    def _is_on(self, call: AttentionCall) -> bool:
        step = call.memory["step"] - 1
        first, stop = (0, None) if self.steps is None else self.steps
        return call.phase in self.edit.phases and first <= step and (stop is None or step < stop)
