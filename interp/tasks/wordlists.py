"""The word lists that come with the package: one entry per line, written for this project."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def words(name: str) -> tuple[str, ...]:
    """The entries of data/NAME.txt, in order, empty lines left out."""
    lines = files("interp.tasks").joinpath("data", f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def records(name: str) -> list[dict[str, Any]]:
    """The records of data/NAME.json."""
    return json.loads(files("interp.tasks").joinpath("data", f"{name}.json").read_text(encoding="utf-8"))
