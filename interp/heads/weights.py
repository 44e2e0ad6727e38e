"""`read_weights`: find where a decoder keeps the weights of its heads, and prove it against what the modules themselves give.

Compared on one short input: the values of every layer, its head outputs through W_O, block 0 put together from its parts, the embedding and
the logits. Two forward passes over a few tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from interp.capture.call import Attended, AttentionCall
from interp.errors import UnsupportedModelError
from interp.heads.layouts import LAYOUTS, Layout
from interp.heads.parts import Weights, outer
from interp.models.hooked import HookedModel

PROBE_TOKENS = 7
TOLERANCE = 0.02
"""Largest relative error, in Frobenius norm; half precision stays below it, and a wrong reading is off by about 1."""


def read_weights(model: HookedModel) -> Weights:
    """Find where a decoder keeps its weights, and prove the reading on a small input (one forward pass over a few tokens).

    Raises:
        UnsupportedModelError: no layout fits, or the one that fits does not reproduce what the modules compute.
    """
    hf = model.hf
    row = next((row for row in LAYOUTS if _fits(hf, row)), None)
    if row is None or model.is_encoder_decoder or hf.get_output_embeddings() is None:
        raise UnsupportedModelError(
            f"{type(hf).__name__}: no layout of weights fits (known: {', '.join(x.name for x in LAYOUTS)}); weight-only scores "
            "need a decoder with an unembedding. Add a row to interp.heads.layouts.LAYOUTS"
        )
    parallel = row.parallel if isinstance(row.parallel, bool) else bool(getattr(hf.config, row.parallel))
    weights = Weights(layout=row, hf=hf, parallel=parallel, blocks=tuple(outer(hf, row.blocks)), heads=model.heads)
    check(model, weights)
    return weights


@torch.no_grad()
def check(model: HookedModel, weights: Weights) -> dict[str, float]:
    """Compare every part of `weights` with the modules' own inputs and outputs on one short input.

    Returns:
        Relative error of each part, the largest over layers: values, outputs, block, embedding, logits.

    Raises:
        UnsupportedModelError: a part is off by more than 2 %, with the list of errors.
    """
    ids = _ids(weights)
    calls: dict[int, tuple[Tensor, Tensor]] = {}

    def take(call: AttentionCall, attended: Attended) -> None:
        calls[call.site.layer] = (call.v[0], attended.out[0])

    watched: dict[str, nn.Module] = {f"attention {n}": weights.attention(n) for n in range(len(weights.blocks))}
    with _watching(watched | {"block": weights.blocks[0]}) as seen:
        model.probe(ids, take)
    errors = {"values": 0.0, "outputs": 0.0}
    for layer, (v, z) in calls.items():
        heads = weights.layer(layer)
        given, out = seen[f"attention {layer}"]
        errors["values"] = max(errors["values"], _error(lambda h=heads, x=given: h.read(x[0]), v))
        errors["outputs"] = max(errors["outputs"], _error(lambda h=heads, z=z: h.write(z), out[0]))
    errors["block"] = _error(
        lambda: _block(weights, seen["block"][0][0], seen["attention 0"][1][0]), seen["block"][1][0]
    )
    # Two texts of one token each: their streams differ by the tokens alone, because what the place adds is the same.
    with _watching({"block": weights.blocks[0], "norm": outer(weights.hf, weights.layout.final_norm)}) as seen:
        logits = weights.hf(torch.tensor(ids[:2], device=model.device)[:, None]).logits
    first = seen["block"][0][:, 0]
    embedded = weights.embed(ids[:2])
    errors["embedding"] = _error(lambda: embedded[0] - embedded[1], first[0] - first[1])
    errors["logits"] = _error(lambda: _logits(weights, seen["norm"][0]), logits)
    if not all(error < TOLERANCE for error in errors.values()) or len(calls) != len(weights.blocks):
        said = ", ".join(f"{name} {error:.2g}" for name, error in errors.items())
        raise UnsupportedModelError(
            f"{type(weights.hf).__name__} looks like the layout {weights.layout.name!r} but does not compute as it does "
            f"(relative errors: {said}; {len(calls)} of {len(weights.blocks)} layers attended): its weights cannot be read per head"
        )
    return errors


def _fits(hf: nn.Module, row: Layout) -> bool:
    try:
        block = outer(hf, row.blocks)[0]
        attention = outer(block, row.attention)
        parts = [row.attention_norm, row.mlp_norm, *row.mlp, row.after_attention, row.after_mlp]
        found = [outer(block, path) for path in parts if path is not None]
        found += [outer(attention, row.values), outer(attention, row.output), outer(hf, row.final_norm)]
    except (AttributeError, IndexError, TypeError):
        return False
    return all(isinstance(x, nn.Module) for x in found)


def _ids(weights: Weights) -> list[int]:
    """Distinct ids spread over the vocabulary."""
    vocabulary = weights.hf.get_input_embeddings().weight.shape[0]
    return [(1 + k) * vocabulary // (PROBE_TOKENS + 2) for k in range(PROBE_TOKENS)]


def _block(weights: Weights, x: Tensor, attended: Tensor) -> Tensor:
    """Block 0 put together from its parts, given what its attention module gave."""
    heads = weights.layer(0)
    middle = x + (attended if heads.after is None else heads.after(attended))
    return middle + weights.mlp(x if weights.parallel else middle)


def _logits(weights: Weights, x: Tensor) -> Tensor:
    logits = weights.final_norm(x) @ weights.unembedding.T
    bias = getattr(weights.hf.get_output_embeddings(), "bias", None)
    logits = logits if bias is None else logits + bias
    cap = getattr(weights.hf.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def _error(ours: Callable[[], Tensor], theirs: Tensor) -> float:
    """Relative error in Frobenius norm; infinite where the shapes do not even fit."""
    try:
        difference = ours().double() - theirs.double()
    except RuntimeError:
        return float("inf")
    return float(difference.norm() / theirs.double().norm())


@contextmanager
def _watching(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """What each module was given first and what it gave (the first of several)."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = args[0] if args else kwargs["hidden_states"]
            seen[name] = (given, output[0] if isinstance(output, tuple) else output)

        return hook

    handles = [m.register_forward_hook(note(name), with_kwargs=True) for name, m in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
