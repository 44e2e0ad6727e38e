"""`Selection`: the bus that links views: what is locked and what is under the pointer, kept apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import traitlets

PLACE: Final = ("layer", "head", "q", "k")
"""What can be selected: a layer, a head, a query row, a key."""


def place_of(value: Mapping[str, Any]) -> dict[str, int | None]:
    """The four numbers of a place, None where it names none; everything else in `value` is dropped."""
    found = {name: value.get(name) for name in PLACE}
    return {n: x if isinstance(x, int) and not isinstance(x, bool) and x >= 0 else None for n, x in found.items()}


class Selection(traitlets.HasTraits):
    """One selection that several views share: `HeadGrid(run, link=bus)`, `AttentionMap(run, link=bus)`.

    Attributes:
        layer, head, q, k: what is locked, None where nothing is; observe them as any traits.
        hover: the same four for what is under the pointer in one of the views; a hover never changes a lock.
    """

    layer = traitlets.Int(None, allow_none=True)
    head = traitlets.Int(None, allow_none=True)
    q = traitlets.Int(None, allow_none=True)
    k = traitlets.Int(None, allow_none=True)
    hover = traitlets.Dict(default_value=place_of({}))

    @property
    def locked(self) -> dict[str, int | None]:
        """What is locked, as a dict."""
        return {name: self.trait_values()[name] for name in PLACE}

    def lock(
        self, *, layer: int | None = None, head: int | None = None, q: int | None = None, k: int | None = None
    ) -> None:
        """Lock a place; what is not given is cleared."""
        with self.hold_trait_notifications():
            self.layer, self.head, self.q, self.k = layer, head, q, k

    def clear(self) -> None:
        """Let go of everything."""
        self.lock()
        self.hover = place_of({})

    def join(self, view: traitlets.HasTraits) -> None:
        """Link a view's `selection` and `hover` traits to this bus, both ways; the view takes what is locked here now."""
        view.set_trait("selection", self.locked)
        view.observe(lambda change: self.lock(**place_of(change["new"])), "selection")
        view.observe(lambda change: self.set_trait("hover", place_of(change["new"])), "hover")
        self.observe(lambda _: view.set_trait("selection", self.locked), list(PLACE))
        self.observe(lambda change: view.set_trait("hover", change["new"]), "hover")
