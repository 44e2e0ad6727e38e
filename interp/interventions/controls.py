"""Random controls for sets of heads: as many other heads, drawn from the same layers.

A set of heads is compared with as many other heads drawn from the same layers (heads.md section 14; Wu et al.'s code redraws its random
heads per cell, unseeded and from a hard-coded grid). Layers matter: taking any head out of an early layer costs more than out of a late one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from interp.errors import OptionError
from interp.interventions.where import Head


def random_heads(heads: Sequence[Head], width: int, draw: np.random.Generator) -> tuple[Head, ...]:
    """As many heads of each layer as `heads` has there, none of `heads`: sorted (layer, head) pairs.

    Args:
        heads: the heads under test.
        width: heads of a layer.
        draw: random numbers.

    Raises:
        OptionError: more than half of a layer's heads are under test, so that no control of that size is left in it.
    """
    found: list[Head] = []
    for layer, count in sorted(Counter(layer for layer, _ in heads).items()):
        others = np.setdiff1d(np.arange(width), [h for at, h in heads if at == layer])
        if len(others) < count:
            raise OptionError(
                f"layer {layer} has {width} heads, {count} of them under test: no {count} others are left for a control; test fewer heads"
            )
        found += [(layer, int(h)) for h in np.sort(draw.choice(others, size=count, replace=False))]
    return tuple(found)


def within_half(heads: Sequence[Head], width: int, most: int | None = None) -> list[Head]:
    """The first `most` heads of a ranking of which no layer has more than half under test, so that `random_heads` has a control for them."""
    kept: list[Head] = []
    taken: Counter[int] = Counter()
    for layer, head in heads:
        if 2 * (taken[layer] + 1) <= width and (most is None or len(kept) < most):
            taken[layer] += 1
            kept.append((layer, head))
    return kept
