"""The detector on entropies written by hand: every alarm where it should be, and none where it should not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def layer(mean: float | list[float], *, number: int = 0, **other: float | list[float]) -> Any:
    """Heads with the given mean entropy and median; what is not named is healthy."""
    from interp.entropy.health import LayerHealth

    means = np.atleast_1d(np.array(mean, dtype=np.float32))
    quantities: dict[str, Any] = {
        "entropy_q10": means, "entropy_q50": means, "entropy_q90": means, "rest_q50": means, "sink_mass": 0.1, "sink_output": 0.1,
        "rho_q50": 1.0, "rho_q99": 2.0, "max_logit": 3.0, "qk_norm": np.nan,
    }  # fmt: skip
    quantities |= other
    arrays = {k: np.broadcast_to(np.array(v, dtype=np.float32), means.shape).copy() for k, v in quantities.items()}
    return LayerHealth(path=f"layers.{number}", layer=number, entropy=means, **arrays)


def kinds(alarms: list[Any]) -> list[tuple[str, int | None]]:
    return [(a.kind, a.layer) for a in alarms]


def test_a_sudden_fall_of_one_layer_is_a_drop_told_once_and_again_after_recovery() -> None:
    from interp.entropy.detector import Detector

    detector = Detector()
    for step in range(0, 100, 10):
        assert detector.update(step, [layer(0.9), layer(0.8, number=1)]) == []
    fallen = detector.update(100, [layer(0.9), layer(0.3, number=1)])
    assert kinds(fallen) == [("drop", 1)]
    assert fallen[0].step == 100 and fallen[0].value == pytest.approx(0.3) and "layer 1" in fallen[0].message
    assert detector.update(110, [layer(0.9), layer(0.3, number=1)]) == []
    assert detector.update(120, [layer(0.9), layer(0.8, number=1)]) == []
    assert kinds(detector.update(130, [layer(0.9), layer(0.2, number=1)])) == [("drop", 1)]


def test_the_average_is_exponential_over_steps_not_over_readings() -> None:
    from interp.entropy.detector import Detector, Rules

    sparse, dense = Detector(rules=Rules(memory=50)), Detector(rules=Rules(memory=50))
    for detector, every in ((sparse, 50), (dense, 1)):
        detector.update(0, [layer(1.0)])
        for step in range(every, 51, every):
            detector.update(step, [layer(0.6)])
    # After 50 steps at 0.6 both averages are 0.6 + 0.4 (1 - 1/50)^50 = 0.746: half of that lies between 0.36 and 0.38.
    for detector in (sparse, dense):
        assert detector._average["layers.0"][1] == pytest.approx(0.6 + 0.4 * 0.98**50, rel=1e-5)


def test_a_slow_fall_is_no_drop() -> None:
    from interp.entropy.detector import Detector

    detector = Detector()
    for step in range(0, 2000, 10):
        assert [k for k, _ in kinds(detector.update(step, [layer(0.7 - 0.6 * step / 2000)])) if k == "drop"] == []


def test_more_than_a_quarter_of_collapsed_heads_is_an_alarm() -> None:
    from interp.entropy.detector import Detector

    assert kinds(Detector().update(0, [layer([0.01, 0.5, 0.5, 0.5])])) == []
    assert kinds(Detector().update(0, [layer([0.01, 0.01, 0.5, 0.5])])) == [("collapse", None)]


def test_idle_heads_and_heads_whose_content_is_spread_are_not_collapsed() -> None:
    from interp.entropy.detector import Rules, collapsed

    heads = layer(
        [0.01] * 5,
        rest_q50=[0.01, 0.01, 0.5, np.nan, 0.01],
        sink_mass=[0.1, 0.95, 0.1, 0.1, 0.95],
        sink_output=[0.1, 0.05, 0.1, 0.1, 0.9],
    )
    assert collapsed(heads, Rules()).tolist() == [True, False, False, True, True]


def test_overload_is_news_only_after_settling() -> None:
    from interp.entropy.detector import Detector, Rules

    detector = Detector(rules=Rules(settling=100))
    assert detector.update(90, [layer([0.9, 0.9, 0.2])]) == []
    assert kinds(detector.update(100, [layer([0.9, 0.9, 0.2])])) == [("overload", None)]
    assert Detector(rules=Rules(settling=0)).update(0, [layer([0.9, 0.2, 0.2])]) == []


def test_logits_that_are_not_finite_are_an_alarm_of_their_layer() -> None:
    from interp.entropy.detector import Detector

    found = Detector().update(3, [layer(0.5), layer(np.nan, number=1, max_logit=np.inf)])
    assert kinds(found) == [("nonfinite", 1)]


@pytest.mark.parametrize("wrong", [{"drop": 1.5}, {"memory": 0}, {"collapsed": -0.1}, {"settling": -1}])
def test_rules_that_are_no_shares_are_refused(wrong: dict[str, float]) -> None:
    from interp.entropy.detector import Rules
    from interp.errors import OptionError

    with pytest.raises(OptionError, match="wanted shares from 0 to 1"):
        Rules(**wrong)
