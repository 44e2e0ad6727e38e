"""The `interp` command: one thin file per subcommand, each calling the function that a notebook calls."""

from __future__ import annotations

__all__: list[str] = []
