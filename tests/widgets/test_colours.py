"""The colour map rises in lightness for every kind of sight, and values fall where the arithmetic says."""

from __future__ import annotations

import numpy as np
import pytest

from interp.widgets.colours import colourscale, index_of, sequential

# Full colour blindness of two kinds, as matrices on linear RGB (Machado, Oliveira and Fernandes 2009, severity 1.0).
SIGHT = {
    "ordinary": np.eye(3),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}


def lightness(table: np.ndarray, sight: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB bytes."""
    c = table / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    y = np.clip(linear @ sight.T, 0, 1) @ np.array([0.2126, 0.7152, 0.0722])
    return 116 * np.cbrt(y) - 16


@pytest.mark.parametrize("kind", SIGHT)
def test_lightness_rises_all_the_way_for_everyone(kind: str) -> None:
    table = sequential()
    assert table.shape == (256, 3)
    light = lightness(table.astype(float), SIGHT[kind])
    assert (np.diff(light[::4]) > 0.3).all(), "a step of four indices must be seen"
    assert light[0] < 22
    assert light[-1] > 84


def test_the_table_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        sequential()[0] = 0


def test_indices_worked_by_hand() -> None:
    linear = index_of(np.array([2.0, 3.0, 4.0, 1.0, 9.0, np.nan]), 2.0, 4.0, log=False)
    assert linear.tolist() == [0, 128, 255, 0, 255, -1]
    log = index_of(np.array([1.0, 10.0, 100.0, 1000.0]), 1.0, 1000.0, log=True)
    assert log.tolist() == [0, 85, 170, 255]
    assert index_of(np.array([0.0]), 1.0, 1000.0, log=True).tolist() == [0]
    assert index_of(np.array([7.0, np.nan]), 7.0, 7.0, log=False).tolist() == [0, -1]


def test_the_plotly_scale_is_the_table_thinned() -> None:
    scale = colourscale(5)
    assert [at for at, _ in scale] == pytest.approx([0, 64 / 255, 128 / 255, 191 / 255, 1])
    assert scale[0][1] == "rgb({}, {}, {})".format(*sequential()[0])
    assert scale[-1][1] == "rgb({}, {}, {})".format(*sequential()[255])
