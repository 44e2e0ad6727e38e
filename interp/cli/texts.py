"""Reading the text files that commands are given."""

from __future__ import annotations

from pathlib import Path

from interp.errors import InputDataError


def read_text(file: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        InputDataError: it cannot be read as text.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputDataError(f"{file} cannot be read as text ({error}); give a UTF-8 text file") from error
