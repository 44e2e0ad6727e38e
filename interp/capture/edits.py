"""The small protocol that an intervention satisfies, and how interventions act on the attention calls of a model.

An intervention is a frozen object with two methods: `before` may change what goes into the kernel (q, k, v, mask, kernel edit), `after` may
change the head outputs z that come out, before W_O. Both see one attention call of one layer. Nothing is hooked onto the model: the calls
pass through `attend` anyway, so leaving the context is all that restoring takes.

Order of composition. An outer context comes first; within one, the order given. Each `before` sees the call as those before it left it, each
`after` the outputs. Inside the kernel the stages have an order of their own, whatever the order given: (1) q, k, v; (2) logits: masks
intersect, multipliers on logits multiply, additive biases add behind them, sink logits join by log-add-exp; (3) softmax, which statistics
and maps describe; (4) factors of key sets, which multiply; (5) head gates, which multiply. Edits of z follow, in the order given. So edits of
one kernel stage commute, and of two edits of z the later one wins. An intervention that reads the map to decide (sets of ACT and
VAR, a target entropy) reads it with the changes of the interventions before it and without those after it.

Cache. A layer's own keys and values are written before its attention runs, hence unedited; those of later layers are computed from the
edited residual stream, are written edited, and stay so after the context is left. To leave the prompt's keys and values alone, run the prompt
outside the context and decode inside it. What an intervention finds out at prefill it keeps in `call.memory` until the next prefill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable
from weakref import WeakSet

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


@runtime_checkable
class Selective(Protocol):
    """An intervention that names tokens, and so may find none of them in a call of its layers and phases.

    Where it changes nothing it returns the very objects that came in; such a call does not count as acting.
    """

    selective: bool


class Editing:
    """Interventions in force, their memories, and how often each one acted."""

    def __init__(self, interventions: Sequence[Intervention], sites: Mapping[int, Site]) -> None:
        self.interventions = tuple(interventions)
        self.sites = sites
        self.fired: Counter[int] = Counter()
        self._memories: dict[tuple[int, Site], dict[str, Any]] = {}

    def before(self, call: AttentionCall) -> AttentionCall:
        """Change what goes into the kernel."""
        for number, intervention in self._active(call):
            if call.phase == "prefill":
                self._memories[number, call.site] = {}
            call = replace(call, memory=self._memories.setdefault((number, call.site), {}))
            changed = intervention.before(call)
            self.fired[number] += changed is not call or not _is_selective(intervention)
            call = changed
        return call

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """Change what comes out."""
        for number, intervention in self._active(call):
            changed = intervention.after(replace(call, memory=self._memories[number, call.site]), out)
            self.fired[number] += changed is not out
            out = changed
        return out

    def check_fired(self) -> None:
        """Raise EditError for interventions that never acted although their context was used."""
        idle = [e.name for number, e in enumerate(self.interventions) if not self.fired[number]]
        if idle:
            raise EditError(
                f"{', '.join(idle)} never acted inside this context: no attention call had the layers, phase and tokens it names; "
                "run or generate something inside `with model.edit(...)`, or check the layers and positions"
            )

    def _active(self, call: AttentionCall) -> list[tuple[int, Intervention]]:
        return [(n, e) for n, e in enumerate(self.interventions) if call.phase in e.phases and e.acts_on(call.site)]


def _is_selective(intervention: Intervention) -> bool:
    return isinstance(intervention, Selective) and intervention.selective


_editing: ContextVar[tuple[Editing, ...]] = ContextVar("interp_editing", default=())
_standing: WeakSet[Editing] = WeakSet()


def stand(interventions: Sequence[Intervention], sites: Mapping[int, Site], *, layers: int, heads: int) -> Editing:
    """Put interventions in force for the modules in `sites` for as long as the result is held: in every thread, before those of any context.

    Raises:
        EditError: one does not fit a model of this size, or others stand for these modules already.
    """
    if any(scope.sites is sites for scope in _standing):
        raise EditError("this model has standing interventions already; load it anew for others")
    for intervention in interventions:
        intervention.check(layers=layers, heads=heads)
    scope = Editing(interventions, sites)
    _standing.add(scope)
    return scope


def current() -> tuple[Editing, ...]:
    """Interventions in force here: those that stand for a model's life, then the contexts, outermost first."""
    return (*_standing, *_editing.get())


def in_force(sites: Mapping[int, Site]) -> list[dict[str, Any]]:
    """For manifests: name and phases of the interventions in force for the model that owns `sites`, in the order they act.

    What later layers write to the cache meanwhile stays edited, for every one of them (see the module).
    """
    acting = [e for scope in current() if scope.sites is sites for e in scope.interventions]
    return [{"name": e.name, "phases": sorted(e.phases), "cache": "stays edited"} for e in acting]


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
