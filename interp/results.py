"""`Result`: what an analysis returns: a tidy table of heads, the arrays that do not fit one, and where they came from.

A result is saved as a folder: `table.parquet`, `arrays.safetensors` (when there are any) and `manifest.json`; it needs no model to be read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from interp.display import plot as draw
from interp.display import view as open_view
from interp.errors import CorruptFileError, OptionError, OutputError

__all__ = ["HEAD_COLUMNS", "Result", "saved_kind"]

HEAD_COLUMNS = ("layer", "head", "score", "spread", "control")
"""Columns that every table of heads has: the raw score, its spread over samples (standard deviation), the same score on the control."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """A measurement of heads.

    Attributes:
        kind: what it is, e.g. "heads.retrieval"; names the plot that draws it.
        table: one row per (layer, head) (and further keys), with at least `HEAD_COLUMNS`.
        manifest: what was measured on what: model, task, settings, seed, versions, backends.
        arrays: arrays that do not fit the table, by name.
    """

    kind: str
    table: pd.DataFrame
    manifest: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the columns."""
        missing = [c for c in HEAD_COLUMNS if c not in self.table.columns]
        if missing:
            raise OptionError(
                f"a table of heads needs the columns {', '.join(HEAD_COLUMNS)}; {', '.join(missing)} are missing"
            )

    @property
    def frame(self) -> pd.DataFrame:
        """The tidy table (a copy)."""
        return self.table.copy()

    def top(self, k: int = 10, *, by: str = "score") -> list[tuple[int, int, float]]:
        """The k heads with the largest `by`, largest first, ties to the lowest layer and head: (layer, head, value)."""
        if by not in self.table.columns:
            raise OptionError(f"no column {by!r}; there are: {', '.join(self.table.columns)}")
        rows = self.table.dropna(subset=[by]).sort_values([by, "layer", "head"], ascending=[False, True, True]).head(k)
        return [
            (int(a), int(b), float(value)) for a, b, value in zip(rows["layer"], rows["head"], rows[by], strict=True)
        ]

    def plot(self, **options: object) -> Any:
        """Draw it as a plotly figure."""
        return draw(self.kind, self, **options)

    def view(self, **options: object) -> Any:
        """Open it in a notebook widget."""
        return open_view(self.kind, self, **options)

    def save(self, folder: str | Path) -> Path:
        """Write the result to a folder that is new, empty, or holds a result of the same kind. Returns the folder.

        Raises:
            OutputError: the folder cannot be written or holds something else.
        """
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()) and saved_kind(folder) != self.kind:
            raise OutputError(f"{folder.name} holds something that is not a {self.kind} result; choose a new folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.table.to_parquet(folder / "table.parquet", index=False)
            if self.arrays:
                save_file(
                    {name: np.ascontiguousarray(a) for name, a in self.arrays.items()}, folder / "arrays.safetensors"
                )
            (folder / "manifest.json").write_text(
                json.dumps({"kind": self.kind, **self.manifest}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )
        except OSError as error:
            raise OutputError(
                f"cannot write the result to {folder.name}: {error.strerror or error}; choose another folder"
            ) from error
        return folder

    @staticmethod
    def load(folder: str | Path) -> Result:
        """Read a saved result.

        Raises:
            CorruptFileError: a file is missing or damaged.
        """
        folder = Path(folder)
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            arrays = load_file(folder / "arrays.safetensors") if (folder / "arrays.safetensors").exists() else {}
            return Result(
                kind=manifest.pop("kind"),
                table=pd.read_parquet(folder / "table.parquet"),
                manifest=manifest,
                arrays=arrays,
            )
        except (OSError, ValueError, KeyError) as error:
            raise CorruptFileError(f"{folder.name} holds no readable result ({error}); save it again") from error


def saved_kind(folder: Path) -> str | None:
    """The kind of the result that a folder holds; None if it holds none."""
    try:
        kind = json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError, AttributeError):
        return None
    return kind if isinstance(kind, str) and (folder / "table.parquet").exists() else None
