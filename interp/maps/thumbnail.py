"""Small pictures of attention maps that are kept in files: pooled tiles of a whole map, and exact crops with their tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes

from interp.errors import CorruptFileError, ShapeError

Pool = Literal["mean", "max", "exact"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Thumbnail:
    """One picture of the attention map of a head.

    Attributes:
        layer: the model's own number of the layer.
        head: query head.
        statistic: the statistic by which the head was chosen.
        rows: first query row and the one after the last.
        cols: first key and the one after the last.
        pool: how the cells under a pixel were joined; "exact": a pixel is one cell.
        weights: probabilities, float32 [height, width].
        row_tokens: the text of the query tokens where a pixel is one cell, else empty.
        col_tokens: the text of the key tokens where a pixel is one cell, else empty.

    Raises:
        ShapeError: the picture does not fit its rows, columns and tokens.
    """

    layer: int
    head: int
    statistic: str
    rows: tuple[int, int]
    cols: tuple[int, int]
    pool: Pool
    weights: NDArray[np.float32]
    row_tokens: list[str]
    col_tokens: list[str]

    def __post_init__(self) -> None:
        if self.pool not in get_args(Pool):
            raise ShapeError(f"pool must be one of {', '.join(get_args(Pool))}; got {self.pool!r}")
        if self.weights.ndim != 2:
            raise ShapeError(f"weights must be [height, width]; got shape {self.weights.shape}")
        sides = zip(["row", "column"], (self.rows, self.cols), self.weights.shape, self.tokens, strict=True)
        for side, (start, stop), pixels, tokens in sides:
            cells = stop - start
            if start < 0 or not 1 <= pixels <= cells:
                raise ShapeError(
                    f"{side}s {start}:{stop} cannot be shown by {pixels} pixels; take 1 to {cells} of them"
                )
            if self.pool == "exact" and not cells == pixels == len(tokens):
                raise ShapeError(
                    f"an exact crop of {cells} {side}s needs as many pixels and tokens; got {pixels} and {len(tokens)}"
                )
            if self.pool != "exact" and tokens:
                raise ShapeError(f"a pooled tile has no {side} tokens; got {len(tokens)}")

    @property
    def tokens(self) -> tuple[list[str], list[str]]:
        """The tokens of the rows and of the columns."""
        return self.row_tokens, self.col_tokens


def thumbnails_to_bytes(thumbnails: Sequence[Thumbnail]) -> tuple[bytes, bytes]:
    """The two files that hold thumbnails: a safetensors file of the weights and a JSON list of everything else."""
    names = [f"{i:03d}" for i in range(len(thumbnails))]
    arrays = {n: np.ascontiguousarray(t.weights, dtype=np.float32) for n, t in zip(names, thumbnails, strict=True)}
    records = [
        {
            "weights": name,
            "layer": t.layer,
            "head": t.head,
            "statistic": t.statistic,
            "rows": t.rows,
            "cols": t.cols,
            "pool": t.pool,
            "row_tokens": t.row_tokens,
            "col_tokens": t.col_tokens,
        }
        for name, t in zip(names, thumbnails, strict=True)
    ]
    return to_bytes(arrays), json.dumps(records, ensure_ascii=False, indent=1).encode()


def load_thumbnails(stem: Path) -> list[Thumbnail]:
    """Read thumbnails back from STEM.safetensors and STEM.json; none where those files are not there.

    Raises:
        CorruptFileError: the files are damaged or do not belong together.
    """
    weights, index = stem.with_suffix(".safetensors"), stem.with_suffix(".json")
    if not weights.exists() or not index.exists():
        return []
    try:
        arrays = load_file(weights)
        return [
            Thumbnail(
                layer=r["layer"],
                head=r["head"],
                statistic=r["statistic"],
                rows=(r["rows"][0], r["rows"][1]),
                cols=(r["cols"][0], r["cols"][1]),
                pool=r["pool"],
                weights=arrays[r["weights"]],
                row_tokens=list(r["row_tokens"]),
                col_tokens=list(r["col_tokens"]),
            )
            for r in json.loads(index.read_text(encoding="utf-8"))
        ]
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError) as error:
        raise CorruptFileError(
            f"{weights.name} and {index.name} do not hold thumbnails ({error}); run the scan again in a new folder"
        ) from error
