"""Positions in a text, as interventions name them: single numbers and half-open spans, counted from the text's own first token.

Positions count real tokens (BOS included, padding not), so that they mean the same in a run, in a padded batch, and in generation with a cache.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from interp.errors import EditError

Positions = tuple[int | tuple[int, int | None], ...]
"""Numbers p >= 0 and spans (start, stop), stop left out of the span; stop None is open, for tokens still to come."""


def check_positions(name: str, positions: Positions) -> None:
    """Raise EditError if there are none, or one is negative or an empty span."""
    if not positions:
        raise EditError(f"{name}: no positions given; name numbers like 3 or spans like (3, 7) or (3, None)")
    for place in positions:
        start, stop = (place, place + 1) if isinstance(place, int) else place
        if start < 0 or (stop is not None and stop <= start):
            raise EditError(f"{name}: {place!r} is no position; wanted p >= 0 or (start, stop) with 0 <= start < stop")


def members(positions: Positions | None, at: Tensor) -> Tensor:
    """Which tokens are named: bool like `at` (int64, places in the text; negative ones are padding and never named). None names all."""
    if positions is None:
        return at >= 0
    found = torch.zeros_like(at, dtype=torch.bool)
    for place in positions:
        start, stop = (place, place + 1) if isinstance(place, int) else place
        found |= (at >= start) if stop is None else (at >= start) & (at < stop)
    return found


def listed(name: str, positions: Positions) -> list[int]:
    """The positions one by one, ascending. Raises EditError for an open span."""
    found: set[int] = set()
    for place in positions:
        start, stop = (place, place + 1) if isinstance(place, int) else place
        if stop is None:
            raise EditError(
                f"{name}: the span {place!r} has no end, but a definite set of tokens is wanted; give its stop"
            )
        found.update(range(start, stop))
    return sorted(found)


def as_spans(numbers: Iterable[int]) -> Positions:
    """Numbers as the fewest spans that hold them."""
    spans: list[tuple[int, int | None]] = []
    start = stop = -1
    for number in sorted(set(numbers)):
        if number != stop:
            if stop > start:
                spans.append((start, stop))
            start = number
        stop = number + 1
    return (*spans, (start, stop)) if stop > start else tuple(spans)
