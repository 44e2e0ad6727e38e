"""Thumbnails come back from their files as they were, and refuse pictures that do not fit their labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.errors import CorruptFileError, ShapeError
from interp.maps.thumbnail import Thumbnail, load_thumbnails, thumbnails_to_bytes

TILE: dict[str, Any] = {
    "layer": 3,
    "head": 5,
    "statistic": "induction_mass",
    "rows": (0, 101),
    "cols": (0, 97),
    "pool": "max",
    "weights": np.random.default_rng(0).random((13, 11)).astype(np.float32),
    "row_tokens": [],
    "col_tokens": [],
}
CROP: dict[str, Any] = TILE | {
    "pool": "exact",
    "rows": (7, 9),
    "cols": (2, 5),
    "weights": np.array([[0.1, 0.2, 0.7], [1e-38, 0.5, 0.5]], dtype=np.float32),
    "row_tokens": ["<script>", "\n"],
    "col_tokens": ['"', "é", "\ufffd"],
}


def write(stem: Path, *thumbnails: Thumbnail) -> None:
    weights, index = thumbnails_to_bytes(thumbnails)
    stem.with_suffix(".safetensors").write_bytes(weights)
    stem.with_suffix(".json").write_bytes(index)


def test_round_trip(tmp_path: Path) -> None:
    before = [Thumbnail(**TILE), Thumbnail(**CROP)]
    write(tmp_path / "maps", *before)
    after = load_thumbnails(tmp_path / "maps")
    assert len(after) == 2
    for old, new in zip(before, after, strict=True):
        assert np.array_equal(old.weights, new.weights)
        assert new.weights.dtype == np.float32
        for name in TILE.keys() - {"weights"}:
            assert getattr(old, name) == getattr(new, name), name


def test_none_were_taken(tmp_path: Path) -> None:
    assert load_thumbnails(tmp_path / "maps") == []
    write(tmp_path / "maps")
    assert load_thumbnails(tmp_path / "maps") == []


@pytest.mark.parametrize(
    "change",
    [
        {"weights": np.zeros(7, dtype=np.float32)},
        {"weights": np.zeros((102, 11), dtype=np.float32)},
        {"rows": (5, 5)},
        {"rows": (-1, 100)},
        {"row_tokens": ["a"] * 13},
    ],
)
def test_a_tile_that_does_not_fit(change: dict[str, Any]) -> None:
    with pytest.raises(ShapeError):
        Thumbnail(**TILE | change)


@pytest.mark.parametrize("change", [{"rows": (7, 10)}, {"col_tokens": ["a", "b"]}, {"row_tokens": []}])
def test_a_crop_that_does_not_fit(change: dict[str, Any]) -> None:
    with pytest.raises(ShapeError, match="exact crop"):
        Thumbnail(**CROP | change)


@pytest.mark.parametrize("content", [b"", b"[{}]", b'{"a": 1}', b'[{"layer": 1, "weights": "999"}]', b"\xff"])
def test_damaged_index(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "maps", Thumbnail(**CROP))
    (tmp_path / "maps.json").write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"maps\.json"):
        load_thumbnails(tmp_path / "maps")


def test_damaged_weights(tmp_path: Path) -> None:
    write(tmp_path / "maps", Thumbnail(**CROP))
    path = tmp_path / "maps.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CorruptFileError):
        load_thumbnails(tmp_path / "maps")
