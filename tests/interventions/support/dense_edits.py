"""Interventions once more, from their definitions: dense float64 maps of the tiny models' causal attention.

`play` runs a prompt and a few decode steps under edits and gives each layer's call as the model made it, before any edit, beside the head
outputs that came out. A definition takes `Dense` (that call's map) and says what should have come out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from interp.capture.attend import listening
from interp.capture.sites import attention_sites


@dataclass
class Dense:
    """One call: scores s and weights p [B, H, Nq, Nk], values v [B, H, Nk, Dv], float64; row and key numbers; what definitions remember."""

    layer: int
    q: Tensor
    k: Tensor
    s: Tensor
    seen: Tensor
    v: Tensor
    rows: Tensor
    keys: Tensor
    decoding: bool
    kept: dict[Any, Any] = field(default_factory=dict)

    @property
    def p(self) -> Tensor:
        return soft(self.s, self.seen)

    @property
    def z(self) -> Tensor:
        return self.p @ self.v


def soft(s: Tensor, seen: Tensor) -> Tensor:
    """Softmax over the visible keys; a row without any gives 0."""
    return s.masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num()


def dense(call: Any, kept: dict[Any, Any]) -> Dense:
    group = call.q.shape[1] // call.k.shape[1]
    q, k, v = (call.q.double(), *(x.double().repeat_interleave(group, 1) for x in (call.k, call.v)))
    n, m = q.shape[2], k.shape[2]
    rows, keys = torch.arange(m - n, m), torch.arange(m)
    s = q @ k.mT * (q.shape[3] ** -0.5 if call.scale is None else call.scale)
    seen = (keys <= rows[:, None]).expand(s.shape)
    return Dense(call.site.layer, q, k, s, seen, v, rows, keys, m > n, kept.setdefault(call.site.layer, {}))


@dataclass(frozen=True)
class Tap:
    """An outermost intervention that changes nothing and keeps the calls as the model made them."""

    calls: list[Any]
    name: str = "tap"
    phases: frozenset = frozenset({"prefill", "decode"})

    def check(self, *, layers, heads):
        pass

    def acts_on(self, site):
        return True

    def before(self, call):
        self.calls.append(call)
        return call

    def after(self, call, out):
        return out


@dataclass
class Ear:
    """A listener that asks for a backend and keeps outputs and backends."""

    sites: dict[int, Any]
    backend: str
    outs: list[Tensor] = field(default_factory=list)
    ran: set[str] = field(default_factory=set)

    def wish(self, call):
        return None

    def hear(self, call, attended):
        self.outs.append(attended.out)
        self.ran.add(attended.backend)


@dataclass
class Played:
    """Calls and outputs in the order they were made, and the logits of all tokens [N, vocabulary]."""

    calls: list[Any]
    outs: list[Tensor]
    logits: Tensor


@torch.no_grad()
def play(model: Any, ids: list[int], edits: tuple, *, backend: str = "auto", steps: int = 0) -> Played:
    """Run all but the last `steps` tokens as a prompt and the rest one by one with a cache, under `edits`."""
    calls: list[Any] = []
    ear = Ear(attention_sites(model.hf, encoder_decoder=False), backend)
    given = torch.tensor([ids])
    with model.edit(Tap(calls)), model.edit(*edits), listening(ear):
        out = model.hf(given[:, : len(ids) - steps], use_cache=steps > 0)
        logits = [out.logits]
        for i in range(len(ids) - steps, len(ids)):
            out = model.hf(given[:, i : i + 1], past_key_values=out.past_key_values, use_cache=True)
            logits.append(out.logits)
    assert backend == "auto" or ear.ran == {backend}
    return Played(calls, ear.outs, torch.cat(logits, 1)[0])


def largest_error(played: Played, definition: Any) -> float:
    """Largest |out - definition| over all calls, in units of max(1, |definition|)."""
    kept: dict[Any, Any] = {}
    worst = 0.0
    for call, out in zip(played.calls, played.outs, strict=True):
        want = definition(dense(call, kept))
        assert out.shape == want.shape
        gap = (out.double() - want).abs() / want.abs().clamp(min=1.0)
        worst = max(worst, float(gap.max()))
    return worst
