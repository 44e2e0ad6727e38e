"""The ways to calibrate a head, by name: each has one number per head, its setting, and tries a few values of it.

    act          setting beta: share of its weight that a hidden sink keeps; the rest goes to the other keys (Yu et al. 2024, `ACT`)
    var          setting keep: the same for marked sinks, in rows that look at a marked group of tokens (Kang et al. 2025, `VAR`)
    zerotune     setting gamma: factor on the first token's weight (ZeroTuning, arXiv 2505.11739, `zero_tuning`)
    temperature  setting tau: multiplier on the logits (`Temperature`)

The published numbers are the first ones: beta 0.4 and keep 0.6 alone; ZeroTuning searches a gamma for each task, temperature is searched likewise,
which tries more heads x settings and so finds more by chance. `Method` is open: any intervention with a number per head can be searched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from interp.errors import OptionError
from interp.interventions.act import ACT, BETA, Detection, Receivers, Spared
from interp.interventions.bias import zero_tuning
from interp.interventions.places import Positions
from interp.interventions.temperature import Temperature
from interp.interventions.var import KEEP, MASS, RHO, VAR
from interp.interventions.where import Head, HeadEdit

Settings = Mapping[Head, float]
"""(layer, head) -> setting."""
GAMMAS: Final = (0.25, 0.5, 2.0, 4.0)
TAUS: Final = (0.5, 0.75, 1.33, 2.0)


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to calibrate heads, each by one number.

    Attributes:
        name: of the method.
        setting: what the number is called.
        settings: the values to try, none of which changes nothing.
        one: the intervention that gives some heads of self-attention one setting. It must act on each head by itself.
        options: what else the intervention depends on, plain values for manifests.
    """

    name: str
    setting: str
    settings: tuple[float, ...]
    one: Callable[[tuple[Head, ...], float], HeadEdit]
    options: Mapping[str, object]

    def __post_init__(self) -> None:
        """Check the settings."""
        if not self.settings or not all(math.isfinite(x) for x in self.settings):
            raise OptionError(f"{self.name}: wanted at least one finite {self.setting} to try, got {self.settings}")
        if len(set(self.settings)) < len(self.settings):
            raise OptionError(f"{self.name}: a {self.setting} stands twice among {self.settings}; give each once")

    def edits(self, heads: Settings) -> tuple[HeadEdit, ...]:
        """The interventions that give each head its setting, one for each setting in use, smallest first."""
        return tuple(
            self.one(tuple(sorted(head for head, mine in heads.items() if mine == setting)), setting)
            for setting in sorted(set(heads.values()))
        )


def act(
    settings: Sequence[float] = (BETA,),
    *,
    detection: Detection = "paper",
    threshold: float | None = None,
    spared: Spared = "first-found",
    receivers: Receivers = "all",
) -> Method:
    """ACT; see `interp.interventions.ACT` for the options. In short prompts alpha / N is above what most keys receive: then "code" finds more."""

    def one(heads: tuple[Head, ...], setting: float) -> HeadEdit:
        return ACT(
            heads=heads, beta=setting, detection=detection, threshold=threshold, spared=spared, receivers=receivers
        )

    options = {"detection": detection, "threshold": threshold, "spared": spared, "receivers": receivers}
    return Method(name="act", setting="beta", settings=tuple(settings), one=one, options=options)


def var(
    group: Positions,
    settings: Sequence[float] = (KEEP,),
    *,
    sinks: Positions = (0,),
    mass: float = MASS,
    rho: float = RHO,
) -> Method:
    """VAR for a marked group of tokens.

    Args:
        group: positions of the group, the same in every prompt (`CalibrationTask.group`).
        settings: shares that sinks keep.
        sinks: positions of the sinks.
        mass: least mass of a row on the group; lower it for groups of few tokens.
        rho: greatest share of sinks in it.
    """

    def one(heads: tuple[Head, ...], setting: float) -> HeadEdit:
        return VAR(heads=heads, group=group, sinks=sinks, keep=setting, mass=mass, rho=rho)

    options = {"group": list(group), "sinks": list(sinks), "mass": mass, "rho": rho}
    return Method(name="var", setting="keep", settings=tuple(settings), one=one, options=options)


def zerotune(settings: Sequence[float] = GAMMAS, *, key: int = 0) -> Method:
    """ZeroTuning: gamma above 1 feeds the first token and flattens the rest, below 1 the other way."""

    def one(heads: tuple[Head, ...], setting: float) -> HeadEdit:
        return zero_tuning(dict.fromkeys(heads, setting), key=key)

    return Method(name="zerotune", setting="gamma", settings=tuple(settings), one=one, options={"key": key})


def temperature(settings: Sequence[float] = TAUS) -> Method:
    """Temperature: tau above 1 sharpens a head, below 1 flattens it."""

    def one(heads: tuple[Head, ...], setting: float) -> HeadEdit:
        return Temperature(tau=dict.fromkeys(heads, setting))

    return Method(name="temperature", setting="tau", settings=tuple(settings), one=one, options={})


METHODS: Final[Mapping[str, Callable[..., Method]]] = MappingProxyType(
    {"act": act, "temperature": temperature, "var": var, "zerotune": zerotune}
)
"""Name -> function that makes the method; `var` wants the group."""
