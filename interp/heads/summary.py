"""One head's circuits in short: what its OV circuit writes for a few tokens, the sizes of OV and QK, and the token pairs that it links.

OV: tokens whose logit the direct path from a token raises or lowers most (`interp.heads.direct_path`, less the mean over the vocabulary; a
token is read as block 0 leaves it). Singular values: of W_V W_O and, where the model has a TransformerLens bridge, of W_Q W_K^T (Elhage et al.
2021, "A Mathematical Framework for Transformer Circuits"), without norms; rotary positions come on top of the latter. Both have the rank of
a head at most, so that small factors suffice; no d x d matrix is formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.capture.run import Run
from interp.heads.direct_path import DirectPath
from interp.heads.parts import Weights
from interp.models.hooked import HookedModel

PROMOTED, LOWERED = 8, 4
"""Tokens that are named for each source token."""
PAIRS = 12
"""Token pairs that are named for a text."""
SINK_KEYS = 1
"""First keys that are no partner of a pair: nearly every head rests there."""
ROWS = 64
"""Rows of a map that are looked at together."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a head writes for one token: (token id, logit less the mean over the vocabulary), strongest first."""

    source: int
    raised: tuple[tuple[int, float], ...]
    lowered: tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A query and a key that a head links: positions and weight."""

    query: int
    key: int
    weight: float


@torch.no_grad()
def written(weights: Weights, layer: int, head: int, ids: Sequence[int]) -> list[Written]:
    """What the OV circuit of a head raises and lowers for each of some tokens."""
    path = DirectPath(weights, "model")
    streams = weights.effective_embedding(list(ids), "embed+attn+mlp")
    out = path.values(layer, streams)[head] @ path.outputs(layer)[head]
    logits = out @ path.unembedding().T
    logits = logits - logits.mean(-1, keepdim=True)
    found = []
    for source, row in zip(ids, logits, strict=True):
        high, low = row.topk(PROMOTED), row.topk(LOWERED, largest=False)
        found.append(
            Written(
                source=int(source), raised=_named(high.indices, high.values), lowered=_named(low.indices, low.values)
            )
        )
    return found


@torch.no_grad()
def ov_sizes(weights: Weights, layer: int, head: int) -> NDArray[np.float64]:
    """Singular values of W_V W_O, largest first: as many as a value vector has numbers."""
    heads = weights.layer(layer)
    return _product_sizes(heads.values[int(heads.groups[head])], heads.outputs[head].T)


@torch.no_grad()
def qk_sizes(model: HookedModel, layer: int, head: int) -> NDArray[np.float64] | None:
    """Singular values of W_Q W_K^T, largest first; None for a model without a bridge or whose bridge does not give the two."""
    attention = None if model.bridge is None else getattr(model.bridge.blocks[layer], "attn", None)
    query, key = getattr(attention, "W_Q", None), getattr(attention, "W_K", None)
    if not isinstance(query, Tensor) or not isinstance(key, Tensor) or query.ndim != 3 or key.ndim != 3:
        return None
    return _product_sizes(query[head], key[head * key.shape[0] // query.shape[0]])


@torch.no_grad()
def strongest_pairs(run: Run, layer: int, head: int, *, first: int = 0, count: int = PAIRS) -> list[Pair]:
    """The strongest links of a head on one text, at most one for each (query token, key token); the first key left out.

    Rows before `first` do not count: they see few keys, and so are strong by default.
    """
    amap = run.attention[layer, head]
    queries, keys = amap.shape
    ids = run.ids
    found: dict[tuple[int, int], Pair] = {}
    for start in range(first, queries, ROWS):
        block = amap[start : min(start + ROWS, queries), SINK_KEYS:keys]
        best = block.flatten().topk(min(4 * count, block.numel()))
        for weight, at in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            pair = Pair(query=start + at // block.shape[1], key=SINK_KEYS + at % block.shape[1], weight=weight)
            name = (int(ids[pair.query]), int(ids[pair.key]))
            if weight > 0 and (name not in found or found[name].weight < weight):
                found[name] = pair
    return sorted(found.values(), key=lambda p: (-p.weight, p.query, p.key))[:count]


def _product_sizes(a: Tensor, b: Tensor) -> NDArray[np.float64]:
    """Singular values of a b^T for a, b [d, r] with small r."""
    left, right = (torch.linalg.qr(x.double()).R for x in (a, b))
    return torch.linalg.svdvals(left @ right.T).cpu().numpy()


def _named(indices: Tensor, values: Tensor) -> tuple[tuple[int, float], ...]:
    return tuple((int(i), float(v)) for i, v in zip(indices, values, strict=True))
