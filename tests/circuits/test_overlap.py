"""Overlap of two circuits: worked by hand, and against the hypergeometric law that its control follows."""

from __future__ import annotations

from math import comb

import numpy as np
import pandas as pd
import pytest

from interp.circuits.overlap import overlap
from interp.errors import OptionError
from interp.results import Result


def result(scores, *, spread=0.0, prompts=5, seed=0, kind="circuits.activation_patching", name="m"):
    """Effects [layer, head] of a made-up result, all prompts alike up to noise."""
    layers, heads = scores.shape
    noise = spread * np.random.default_rng(seed).normal(size=(prompts, scores.size))
    table = pd.DataFrame(
        {
            "layer": np.repeat(np.arange(layers), heads),
            "head": np.tile(np.arange(heads), layers),
            "score": scores.reshape(-1),
            "spread": 0.0,
            "control": np.nan,
            "site": "z",
            "position": "all",
        }
    )
    return Result(
        kind=kind, table=table, manifest={"model": {"name": name}}, arrays={"samples": scores.reshape(1, -1) + noise}
    )


def grid(at, layers=3, heads=7):
    scores = np.zeros((layers, heads))
    for n, place in enumerate(at):
        scores[place] = (9.0 - n) * (-1) ** n  # large by size, of both signs
    return scores


def test_shared_heads_are_counted():
    a, b = result(grid([(0, 1), (1, 2), (1, 5), (2, 6)])), result(grid([(1, 5), (0, 1), (2, 3), (2, 6)]))
    table = overlap(a, b, k=(2, 4)).frame.set_index("k")
    assert table.loc[2, "score"] == 0.5
    assert table.loc[2, "shared"] == "0.1"
    assert table.loc[4, "score"] == 0.75
    assert table.loc[4, "shared"] == "0.1 1.5 2.6"
    assert table.loc[4, ["low", "high"]].tolist() == [0.75, 0.75]  # prompts that agree leave no doubt
    assert table.loc[4, "chance"] == pytest.approx(4 / 21)


def test_the_control_keeps_the_layers():
    """Two sets of three heads in one layer of seven share a number that is hypergeometric."""
    a, b = result(grid([(1, 0), (1, 1), (1, 2)])), result(grid([(1, 1), (1, 2), (1, 3)]))
    row = overlap(a, b, k=(3,), draws=4000).frame.iloc[0]
    law = {n: comb(3, n) * comb(4, 3 - n) / comb(7, 3) for n in range(4)}
    mean = sum(n * p for n, p in law.items()) / 3
    assert row["control"] == pytest.approx(mean, abs=0.02)
    assert row["spread"] == pytest.approx(np.sqrt(sum((n / 3 - mean) ** 2 * p for n, p in law.items())), abs=0.02)
    assert row["p"] == pytest.approx(law[2] + law[3], abs=0.03)
    apart = overlap(result(grid([(0, 1), (0, 2)])), result(grid([(2, 1), (2, 2)])), k=(2,)).frame.iloc[0]
    assert apart["control"] == 0.0  # heads of other layers cannot meet


def test_noisy_prompts_widen_the_interval():
    a, b = grid([(0, 1), (1, 2), (1, 5)]), grid([(0, 1), (1, 2), (2, 5)])
    noisy = overlap(result(a, spread=9.0), result(b, spread=9.0, seed=1), k=(3,)).frame.iloc[0]
    assert noisy["high"] - noisy["low"] > 0.3
    single = overlap(result(a, prompts=1), result(b, prompts=1), k=(3,)).frame.iloc[0]
    assert np.isnan(single["low"])


def test_what_cannot_be_compared_is_refused():
    a = result(grid([(0, 1)]))
    with pytest.raises(OptionError, match="one tool on one model"):
        overlap(a, result(grid([(0, 1)]), kind="circuits.path_patching"))
    with pytest.raises(OptionError, match="one tool on one model"):
        overlap(a, result(grid([(0, 1)]), name="other"))
    with pytest.raises(OptionError, match="other heads"):
        overlap(a, result(grid([(0, 1)], heads=5)), k=(2,))
    with pytest.raises(OptionError, match="k <= 21"):
        overlap(a, a, k=(22,))
    with pytest.raises(OptionError, match="position: name the one"):
        overlap(a, a, k=(2,), position="end")
