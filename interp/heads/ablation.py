"""What ablation tests of sets of heads share: the ways to take heads out, and the mean outputs that one of them needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from interp.interventions.ablate import AblateHeads
from interp.interventions.where import Head
from interp.models.hooked import HookedModel
from interp.tasks.haystack import corpus_texts
from interp.tasks.sequences import sequences

Kind = Literal["zero", "mean", "uniform"]
MEAN_TEXTS, MEAN_TOKENS = 4, 256
"""Pieces of natural text, and tokens of each, that the outputs of a mean ablation are averaged over."""


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
