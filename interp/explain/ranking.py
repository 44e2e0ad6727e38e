"""Scores of the tokens of a text: what each method would highlight, for the checks that judge highlights.

attention   weights of the last row, mean over heads and layers
rollout     attention rollout of the last row
masked      the same with the first token hidden
norms       norm of what each key adds to the last row with the heads summed as vectors, mean over layers (each layer scaled to sum 1)
gradient    gradient x attention, summed over layers and heads (signed)
recency     later tokens first, whatever the model does
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from interp.errors import OptionError, ShapeError
from interp.explain.gradient import effects
from interp.explain.norms import together
from interp.explain.question import Question, calls_of, map_rows
from interp.explain.rollout import push, without_keys
from interp.models.hooked import HookedModel
from interp.models.outputs import output_weights

Scores = NDArray[np.float64]
"""One number for each token of a text."""


def attention(model: HookedModel, question: Question) -> Scores:
    """Mean weight of the last row."""
    calls = calls_of(model, question.ids)
    rows = [map_rows(*call, [question.row])[:, 0].double().mean(0) for call in calls.values()]
    return torch.stack(rows).mean(0).cpu().numpy()


def rolled(model: HookedModel, question: Question) -> Scores:
    """Rollout of the last row."""
    return push(calls_of(model, question.ids), question.row)[0].double().cpu().numpy()


def rolled_masked(model: HookedModel, question: Question) -> Scores:
    """Rollout of the last row with the first token hidden."""
    calls = {n: without_keys(call, (0,)) for n, call in calls_of(model, question.ids).items()}
    return push(calls, question.row)[0].double().cpu().numpy()


def normed(model: HookedModel, question: Question) -> Scores:
    """Norm of what each key adds to the last row."""
    calls = calls_of(model, question.ids)
    outputs = output_weights(model)
    rows = [together(*call, outputs[n], [question.row])[0].double() for n, call in calls.items()]
    return torch.stack([row / row.sum() for row in rows]).mean(0).cpu().numpy()


def graded(model: HookedModel, question: Question) -> Scores:
    """Gradient x attention of all heads."""
    return effects(model, question)[0].sum((0, 1)).numpy()


def recent(model: HookedModel, question: Question) -> Scores:
    """The positions themselves."""
    return np.arange(len(question.ids), dtype=np.float64)


METHODS: Final[Mapping[str, Callable[[HookedModel, Question], Scores]]] = MappingProxyType(
    {
        "attention": attention,
        "rollout": rolled,
        "masked": rolled_masked,
        "norms": normed,
        "gradient": graded,
        "recency": recent,
    }
)
"""Name -> function of a model and a question."""


def scores_of(model: HookedModel, question: Question, method: str | Scores) -> tuple[str, Scores]:
    """Name and scores of a method of `METHODS`, or of scores that were given.

    Raises:
        OptionError: an unknown method.
        ShapeError: scores that are not one finite number for each token.
    """
    if isinstance(method, str):
        if method not in METHODS:
            raise OptionError(f"method must be one of {', '.join(METHODS)}, or an array of scores; got {method!r}")
        return method, METHODS[method](model, question)
    given = np.asarray(method, dtype=np.float64)
    if given.shape != (len(question.ids),) or not np.isfinite(given).all():
        raise ShapeError(
            f"scores: wanted {len(question.ids)} finite numbers, one for each token, got shape {given.shape}"
        )
    return "own scores", given
