"""What ablation tests of sets of heads share: random heads of the same layers, mean outputs, and a file of finished evaluations.

A set of heads is compared with as many other heads drawn from the same layers (heads.md section 14; Wu et al.'s code redraws its random
heads per cell, unseeded and from a hard-coded grid). Layers matter: taking any head out of an early layer costs more than out of a late one.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from interp.errors import CorruptFileError, OptionError, OutputError
from interp.interventions.ablate import AblateHeads
from interp.models.hooked import HookedModel
from interp.tasks.haystack import corpus_texts
from interp.tasks.sequences import sequences

Head = tuple[int, int]
Kind = Literal["zero", "mean", "uniform"]
Metrics = Mapping[str, float]
MEAN_TEXTS, MEAN_TOKENS = 4, 256
"""Pieces of natural text, and tokens of each, that the outputs of a mean ablation are averaged over."""


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


@torch.no_grad()
def mean_outputs(model: HookedModel, *, texts: Sequence[str] | None = None, seed: int = 0) -> dict[int, Tensor]:
    """Mean output z of every head over natural text: layer -> [head, value], for a mean ablation.

    Args:
        model: a decoder with a tokenizer.
        texts: None takes the held-out documents of the project's corpus.
        seed: of the pieces.
    """
    pool = corpus_texts("held_out") if texts is None else texts
    pieces = sequences(model, "natural", texts=pool, tokens=MEAN_TOKENS, count=MEAN_TEXTS, seed=seed)
    return {layer: z.float().mean((0, 2)) for layer, z in model.head_outputs(pieces).items()}


def ablation(heads: Sequence[Head], kind: Kind, means: Mapping[int, Tensor] | None) -> AblateHeads:
    """The intervention that takes some heads out; "mean" needs `mean_outputs`."""
    return AblateHeads(heads=tuple(heads), kind=kind, replacement=means if kind == "mean" else None)


class Ledger:
    """Finished evaluations by name, kept in a file after each one, so that an interrupted test goes on where it stopped.

    Args:
        path: the JSON file, None to keep nothing.
        settings: what the numbers depend on; a file of other settings is begun anew.

    Raises:
        CorruptFileError: the file is not one of these.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings = json.loads(json.dumps(settings))
        self.cells: dict[str, dict[str, float]] = {}
        if path is not None and path.exists():
            try:
                there = json.loads(path.read_text(encoding="utf-8"))
                same = there["settings"] == self.settings
                self.cells = dict(there["cells"]) if same else {}
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise CorruptFileError(
                    f"{path.name} holds no evaluations ({error}); delete it and start again"
                ) from error

    def get(self, name: str, measure: Callable[[], Metrics]) -> Metrics:
        """The evaluation of this name, measured now if it is not there."""
        if name not in self.cells:
            self.cells[name] = {metric: float(value) for metric, value in measure().items()}
            if self.path is not None:
                write_whole(self.path, {"settings": self.settings, "cells": self.cells})
        return self.cells[name]


def write_whole(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as JSON, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path.name}: {error.strerror or error}; choose another folder") from error
