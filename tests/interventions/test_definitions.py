"""Every fused intervention against its definition, dense and in float64: at prefill and step by step with a cache, with grouped heads.

Outputs of every layer are compared with the definition applied to that layer's own q, k, v, so errors do not hide behind other layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from dense_edits import Dense, largest_error, play, soft

TEXT = "ab, abc; a b ab!"
STEPS = 2
HEADS = ((0, 1), (1, 0), (1, 4), (2, 3))
TOLERANCE = 1e-5


def chosen(d: Dense, heads=HEADS) -> list[int]:
    return [h for layer, h in heads if layer == d.layer]


def on_heads(d: Dense, other: torch.Tensor, heads=HEADS) -> torch.Tensor:
    """`other` at the heads, the model's own output elsewhere."""
    z = d.z.clone()
    for h in chosen(d, heads):
        z[:, h] = other[:, h]
    return z


def places(x: torch.Tensor, *spans: tuple[int, int]) -> torch.Tensor:
    return torch.tensor([any(a <= int(p) < b for a, b in spans) for p in x])


class Case(NamedTuple):
    make: Callable[[], Any]
    definition: Callable[[Dense], torch.Tensor]
    same_in_decode: bool = True


CASES: dict[str, Case] = {}


def case(*, same_in_decode: bool = True):
    def add(function):
        make, definition = function()
        CASES[function.__name__] = Case(make, definition, same_in_decode)
        return function

    return add


def kinds():
    import interp.interventions

    return interp.interventions


@case()
def gate_by_head():
    gates = {(0, 1): 0.3, (1, 4): -1.7}

    def definition(d):
        z = d.z.clone()
        for (layer, h), g in gates.items():
            if layer == d.layer:
                z[:, h] *= g
        return z

    return lambda: kinds().GateHeads(gate=gates), definition


@case()
def gate_by_token():
    gates = torch.linspace(-1, 2, 5 * 29).reshape(5, 29)

    def make():
        return kinds().GateHeads(tokens={1: torch.cat([gates, gates[:1]])[: HEADS_OF["now"]]})

    def definition(d):
        every = torch.cat([gates, gates[:1]]).double()[: d.z.shape[1]]
        return d.z * every[None, :, d.rows, None] if d.layer == 1 else d.z

    return make, definition


@case()
def route():
    def definition(d):
        norm = d.q.norm(dim=-1)
        z = d.z.clone()
        for i in range(len(d.rows)):
            kept = norm[0, :, i].topk(2).indices.tolist()
            for h in range(z.shape[1]):
                if h not in kept:
                    z[:, h, i] = 0
        return z

    return lambda: kinds().RouteHeads(keep=2), definition


@case()
def knock_out():
    def definition(d):
        if d.layer not in (1, 2):
            return d.z
        cut = places(d.rows, (5, 14))[:, None] & places(d.keys, (2, 4), (6, 7))
        return soft(d.s, d.seen & ~cut) @ d.v

    return lambda: kinds().KnockOut(rows=((5, 14),), keys=((2, 4), 6), layers=(1, 2)), definition


@case()
def knock_out_of_heads_in_rows_to_come():
    def definition(d):
        cut = (d.rows >= 7)[:, None] & places(d.keys, (0, 3))
        return on_heads(d, soft(d.s, d.seen & ~cut) @ d.v)

    return lambda: kinds().KnockOut(rows=((7, None),), keys=((0, 3),), heads=HEADS), definition


@case()
def delete_edges():
    def definition(d):
        cut = places(d.rows, (4, 15))[:, None] & places(d.keys, (1, 5))
        return on_heads(d, d.p.masked_fill(cut, 0.0) @ d.v)

    return lambda: kinds().DeleteEdges(rows=((4, 15),), keys=((1, 5),), heads=HEADS), definition


@case()
def sinks_masked():
    def definition(d):
        return on_heads(d, soft(d.s, d.seen & ~places(d.keys, (0, 2))) @ d.v)

    return lambda: kinds().RemoveSinks(keys=(0, 1), how="mask", heads=HEADS), definition


def without_values(d):
    return on_heads(d, d.p @ d.v.masked_fill(places(d.keys, (0, 1), (3, 4))[:, None], 0.0))


@case()
def sinks_dropped():
    return lambda: kinds().RemoveSinks(keys=(0, 3), how="drop", heads=HEADS), without_values


@case()
def sinks_with_zero_values():
    return lambda: kinds().RemoveSinks(keys=(0, 3), how="zero", heads=HEADS), without_values


@case()
def sink_logit():
    def definition(d):
        joined = torch.cat([d.s, torch.full_like(d.s[..., :1], 1.3)], -1)
        seen = torch.cat([d.seen, torch.ones_like(d.seen[..., :1])], -1)
        return on_heads(d, soft(joined, seen)[..., :-1] @ d.v)

    return lambda: kinds().InjectSink(logit=1.3, heads=HEADS), definition


@case()
def sink_key_with_value():
    generator = torch.Generator().manual_seed(3)
    draw = torch.randn(2, 6, 10, generator=generator)

    def cut(n, size):
        return draw[0, :n, :size], draw[1, :n, :size]

    def make():
        key, value = cut(HEADS_OF["now"], SIZE_OF["now"])
        return kinds().InjectSink(keys={1: key}, values={1: value})

    def definition(d):
        if d.layer != 1:
            return d.z
        key, value = (x.double() for x in cut(d.q.shape[1], d.q.shape[3]))
        logit = torch.einsum("bhid,hd->bhi", d.q, key) * d.q.shape[3] ** -0.5
        joined = torch.cat([d.s, logit[..., None]], -1)
        seen = torch.cat([d.seen, torch.ones_like(d.seen[..., :1])], -1)
        return soft(joined, seen) @ torch.cat([d.v, value[None, :, None].expand(len(d.v), -1, -1, -1)], 2)

    return make, definition


@case()
def temperature():
    def definition(d):
        return on_heads(d, soft(2.5 * d.s, d.seen) @ d.v)

    return lambda: kinds().Temperature(tau=2.5, heads=HEADS), definition


def by_row(f):
    def definition(d):
        tau = torch.tensor([f(int(i) + 1) for i in d.rows], dtype=torch.float64)
        return on_heads(d, soft(tau[:, None] * d.s, d.seen) @ d.v)

    return definition


@case()
def temperature_logn():
    return lambda: kinds().Temperature(tau=0.4, rule="logn", heads=HEADS), by_row(lambda n: 0.4 * math.log(n))


@case()
def temperature_logn_ratio():
    make = lambda: kinds().Temperature(rule="logn-ratio", reference=7.0, heads=HEADS)  # noqa: E731
    return make, by_row(lambda n: math.log(n) / math.log(7))


@case()
def temperature_entropy_abf():
    make = lambda: kinds().Temperature(rule="entropy-abf", reference=7.0, heads=HEADS)  # noqa: E731
    return make, by_row(lambda n: max(1.0, math.log(n) / math.log(7)))


@case()
def temperature_size():
    make = lambda: kinds().Temperature(rule="size", reference=7.0, heads=HEADS)  # noqa: E731
    return make, by_row(lambda n: math.sqrt(math.log(n) / math.log(7)))


@case()
def temperature_ssa():
    make = lambda: kinds().Temperature(rule="ssa", reference=-0.2, heads=HEADS)  # noqa: E731
    return make, by_row(lambda n: 1 + math.exp(-math.exp(-0.2)) * math.log(n))


def tau_by_bisection(s, seen, target):
    """tau of one row at which the entropy is `target` nats."""
    low, high = 1e-4, 1e4
    for _ in range(60):
        tau = math.sqrt(low * high)
        p = soft(tau * s, seen)
        low, high = (tau, high) if float(-torch.xlogy(p, p).sum()) > target else (low, tau)
    return math.sqrt(low * high)


@case()
def target_entropy_by_row():
    def definition(d):
        z = d.z.clone()
        for h in chosen(d):
            for i, row in enumerate(d.rows.tolist()):
                if row:
                    s, seen = d.s[0, h, i], d.seen[0, h, i]
                    z[0, h, i] = soft(tau_by_bisection(s, seen, 0.6 * math.log(row + 1)) * s, seen) @ d.v[0, h]
        return z

    return lambda: kinds().TargetEntropy(target=0.6, heads=HEADS, tolerance=1e-6), definition


@case(same_in_decode=False)
def target_entropy_by_head():
    def definition(d):
        z = d.z.clone()
        for h in chosen(d):
            if not d.decoding:
                low, high = 1e-4, 1e4
                for _ in range(60):
                    tau = math.sqrt(low * high)
                    p = soft(tau * d.s[0, h, 1:], d.seen[0, h, 1:])
                    mean = float(-torch.xlogy(p, p).sum(-1).mean())
                    low, high = (tau, high) if mean > 0.9 else (low, tau)
                d.kept[h] = low
            z[:, h] = soft(d.kept[h] * d.s[:, h], d.seen[:, h]) @ d.v[:, h]
        return z

    return lambda: kinds().TargetEntropy(target=0.9, unit="nats", per="head", heads=HEADS, tolerance=1e-6), definition


@case()
def streaming():
    def definition(d):
        kept = (d.keys < 2) | (d.rows[:, None] - d.keys < 5)
        return on_heads(d, soft(d.s, d.seen & kept) @ d.v)

    return lambda: kinds().Streaming(sinks=2, window=5, heads=HEADS), definition


@case()
def streaming_by_share():
    def definition(d):
        kept = (d.keys < 1) | (d.rows[:, None] - d.keys < 3)
        return on_heads(d, 0.3 * d.z + 0.7 * (soft(d.s, d.seen & kept) @ d.v))

    return lambda: kinds().Streaming(sinks=1, window=3, share=0.3, heads=HEADS), definition


@case()
def log_bias():
    biases = {(0, 1): -2.0, (2, 3): 1.5, (2, 0): -math.inf}

    def definition(d):
        z = d.z.clone()
        for (layer, h), b in biases.items():
            if layer == d.layer:
                z[:, h] = soft(d.s[:, h] + torch.where(places(d.keys, (3, 8)), b, 0.0), d.seen[:, h]) @ d.v[:, h]
        return z

    return lambda: kinds().LogBias(bias=biases, keys=((3, 8),)), definition


@case()
def pasta():
    def definition(d):
        penalised = places(d.keys, (1, 5), (7, 12))
        return soft(d.s + penalised * math.log(0.01), d.seen) @ d.v

    return lambda: kinds().pasta(((5, 7),), prompt=12, spare=(0,)), definition


@case()
def zero_tuning():
    def definition(d):
        p0 = d.p[..., :1]
        p = d.p / (2 * p0 + 1)
        p[..., :1] = 3 * p0 / (2 * p0 + 1)
        return on_heads(d, p @ d.v)

    return lambda: kinds().zero_tuning({head: 3.0 for head in HEADS}), definition


def replaced(z):
    return lambda d: on_heads(d, z(d))


@case()
def uniform_pattern():
    mean = lambda d: soft(0 * d.s, d.seen) @ d.v  # noqa: E731
    return lambda: kinds().ReplacePattern(by="uniform", heads=HEADS), replaced(mean)


@case()
def identity_pattern():
    return lambda: kinds().ReplacePattern(by="identity", heads=HEADS), replaced(lambda d: d.v[:, :, d.rows])


@case()
def previous_pattern():
    previous = lambda d: d.v[:, :, (d.rows - 1).clamp(min=0)]  # noqa: E731
    return lambda: kinds().ReplacePattern(by="previous", heads=HEADS), replaced(previous)


@case()
def first_pattern():
    return lambda: kinds().ReplacePattern(by="first", heads=HEADS), replaced(lambda d: d.v[:, :, 0 * d.rows])


@case()
def permuted_pattern():
    def definition(d):
        order = torch.randperm(5, generator=torch.Generator().manual_seed(11))
        v = d.v.clone()
        v[:, :, 2:7] = d.v[:, :, 2:7][:, :, order] if d.v.shape[2] >= 7 else v[:, :, 2:7]
        return on_heads(d, torch.where((d.rows > 6)[:, None], d.p @ v, d.z))

    return lambda: kinds().ReplacePattern(by="permuted", keys=((2, 7),), seed=11, heads=HEADS), definition


@case()
def scaled_values():
    factors = {(0, 1): 0.5, (1, 0): -2.0}

    def definition(d):
        z = d.z.clone()
        for (layer, h), g in factors.items():
            if layer == d.layer:
                z[:, h] = d.p[:, h] @ (d.v[:, h] * torch.where(places(d.keys, (4, 9)), g, 1.0)[:, None])
        return z

    return lambda: kinds().ScaleValues(factor=factors, keys=((4, 9),)), definition


def act_by_hand(d, *, threshold, beta, first_gets, spare):
    """The algorithm as it is told: loops over heads and rows on the whole map."""
    z = d.z.clone()
    n = len(d.rows)
    for h in chosen(d):
        p = d.p[0, h]
        if not d.decoding:
            received = [float(p[j:, j].sum()) / (n - j) for j in range(n)]
            found = [j for j in range(n) if received[j] > threshold(n)]
            d.kept[h] = found[1:] if spare == "first-found" else [j for j in found if j or spare == "none"]
        sinks = d.kept[h]
        for i in range(n):
            row = p[i].clone()
            others = [j for j in d.keys.tolist() if j not in sinks and (first_gets or j) and row[j] > 0]
            rest = float(row[others].sum())
            if not sinks or not rest:
                continue
            freed = (1 - beta) * float(row[sinks].sum())
            row[sinks] *= beta
            row[others] += freed * row[others] / rest
            assert abs(float(row.sum()) - 1) < 1e-12
            z[0, h, i] = row @ d.v[0, h]
    return z


@case(same_in_decode=False)
def act_of_the_paper():
    def definition(d):
        return act_by_hand(d, threshold=lambda n: 1.5 / n, beta=0.4, first_gets=True, spare="first-found")

    return lambda: kinds().ACT(heads=HEADS, threshold=1.5), definition


@case(same_in_decode=False)
def act_of_the_code():
    def definition(d):
        return act_by_hand(d, threshold=lambda n: 0.1, beta=0.2, first_gets=False, spare="first-key")

    return lambda: kinds().ACT(
        heads=HEADS, detection="code", beta=0.2, receivers="others", spared="first-key"
    ), definition


@case()
def visual_attention_redistribution():
    def definition(d):
        z = d.z.clone()
        sinks, group = places(d.keys, (0, 1), (4, 5)), places(d.keys, (2, 8))
        for h in chosen(d):
            for i, row in enumerate(d.rows.tolist()):
                p = d.p[0, h, i].clone()
                mass = float(p[group].sum())
                if row < 8 or mass < 0.2 or float(p[group & sinks].sum()) > 0.5 * mass:
                    continue
                freed = 0.4 * float(p[sinks].sum())
                content = group & ~sinks
                share = p[content] / p[content].sum()
                p[sinks] *= 0.6
                p[content] += freed * share
                z[0, h, i] = p @ d.v[0, h]
        return z

    return lambda: kinds().VAR(group=((2, 8),), sinks=(0, 4), heads=HEADS), definition


@pytest.fixture(scope="module")
def base_logits(models):
    return {family: play(model, model.encode(TEXT), ()).logits for family, model in models.items()}


HEADS_OF, SIZE_OF = {"now": 0}, {"now": 0}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("name", CASES)
def test_outputs_equal_the_definition_in_prefill_and_decode(models, base_logits, family, name):
    model, row = models[family], CASES[name]
    HEADS_OF["now"] = model.heads
    SIZE_OF["now"] = 10 if family == "llama" else 7
    ids = model.encode(TEXT)
    edit = row.make()
    for backend in ("cpu", "portable"):
        played = play(model, ids, (edit,), backend=backend, steps=STEPS)
        assert largest_error(played, row.definition) <= TOLERANCE
    assert (played.logits - base_logits[family]).abs().max() > 1e-4, "the edit changes nothing"
    if row.same_in_decode:
        whole = play(model, ids, (edit,), backend="cpu")
        torch.testing.assert_close(played.logits, whole.logits, atol=5e-5, rtol=1e-4)
