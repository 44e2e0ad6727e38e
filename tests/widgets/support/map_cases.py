"""Attention maps whose weights are known: computed densely in float64, or planted as queries and keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

WORDS = ("the", " cat", "<img src=x onerror=alert(1)>", "\n", "\ud800", "é", "")


def random_map(queries: int, keys: int, *, layer: int = 3, head: int = 5, seed: int = 0, sharp: float = 2.0) -> Any:
    """An AttentionMap of random queries and keys (the last rows of a causal text), and the same map dense in float64."""
    from interp.maps.attention_map import AttentionMap
    from interp.maps.source import MapSource
    from interp_kernels import Mask

    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(1, 1, n, 8, generator=generator) for n in (queries, keys))
    logits = sharp * (q[0, 0].double() @ k[0, 0].double().T) / 8**0.5
    hidden = torch.arange(keys)[None] > torch.arange(queries)[:, None] + keys - queries
    logits = logits.masked_fill(hidden, -torch.inf)
    lse = logits.logsumexp(-1)
    source = MapSource(q=q, k=k, lse=lse[None, None].float(), mask=Mask.causal(), scale=sharp / 8**0.5, softcap=None)
    names = [[WORDS[i % len(WORDS)] for i in range(n)] for n in (queries, keys)]
    amap = AttentionMap(source, layer=layer, head=head, row_tokens=names[0], col_tokens=names[1])
    return amap, (logits - lse[:, None]).exp().numpy()


PLANTED = {(20011, 3001): 0.75, (32749, 17): 0.9, (257, 256): 0.6, (31999, 31998): 0.5}
"""(query, key): weight, in the map below."""


def planted_map(n: int = 32768) -> Any:
    """A causal map of n tokens: rows are uniform over the keys that they see, but for those cells of PLANTED that it has.

    A planted row's query points along a direction of its own, and so does its key alone: the key's logit x stands among i zeros, and its
    weight e^x / (e^x + i) is the wanted one for x = ln(w i / (1 - w)).
    """
    from interp.maps.attention_map import AttentionMap
    from interp.maps.source import MapSource
    from interp_kernels import Mask

    q, k, lse = torch.zeros(1, 1, n, 8), torch.zeros(1, 1, n, 8), torch.log(torch.arange(1, n + 1).float())
    for axis, ((i, j), weight) in enumerate(PLANTED.items()):
        if i >= n:
            continue
        x = np.log(weight * i / (1 - weight))
        q[0, 0, i, axis], k[0, 0, j, axis] = float(x), 1.0
        lse[i] = float(np.log(np.exp(x) + i))
    source = MapSource(q=q, k=k, lse=lse[None, None], mask=Mask.causal(), scale=1.0, softcap=None)
    return AttentionMap(source, layer=0, head=0)
