"""Reading the values of options that the commands share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp.errors import OptionError

if TYPE_CHECKING:
    from interp.models.hooked import HookedModel


def number_list(text: str | None, option: str) -> list[int] | None:
    """Numbers and ranges, both ends included: "0-2,5" is [0, 1, 2, 5].

    Raises:
        OptionError: it is not such a list.
    """
    if text is None:
        return None
    numbers: list[int] = []
    for piece in text.split(","):
        first, dash, last = piece.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise OptionError(f"{option} must be numbers and ranges such as 0-11,20; got {text!r}")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def shares(text: str, option: str) -> list[float]:
    """Numbers from 0 to 1 that commas separate.

    Raises:
        OptionError: it is not such a list.
    """
    try:
        found = [float(piece) for piece in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0.0 <= x <= 1.0 for x in found):
        raise OptionError(f"{option} must be numbers from 0 to 1 such as 0.1,0.5,0.9; got {text!r}")
    return found


def one_of(text: str, known: Sequence[Any], option: str) -> Any:
    """The one of some known names that was given.

    Raises:
        OptionError: it is none of them.
    """
    if text not in known:
        raise OptionError(f"{option} must be one of {', '.join(known)}; got {text!r}")
    return text


def word_list(text: str | None) -> list[str] | None:
    """Words that commas separate."""
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def load_model(
    name: str,
    *,
    dtype: str,
    device: str,
    backend: str,
    threads: int | None,
    revision: str | None = None,
    offline: bool = False,
) -> HookedModel:
    """Load a model with the settings of the command line.

    Raises:
        OptionError: an impossible value.
        InterpError: as `interp.load`.
    """
    from interp.models.load_by_words import BACKENDS, DTYPES, load_by_words

    one_of(dtype, tuple(DTYPES), "--dtype")
    one_of(backend, BACKENDS, "--backend")
    if threads is not None and threads < 1:
        raise OptionError(f"--threads must be at least 1; got {threads}")
    return load_by_words(
        name, dtype=dtype, device=device, backend=backend, threads=threads, revision=revision, offline=offline
    )
