"""What came of a training, read off its loss and its alarms. The rules are ours, and the curves stand beside them.

- departs: first step at which the smoothed loss has risen above its lowest value so far by 10 % of the loss of an untrained model
  (log of the number of classes or bytes), the first 20 steps left out, or is not finite. It can be said while training.
- behind: first step from which the smoothed loss stays, to the end, above the median of the trainings of the same learning rate with a
  remedy, by more than 5 % of the loss of an untrained model. It is said afterwards, and finds a stall, which never departs.
- lead: steps from the first alarm of a kind that means collapse to either. A training that learns more slowly than those with a remedy is behind
  for that reason too, so this lead may be negative; while training, `departs` is what there is to see.

Both shares were set where no training of the digits at the stable rate shows either; its noise reaches a third of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from interp.entropy.detector import Alarm

SMOOTHING: Final = 20
RISE: Final = 0.10
BEHIND: Final = 0.05
MEANING_COLLAPSE: Final = ("drop", "collapse", "nonfinite")


def smoothed(losses: Sequence[float] | NDArray[np.float64], steps: int = SMOOTHING) -> NDArray[np.float64]:
    """Exponential average of the losses over `steps` steps, corrected for its start; NaN from the first loss that is not finite."""
    found, average, weight = np.full(len(losses), np.nan), 0.0, 0.0
    kept = 1 - 1 / steps
    for n, loss in enumerate(losses):
        if not math.isfinite(loss):
            break
        average, weight = kept * average + (1 - kept) * loss, kept * weight + (1 - kept)
        found[n] = average / weight
    return found


def departs(losses: Sequence[float] | NDArray[np.float64], *, untrained: float) -> int | None:
    """First step at which the loss departs from its way down; None if it never does.

    Args:
        losses: of every step.
        untrained: the loss of a model that knows nothing.
    """
    curve = smoothed(losses)
    broken = np.isnan(curve)
    # An average of a few steps is none yet, and without a warm-up the first steps always overshoot.
    steady = np.where(broken | (np.arange(len(curve)) < SMOOTHING), np.inf, curve)
    lowest = np.fmin.accumulate(steady)
    gone = broken | (np.isfinite(steady) & (steady > lowest + RISE * untrained))
    return int(gone.argmax()) if gone.any() else None


def behind(
    losses: Sequence[float] | NDArray[np.float64], others: Iterable[NDArray[np.float64]], *, untrained: float
) -> int | None:
    """First step from which on the loss stays behind the median of others; None if it does not at the end, or there are none.

    Args:
        losses: of every step.
        others: losses of the trainings to compare with, as long.
        untrained: the loss of a model that knows nothing.
    """
    curves = [smoothed(other) for other in others]
    if not curves:
        return None
    reference = np.median([np.where(np.isnan(c), np.inf, c) for c in curves], axis=0)
    curve = smoothed(losses)
    late = np.isnan(curve) | (curve > reference + BEHIND * untrained)
    if not late[-1]:
        return None
    before = np.flatnonzero(~late)
    return int(before[-1]) + 1 if len(before) else 0


def first_alarm(alarms: Iterable[Alarm], kinds: Sequence[str] = MEANING_COLLAPSE) -> int | None:
    """Step of the first alarm of these kinds."""
    return min((alarm.step for alarm in alarms if alarm.kind in kinds), default=None)


def lead(alarm: int | None, shown: int | None) -> int | None:
    """Steps from the alarm to the step at which the loss shows something; negative if the loss was first; None without either."""
    return None if alarm is None or shown is None else shown - alarm
