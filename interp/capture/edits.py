"""The small protocol that an intervention satisfies, and how interventions act on the attention calls of a model.

An intervention is a frozen object with two methods: `before` may change what goes into the kernel (q, k, v, mask, kernel edit), `after` may
change the head outputs z that come out, before W_O. Both see one attention call of one layer. Nothing is hooked onto the model: the calls
pass through `attend` anyway, so leaving the context is all that restoring takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from interp.capture.call import AttentionCall, Phase
from interp.capture.sites import Site
from interp.errors import EditError


@runtime_checkable
class Intervention(Protocol):
    """What `model.edit` takes: a frozen object that says what it is, where it acts and what it does to a call."""

    @property
    def name(self) -> str:
        """Short name, for messages and manifests."""
        ...

    @property
    def phases(self) -> frozenset[Phase]:
        """Whether it acts on prefill, decode or both."""
        ...

    def check(self, *, layers: int, heads: int) -> None:
        """Raise EditError if it cannot act on a model of this size (layer or head out of range ...)."""
        ...

    def acts_on(self, site: Site) -> bool:
        """Whether it changes this attention."""
        ...

    def before(self, call: AttentionCall) -> AttentionCall:
        """The call to make instead."""
        ...

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """The head outputs [B, H, Nq, Dv] to use instead."""
        ...


class Editing:
    """Interventions in force: applied in the order given, those of an outer context first; counts how often each one acted."""

    def __init__(self, interventions: Sequence[Intervention], sites: Mapping[int, Site]) -> None:
        self.interventions = tuple(interventions)
        self.sites = sites
        self.fired: Counter[int] = Counter()

    def before(self, call: AttentionCall) -> AttentionCall:
        """Change what goes into the kernel."""
        for number, intervention in self._active(call):
            call = intervention.before(call)
            self.fired[number] += 1
        return call

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """Change what comes out."""
        for _, intervention in self._active(call):
            out = intervention.after(call, out)
        return out

    def check_fired(self) -> None:
        """Raise EditError for interventions that never acted although their context was used."""
        idle = [e.name for number, e in enumerate(self.interventions) if not self.fired[number]]
        if idle:
            raise EditError(
                f"{', '.join(idle)} never acted inside this context: no attention call matched its layers and phase; "
                "run or generate something inside `with model.edit(...)`, or check the layers it names"
            )

    def _active(self, call: AttentionCall) -> list[tuple[int, Intervention]]:
        return [(n, e) for n, e in enumerate(self.interventions) if call.phase in e.phases and e.acts_on(call.site)]


_editing: ContextVar[tuple[Editing, ...]] = ContextVar("interp_editing", default=())


def current() -> tuple[Editing, ...]:
    """Interventions in force here, outermost context first."""
    return _editing.get()


@contextmanager
def editing(interventions: Sequence[Intervention], sites: Mapping[int, Site]) -> Iterator[Editing]:
    """Put interventions in force for the modules in `sites`; undone on exit and on error.

    Raises:
        EditError: on a clean exit, if an intervention never acted.
    """
    scope = Editing(interventions, sites)
    token = _editing.set((*_editing.get(), scope))
    try:
        yield scope
    finally:
        _editing.reset(token)
    scope.check_fired()


def head_selector(heads: Sequence[int] | None, count: int, device: torch.device) -> Tensor:
    """Bool [count], True at the chosen heads (None: all)."""
    chosen = torch.zeros(count, dtype=torch.bool, device=device)
    chosen[slice(None) if heads is None else list(heads)] = True
    return chosen
