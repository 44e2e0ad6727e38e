"""Recursive DFA: where what a feature reads at a source token was written: embedding, earlier heads, MLPs (Kissane et al. 2024, section 5).

DFA says that feature i at token t takes a(t, s) from source s. v(s) is linear in the stream x(s) once the division of the norm is held, and the
stream is a sum of what was written before, so with g the direction of x(s) that a(t, s) reads,

    a(t, s) = embedding . g + sum over earlier heads of z_h(s) W_O[h] . g + sum over earlier MLPs of m(s) . g
              + biases of the output projections . g + bias of the norm + bias of the values + remainder

The next step takes the earlier head that writes most: W_O[h] g is a direction of its z, and its own DFA goes on from token s. Each step prints its
remainder (released code leaves out the norm's scale and the biases, so its steps do not add up); here it is rounding.
Cost: two passes, and one small backward pass per step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.capture.call import Attended, AttentionCall
from interp.errors import OptionError, UnsupportedModelError
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.saes.attribution import reading
from interp.saes.core import SAE
from interp.saes.dfa import TextHeads, heads_of
from interp.saes.stream import Stream, held

KIND = "saes.recursive_dfa"
SOURCE = "recursive direct feature attribution; Kissane et al. 2024 (arXiv 2406.17759)"
STEPS = 2


def recursive_dfa(
    model: HookedModel,
    sae: SAE,
    layer: int,
    ids: Sequence[int],
    token: int,
    feature: int,
    *,
    steps: int = STEPS,
    sinks: Sequence[int] = (0,),
) -> Result:
    """Follow one feature at one token back to what wrote it.

    Args:
        model: a decoder.
        sae: of z of one of its layers.
        layer: which.
        ids: of the text.
        token: where the feature is read (it need not fire).
        feature: which.
        steps: how many times to go on; a step in layer 0 is the last.
        sinks: source tokens not to follow.

    Returns:
        Result "saes.recursive_dfa", one row per step and part: score, its contribution; control and spread, mean and standard deviation of
        what the same part contributes to the same direction at the other tokens of the text; part ("embedding", "head", "mlp", "output bias",
        "norm bias", "value bias", "remainder"); layer and head, -1 where there is none; step, query, source. Arrays: by_source_0 ..., the DFA
        of each step by source [token]. manifest["steps"]: for each, the head that is followed (None: all heads, reading the feature), query,
        source, the value followed, the sum of the parts, and the remainder.

    Raises:
        OptionError: a token, feature or number of steps that does not exist, or no source but sinks.
        UnsupportedModelError: the model's parts do not add up to its stream.
    """
    if not 0 <= token < len(ids) or steps < 1 or any(not 0 <= s < len(ids) for s in sinks):
        raise OptionError(
            f"wanted token and sinks from 0 to {len(ids) - 1} and steps >= 1; got {token}, {list(sinks)} and {steps}"
        )
    text = _Written(model, ids)
    read = reading(sae, model.heads, [feature])
    here = text.heads[layer]
    # [head, d_head]: the direction of z whose product is the feature's pre-activation less its bias.
    direction = read.columns[..., 0].to(here.z) * read.scale(here.flat)[token]
    rows: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    followed: int | None = None
    for step in range(steps):
        found = text.step(layer, token, direction, sinks)
        arrays[f"by_source_{step}"] = found.by_source.double().numpy()
        rows += [{**row, "step": step, "query": token, "source": found.source} for row in found.rows]
        said.append(
            {
                "layer": layer, "head": followed, "query": token, "source": found.source, "value": found.value,
                "sum": found.value - found.remainder, "remainder": found.remainder,
                "tokens": model.tokens([ids[token], ids[found.source]]),
            }
        )  # fmt: skip
        heads = [r for r in found.rows if r["part"] == "head"]
        if not heads:
            break
        best = max(heads, key=lambda r: r["score"])
        layer, followed, token = int(best["layer"]), int(best["head"]), found.source
        direction = torch.zeros_like(text.heads[layer].z[0])
        direction[followed] = text.stream.layers[layer].written(model.heads)[followed].to(direction) @ found.direction
    manifest = model.manifest() | {
        "method": "recursive_dfa",
        "source": SOURCE,
        "settings": {"feature": feature, "tokens": len(ids), "sinks": list(sinks)},
        "seed": None,
        "steps": said,
    }
    first = ["layer", "head", "score", "spread", "control"]
    table = pd.DataFrame(rows)
    ordered = table.reindex(columns=[*first, *table.columns.drop(first)])
    return Result(kind=KIND, table=ordered, manifest=manifest, arrays=arrays)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Step:
    """One step: DFA by source [token], the source followed, its value, its parts, the direction of the stream there [d], what is left."""

    by_source: Tensor
    source: int
    value: float
    rows: list[dict[str, Any]]
    direction: Tensor
    remainder: float


@dataclass(kw_only=True, eq=False)
class _Pass:
    """What one pass with the norms' outputs cut off leaves: by layer, streams [token, d], leaves [1, token, d], values with their graph, MLPs."""

    streams: dict[int, Tensor] = field(default_factory=dict)
    leaves: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    mlps: dict[int, Tensor] = field(default_factory=dict)
    heads: dict[int, TextHeads] = field(default_factory=dict)


class _Written:
    """Everything that was written to the stream of one text, and how each layer's values read it."""

    def __init__(self, model: HookedModel, ids: Sequence[int]) -> None:
        self.stream = Stream(model)
        if any(parts.mlp is None for parts in self.stream.layers):
            raise UnsupportedModelError(
                f"{type(model.hf).__name__}: no module gives what its blocks add to the stream beside attention, so streams "
                "cannot be split into what was written"
            )
        self.model, self.ids = model, tuple(int(i) for i in ids)
        self.own, self.silent = self._run(zero=False), self._run(zero=True)
        self.heads = self.own.heads

    def step(self, layer: int, query: int, direction: Tensor, sinks: Sequence[int]) -> _Step:
        """Follow a direction of z [head, d_head] of one layer at one query token to its largest source, and that source's parts."""
        heads = self.heads[layer]
        weights = heads.weights([query])[0]
        by_source = (weights * torch.einsum("hsd,hd->hs", heads.values, direction)).sum(0)
        open_ = by_source.clone()
        open_[list(sinks)], open_[query + 1 :] = -torch.inf, -torch.inf
        source = int(open_.argmax())
        if open_[source] == -torch.inf:
            raise OptionError(f"token {query} sees nothing but the sinks {list(sinks)}; take a later one, or sinks=()")
        # Attention weight times direction, [head, d_head]: what the values of this source are multiplied with.
        reads = weights[:, source, None] * direction
        target = (self.own.values[layer][:, source] * reads).sum()
        (slope,) = torch.autograd.grad(target, self.own.leaves[layer], retain_graph=True)
        constant = float((self.silent.values[layer][:, source].detach() * reads).sum())
        norm = held(self.stream.layers[layer].norm, self.own.streams[layer][source : source + 1])
        g = slope[0, source].detach()
        into = norm.pulled(g[None])[0]
        rows = self._parts(layer, source, into)
        fixed = {"norm bias": float(norm.bias @ g), "value bias": constant}
        value = float(target.detach())
        remainder = value - sum(r["score"] for r in rows) - sum(fixed.values())
        for part, score in {**fixed, "remainder": remainder}.items():
            rows.append(_row(part, -1, -1, score))
        return _Step(by_source=by_source, source=source, value=value, rows=rows, direction=into, remainder=remainder)

    def _parts(self, layer: int, source: int, into: Tensor) -> list[dict[str, Any]]:
        """What was written before a layer, along one direction of the stream, at the source and at all other tokens."""
        rows = [_spread("embedding", -1, -1, self.own.streams[0] @ into, source)]
        for n in range(layer):
            parts, z = self.stream.layers[n], self.heads[n].z
            by_head = torch.einsum("nhe,he->hn", z, parts.written(z.shape[1]).to(z) @ into.to(z))
            rows += [_spread("head", n, h, x, source) for h, x in enumerate(by_head)]
            rows.append(_spread("mlp", n, -1, self.own.mlps[n] @ into, source))
            if parts.bias is not None:
                rows.append(_row("output bias", n, -1, float(parts.bias @ into)))
        return rows

    def _run(self, *, zero: bool) -> _Pass:
        """One pass in which every attention reads a leaf in place of its norm's output (zeros if asked for)."""
        found = _Pass()

        def take(call: AttentionCall, attended: Attended) -> None:
            layer = call.site.layer
            group = torch.arange(call.heads) // call.group
            found.values[layer] = call.v[0].to(call.work_dtype)[group]
            if not zero:
                found.heads[layer] = heads_of(call, attended, self.ids)

        with torch.enable_grad(), self._cut(found, zero):
            self.model.probe([list(self.ids)], take)
        return found

    @contextmanager
    def _cut(self, found: _Pass, zero: bool) -> Iterator[None]:
        handles: list[Any] = []

        def cut_norm(layer: int) -> Any:
            def hook(module: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
                found.streams[layer] = args[0][0].detach()
                leaf = (torch.zeros_like(output) if zero else output.detach()).requires_grad_()
                found.leaves[layer] = leaf
                return leaf

            return hook

        def keep_mlp(layer: int) -> Any:
            def hook(module: Any, args: tuple[Any, ...], output: Any) -> None:
                out = output[0] if isinstance(output, tuple) else output
                found.mlps[layer] = out.detach().reshape(len(self.ids), -1)

            return hook

        for n, parts in enumerate(self.stream.layers):
            handles.append(parts.norm.register_forward_hook(cut_norm(n)))
            # Nothing behind z needs a gradient: the leaves are read by values alone.
            handles.append(parts.output.register_forward_pre_hook(lambda m, args: (args[0].detach(), *args[1:])))
            if parts.mlp is not None:
                handles.append(parts.mlp.register_forward_hook(keep_mlp(n)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _spread(part: str, layer: int, head: int, by_token: Tensor, source: int) -> dict[str, Any]:
    """The row of a part, from what it would contribute at every token [token]."""
    x = by_token.double().numpy()
    others = np.delete(x, source)
    return _row(part, layer, head, float(x[source]), others)


def _row(part: str, layer: int, head: int, score: float, others: np.ndarray | None = None) -> dict[str, Any]:
    known = others if others is not None and len(others) > 1 else np.full(2, np.nan)
    return {
        "layer": layer,
        "head": head,
        "score": score,
        "spread": float(np.std(known, ddof=1)),
        "control": float(np.mean(known)),
        "part": part,
    }
