"""The picture of a comparison shows the differences, their intervals and nothing else; strings of results stay text."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from interp.errors import OptionError
from interp.results import Result

LAYERS, HEADS = 2, 3
NASTY = "<img src=x onerror=alert(1)>"


def compared() -> Result:
    """Differences of entropy from -0.2 on, in steps of 0.1; of alpha all 0."""
    layer, head = np.repeat(np.arange(LAYERS), HEADS), np.tile(np.arange(HEADS), LAYERS)
    score = 0.1 * np.arange(LAYERS * HEADS) - 0.2
    rows = pd.DataFrame({"layer": layer, "head": head, "score": score, "spread": 0.01, "control": np.nan})
    rows = rows.assign(a=1.0, b=1.0 + score, low=score - 0.02, high=score + 0.02, rank_a=1.0, rank_b=2.0)
    rows = rows.assign(rank_change=1.0, rank_low=0.0, rank_high=2.0, statistic="entropy")
    zero = rows.assign(statistic="alpha", score=0.0)
    manifest = {
        "compared": [{"folder": NASTY}, {"folder": "b"}],
        "settings": {"method": "paired bootstrap over shards"},
    }
    return Result(kind="batch.compare", table=pd.concat([rows, zero]).sample(frac=1, random_state=0), manifest=manifest)


def test_differences_lie_about_white() -> None:
    figure = compared().plot(statistic="entropy")
    (heat,) = figure.data
    assert (heat.zmin, heat.zmax) == pytest.approx((-0.3, 0.3))
    np.testing.assert_allclose(heat.z, (0.1 * np.arange(6) - 0.2).reshape(LAYERS, HEADS).T, atol=1e-6)
    assert list(heat.x) == ["0", "1"] and list(heat.y) == ["0", "1", "2"]
    np.testing.assert_allclose(heat.customdata[2, 1], [1.0, 1.3, 0.28, 0.32, 1, 2, 0, 2])
    assert "<img" not in figure.layout.title.text and "paired bootstrap" in figure.layout.title.text


def test_no_difference_at_all() -> None:
    (heat,) = compared().plot(statistic="alpha").data
    assert (heat.zmin, heat.zmax) == (-1.0, 1.0)


def test_unknown_statistic() -> None:
    with pytest.raises(OptionError, match="no statistic 'x' here"):
        compared().plot(statistic="x")
