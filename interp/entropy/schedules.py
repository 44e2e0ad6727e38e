"""Temperature in training: multipliers on attention logits that a schedule moves or that the model learns.

Entropy falls with the multiplier tau on the logits, dH/dtau = -tau Var_{p_tau}(s), so a small tau at first keeps early attention diffuse while
values and keys are still noise, and a cap on tau keeps late attention from collapsing. The multipliers by row and length (log n, Entropy-ABF,
selective self-attention ...) are `interp.interventions.temperature`'s; both compose, because multipliers multiply.

    ScheduledTemperature   tau(t) of the training step, for chosen layers
    LearnedTemperature     1 / t_h learned for each head: SM(t) of Entropy-Guided Attention (Jha & Reagen 2025, arXiv 2501.03489)

Both are interventions: `with model.edit(temperature): loss = model.hf(ids, labels=ids).loss`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import torch
from torch import Tensor, nn

from interp.capture.call import AttentionCall, Phase
from interp.capture.sites import Site
from interp.errors import EditError, OptionError
from interp.interventions.where import BOTH, HeadEdit

Shape = Literal["constant", "linear", "cosine", "exponential"]
SHAPES: Final[Mapping[Shape, Callable[[float, float, float], float]]] = MappingProxyType(
    {
        "constant": lambda start, end, at: end,
        "linear": lambda start, end, at: start + (end - start) * at,
        "cosine": lambda start, end, at: end + (start - end) * (1 + math.cos(math.pi * at)) / 2,
        "exponential": lambda start, end, at: start * (end / start) ** at,
    }
)
"""Shape -> (start, end, share of the way in [0, 1]) -> tau."""


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """tau of a training step: from `start` at step 0 to `end` at step `steps`, and `end` from then on.

    Attributes:
        start, end: multipliers; above 0.
        steps: length of the way, at least 1.
        shape: of the way; "constant" is `end` throughout.
    """

    start: float = 1.0
    end: float = 1.0
    steps: int = 1
    shape: Shape = "linear"

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.shape not in SHAPES:
            raise OptionError(f"shape must be one of {', '.join(SHAPES)}; got {self.shape!r}")
        if not (math.isfinite(self.start) and self.start > 0 and math.isfinite(self.end) and self.end > 0):
            raise OptionError(f"Ramp: start and end must be finite and above 0; got {self.start} and {self.end}")
        if self.steps < 1:
            raise OptionError(f"Ramp: steps must be at least 1; got {self.steps}")

    def __call__(self, step: int) -> float:
        """tau at a step."""
        return SHAPES[self.shape](self.start, self.end, min(max(step / self.steps, 0.0), 1.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class ScheduledTemperature(HeadEdit):
    """Intervention: s -> tau(step) s in the chosen heads.

    Attributes:
        schedule: step -> tau.
        step: asked at every attention call, so that one object serves a whole training run: `step=lambda: trainer.state.global_step`.
    """

    schedule: Callable[[int], float]
    step: Callable[[], int]

    @property
    def detail(self) -> str:
        """tau now."""
        return f"tau {self.schedule(self.step()):g} at step {self.step()}"

    def before(self, call: AttentionCall) -> AttentionCall:
        """Multiply in the kernel."""
        tau = self.schedule(self.step())
        if not (math.isfinite(tau) and tau >= 0):
            raise EditError(
                f"ScheduledTemperature: step {self.step()} gave tau = {tau}; it must be finite and at least 0"
            )
        return call.with_edit(logit_scale=self.per_head(tau, call, 1.0)[None, :, None])


class LearnedTemperature(nn.Module):
    """Intervention with parameters: s -> exp(log_tau[layer, head]) s, tau = 1 at first. Give its parameters to the optimizer.

    Attributes:
        log_tau: learned, [layer, head]; tau is 1 / t of Entropy-Guided Attention's SM(t), in logarithms so that it stays positive.
    """

    def __init__(self, layers: int, heads: int) -> None:
        super().__init__()
        self.log_tau = nn.Parameter(torch.zeros(layers, heads))

    @property
    def name(self) -> str:
        """For messages and manifests."""
        low, high = (float(x) for x in self.log_tau.detach().exp().aminmax())
        return f"LearnedTemperature(tau {low:.3g} to {high:.3g}: all heads)"

    @property
    def phases(self) -> frozenset[Phase]:
        """Prefill and decode."""
        return BOTH

    def check(self, *, layers: int, heads: int) -> None:
        """Raise EditError for a model of another size."""
        if tuple(self.log_tau.shape) != (layers, heads):
            raise EditError(
                f"LearnedTemperature: made for {tuple(self.log_tau.shape)} layers x heads, but the model has {(layers, heads)}; "
                "make one of the model's size"
            )

    def acts_on(self, site: Site) -> bool:
        """Every self-attention."""
        return site.kind == "self"

    def before(self, call: AttentionCall) -> AttentionCall:
        """Multiply in the kernel."""
        tau = self.log_tau[call.site.layer].to(device=call.q.device, dtype=call.work_dtype).exp()
        return call.with_edit(logit_scale=tau[None, :, None])

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """Nothing to change on the way out."""
        return out
