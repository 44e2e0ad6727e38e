"""Entropy collapse and overload, told from the entropies of heads while a model trains.

Zhai et al. (2023) show collapse by curves and give no rule; Jha and Reagen (2025) name overload and give no threshold. The rules here are
ours, each an argument; the quantities that they read are published beside every alarm.

- collapsed head: median normalised entropy H_i / log n_i below 0.05, and of the keys other than the first below 0.10. A head that rests on
  its first key and adds next to nothing (no-op) is not collapsed, it is idle.
- alarm "drop": a layer's mean normalised entropy falls below half of its own average over the last 200 steps (exponential).
- alarm "collapse": more than a quarter of the heads are collapsed.
- alarm "overload": more than half of the heads still have their mean in the top quarter (0.75 to 1; the quarters of Jha and Reagen on
  normalised entropy) after `settling` steps. Every model starts there, so the steps are what makes it news.
- alarm "nonfinite": a logit is infinite or not a number.

In the trainings of data/results/entropy_digits and entropy_topics, "drop" and "collapse" both spoke in all 6 whose loss suffered, "drop" first and
always before the loss departed; of the 30 that went well, "drop" spoke in 3 and "collapse" in none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from interp.entropy.health import LayerHealth
from interp.errors import OptionError

Kind = Literal["drop", "collapse", "overload", "nonfinite"]

COLLAPSED: Final = 0.05
COLLAPSED_REST: Final = 0.10
DROP: Final = 0.5
MEMORY: Final = 200
COLLAPSED_SHARE: Final = 0.25
NO_OP_MASS: Final = 0.8
NO_OP_OUTPUT: Final = 0.5
OVERLOADED: Final = 0.75
OVERLOADED_SHARE: Final = 0.5
SETTLING: Final = 1000


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Thresholds of the detector; the defaults are ours (see the module's description).

    Attributes:
        collapsed: median normalised entropy below which a head may be collapsed.
        collapsed_rest: the same for the keys other than the first, renormalised; both must hold.
        drop: a layer's mean below this share of its running average is an alarm.
        memory: steps of the running average.
        collapsed_share: share of collapsed heads above which there is an alarm.
        no_op_mass, no_op_output: a head is idle, not collapsed, with more mass than this on the first key, of which less than this comes
            out, relative to the mean norm of a value.
        overloaded: mean normalised entropy from which a head counts as overloaded.
        overloaded_share: share of overloaded heads above which there is an alarm.
        settling: steps before which overload is no news.
    """

    collapsed: float = COLLAPSED
    collapsed_rest: float = COLLAPSED_REST
    drop: float = DROP
    memory: int = MEMORY
    collapsed_share: float = COLLAPSED_SHARE
    no_op_mass: float = NO_OP_MASS
    no_op_output: float = NO_OP_OUTPUT
    overloaded: float = OVERLOADED
    overloaded_share: float = OVERLOADED_SHARE
    settling: int = SETTLING

    def __post_init__(self) -> None:
        """Refuse what is no share and no number of steps."""
        shares = (
            "collapsed",
            "collapsed_rest",
            "drop",
            "collapsed_share",
            "no_op_mass",
            "overloaded",
            "overloaded_share",
        )
        bad = [f"{name}={getattr(self, name)}" for name in shares if not 0 <= getattr(self, name) <= 1]
        if bad or self.memory < 1 or self.settling < 0 or self.no_op_output < 0:
            raise OptionError(
                f"wanted shares from 0 to 1 ({', '.join(bad) or 'all are'}), no_op_output >= 0, memory >= 1 and settling >= 0; "
                f"got no_op_output={self.no_op_output}, memory={self.memory}, settling={self.settling}"
            )


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """One alarm, raised when its condition becomes true and again only after it has been false.

    Attributes:
        step: training step.
        kind: see the module's description.
        layer: which one; None for alarms about the whole model.
        value, threshold: what was measured, and the bound that it passed.
        message: the same in words.
    """

    step: int
    kind: Kind
    layer: int | None
    value: float
    threshold: float
    message: str


@dataclass(kw_only=True)
class Detector:
    """Turns measured steps into alarms, one `update` after the other.

    Attributes:
        rules: thresholds.
    """

    rules: Rules = field(default_factory=Rules)
    _average: dict[str, tuple[int, float]] = field(default_factory=dict[str, tuple[int, float]])
    _standing: set[tuple[Kind, int | None]] = field(default_factory=set[tuple[Kind, int | None]])

    def update(self, step: int, layers: Sequence[LayerHealth]) -> list[Alarm]:
        """The alarms that this step raises.

        Args:
            step: training step, not below the last one.
            layers: every layer's heads.
        """
        found = [alarm for layer in layers for alarm in self._of_layer(step, layer)]
        if layers:
            found += self._of_shares(step, layers)
        # An alarm stands as long as its condition holds, and is told once.
        standing: set[tuple[Kind, int | None]] = {(alarm.kind, alarm.layer) for alarm in found}
        news = [alarm for alarm in found if (alarm.kind, alarm.layer) not in self._standing]
        self._standing = standing
        return news

    def _of_layer(self, step: int, layer: LayerHealth) -> list[Alarm]:
        rules = self.rules
        if not np.isfinite(layer.max_logit).all():
            said = f"step {step}: layer {layer.layer} ({layer.path}) has logits that are not finite"
            return [
                Alarm(step=step, kind="nonfinite", layer=layer.layer, value=math.nan, threshold=math.inf, message=said)
            ]
        mean = float(np.nanmean(layer.entropy)) if not np.isnan(layer.entropy).all() else math.nan
        if math.isnan(mean):
            return []
        at, average = self._average.get(layer.path, (step, mean))
        kept = (1 - 1 / rules.memory) ** max(step - at, 0)
        self._average[layer.path] = (step, kept * average + (1 - kept) * mean)
        bound = rules.drop * average
        if not mean < bound:
            return []
        said = (
            f"step {step}: mean entropy of layer {layer.layer} ({layer.path}) fell to {mean:.3f} of log n, "
            f"below {rules.drop:g} times its {rules.memory}-step average {average:.3f}"
        )
        return [Alarm(step=step, kind="drop", layer=layer.layer, value=mean, threshold=bound, message=said)]

    def _of_shares(self, step: int, layers: Sequence[LayerHealth]) -> list[Alarm]:
        rules = self.rules
        heads = sum(len(layer.entropy) for layer in layers)
        shares: list[tuple[Kind, int, float, str]] = [
            (
                "collapse",
                sum(int(collapsed(layer, rules).sum()) for layer in layers),
                rules.collapsed_share,
                "have collapsed",
            )
        ]
        if step >= rules.settling:
            over = sum(int((layer.entropy >= rules.overloaded).sum()) for layer in layers)
            shares.append(
                ("overload", over, rules.overloaded_share, f"spread over more than {rules.overloaded:g} of log n")
            )
        return [
            Alarm(
                step=step, kind=kind, layer=None, value=count / heads, threshold=bound,
                message=f"step {step}: {count} of {heads} heads {what}, more than {bound:.0%}",
            )
            for kind, count, bound, what in shares
            if count > bound * heads
        ]  # fmt: skip


def collapsed(layer: LayerHealth, rules: Rules) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which heads of a layer are collapsed, bool [H]; idle heads are not."""
    idle = (layer.sink_mass > rules.no_op_mass) & (layer.sink_output < rules.no_op_output)
    # With two keys there is no distribution over the others, and the first condition stands alone.
    rest = np.isnan(layer.rest_q50) | (layer.rest_q50 < rules.collapsed_rest)
    return (layer.entropy_q50 < rules.collapsed) & rest & ~idle
