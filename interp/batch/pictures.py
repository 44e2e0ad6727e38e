"""Which attention maps a scan pictures, and where: the top head of each of several statistics, on the first context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from interp.batch.contexts import Context
from interp.capture.run import Run
from interp.maps.attention_map import AttentionMap
from interp.maps.thumbnail import Thumbnail
from interp.models.hooked import HookedModel
from interp.stats.summary import Summary

PICTURED = (
    "first_token_mass",
    "previous_token_mass",
    "induction_mass",
    "duplicate_token_mass",
    "current_token_mass",
    "punctuation_mass",
    "mean_distance",
    "window_mass_64",
    "max_probability",
    "entropy",
)
"""Statistics whose top head is pictured, most telling first; all have one value per query row."""

TILE = 96
"""Pixels a side of the picture of a whole map."""
CROP = 48
"""Cells a side of the exact crop."""
CROWDED = 64
"""First row a crop may begin at, where the text is long enough: a row that sees few keys is strong by default."""
SINK_KEYS = 4
"""First keys, where most heads rest; they decide where a crop lies only for the statistics in `OF_SINKS`."""
OF_SINKS = frozenset({"first_token_mass"})

Chosen = tuple[str, int, int]


def take_pictures(
    model: HookedModel, context: Context, summaries: Mapping[str, Summary], layers: Sequence[int], count: int
) -> list[Thumbnail]:
    """Three exact pictures of each chosen head: its whole map pooled by max and by mean, and a crop with tokens.

    Args:
        model: runs the context once more, for the chosen layers alone.
        context: the text.
        summaries: statistic name -> summaries [layer, head], from which the heads are chosen.
        layers: labels of the layer axis.
        count: heads at most; none twice.
    """
    chosen = choose_heads(summaries, layers, count)
    if not chosen:
        return []
    run = model.run(
        context.ids.tolist(),
        layers=sorted({layer for _, layer, _ in chosen}),
        collect=list(dict.fromkeys(name for name, _, _ in chosen)),
        keep="qk",
        logits="none",
    )
    return [picture for choice in chosen for picture in pictures(run, choice, _rows_of(run, choice))]


def choose_heads(summaries: Mapping[str, Summary], layers: Sequence[int], count: int) -> list[Chosen]:
    """(statistic, layer, head) of the largest mean of each pictured statistic, leaving out heads chosen before."""
    chosen: list[Chosen] = []
    for name in PICTURED:
        if len(chosen) >= count or name not in summaries:
            continue
        summary = summaries[name]
        means = np.where(summary.count > 0, summary.mean, -np.inf)
        for row, head in {(layers.index(layer), head) for _, layer, head in chosen}:
            means[row, head] = -np.inf
        row, head = np.unravel_index(int(np.argmax(means)), means.shape)
        if np.isfinite(means[row, head]):
            chosen.append((name, layers[int(row)], int(head)))
    return chosen


def pictures(run: Run, choice: Chosen, values: NDArray[np.float32]) -> list[Thumbnail]:
    """Exact pictures of a head: its whole map pooled by max and by mean, and a crop with tokens around the rows with the largest values.

    Args:
        run: of one text, with its queries and keys.
        choice: (name, layer, head).
        values: one for each query row, NaN counting as 0.
    """
    name, layer, head = choice
    amap = run.attention[layer, head]
    queries, keys = amap.shape
    whole = [
        Thumbnail(
            layer=layer,
            head=head,
            statistic=name,
            rows=(0, queries),
            cols=(0, keys),
            pool=pool,
            weights=amap.tile((0, queries), (0, keys), (min(TILE, queries), min(TILE, keys)), pool).cpu().numpy(),
            row_tokens=[],
            col_tokens=[],
        )
        for pool in ("max", "mean")
    ]
    return [*whole, _crop(amap, choice, values, run.tokens)]


def _rows_of(run: Run, choice: Chosen) -> NDArray[np.float32]:
    """The statistic of a choice at each of its head's rows."""
    name, layer, head = choice
    return run.stats[name][run.layers.index(layer), head].cpu().numpy()


def _crop(amap: AttentionMap, choice: Chosen, values: NDArray[np.float32], tokens: list[str]) -> Thumbnail:
    """The exact cells where the head is at its strongest."""
    name, layer, head = choice
    queries, keys = amap.shape
    height, width = min(CROP, queries), min(CROP, keys)
    top = best_window(np.nan_to_num(values.astype(np.float64)), height, first=CROWDED)
    received = amap[top : top + height, 0:keys].double().sum(0).cpu().numpy()
    if name not in OF_SINKS:
        received[:SINK_KEYS] = 0.0
    left = best_window(received, width)
    return Thumbnail(
        layer=layer,
        head=head,
        statistic=name,
        rows=(top, top + height),
        cols=(left, left + width),
        pool="exact",
        weights=amap[top : top + height, left : left + width].cpu().numpy(),
        row_tokens=tokens[top : top + height],
        col_tokens=tokens[left : left + width],
    )


def best_window(values: NDArray[np.float64], width: int, *, first: int = 0) -> int:
    """Start of the run of `width` values with the largest sum, from `first` on where there is room; the first of equal ones.

    >>> best_window(np.array([9.0, 0.0, 1.0, 2.0, 0.0]), 2, first=1)
    2
    """
    total = np.concatenate([[0.0], np.cumsum(values)])
    sums = total[width:] - total[:-width]
    first = min(first, len(sums) - 1)
    return first + int(np.argmax(sums[first:]))
