"""`Ledger`: finished evaluations in a file, so that a test of many evaluations goes on where it was interrupted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from interp.errors import CorruptFileError, OutputError

Metrics = Mapping[str, float]


class Ledger:
    """Finished evaluations by name, kept in a file after each one, so that an interrupted test goes on where it stopped.

    Args:
        path: the JSON file, None to keep nothing.
        settings: what the numbers depend on; a file of other settings is begun anew.

    Raises:
        CorruptFileError: the file is not one of these.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings = json.loads(json.dumps(settings))
        self.cells: dict[str, dict[str, float]] = {}
        if path is not None and path.exists():
            there = _read(path)
            self.cells = dict(there["cells"]) if there["settings"] == self.settings else {}

    def get(self, name: str, measure: Callable[[], Metrics]) -> Metrics:
        """The evaluation of this name, measured now if it is not there."""
        if name not in self.cells:
            self.cells[name] = {metric: float(value) for metric, value in measure().items()}
            if self.path is not None:
                write_whole(self.path, {"settings": self.settings, "cells": self.cells})
        return self.cells[name]


def finished_evaluations(path: Path) -> int:
    """How many evaluations a ledger's file keeps.

    Raises:
        CorruptFileError: the file is not one of these.
    """
    return len(_read(path)["cells"])


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        return {name: dict(there[name]) for name in ("settings", "cells")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(f"{path.name} holds no evaluations ({error}); delete it and start again") from error


def write_whole(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as JSON, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path.name}: {error.strerror or error}; choose another folder") from error
