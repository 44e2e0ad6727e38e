"""`State`: everything that the next training step depends on, in one safetensors file that is whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from interp.errors import CorruptFileError, PlanMismatchError
from interp.saes.recipe import Recipe
from interp.saes.store import read_metadata, write_tensors

CHECKPOINT = "checkpoint.safetensors"
WORDS = "training"
"""Name of the record of step, recipe and source beside the tensors."""


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """Where a training stands.

    Attributes:
        step: steps done.
        resampled: steps before which features were resampled.
        weights: by name.
        first, second: Adam's moments by the weight's name.
        since_fired: rows since each feature fired, int64 [d_sae].
        window: how often each fired since the last resampling, int64 [d_sae].
    """

    step: int
    resampled: tuple[int, ...]
    weights: Mapping[str, Tensor]
    first: Mapping[str, Tensor]
    second: Mapping[str, Tensor]
    since_fired: Tensor
    window: Tensor


def write_checkpoint(folder: Path, state: State, recipe: Recipe, source: Mapping[str, Any]) -> None:
    """Write a state, the recipe and what it is trained on.

    Raises:
        OutputError: the folder cannot be written.
    """
    tensors = {"since_fired": state.since_fired, "window": state.window}
    for kind, group in (("weight", state.weights), ("first", state.first), ("second", state.second)):
        tensors |= {f"{kind}.{name}": x.detach() for name, x in group.items()}
    words = {"step": state.step, "resampled": list(state.resampled), "recipe": recipe.record(), "source": dict(source)}
    # One entry: safetensors writes several in no fixed order, and equal states are to be equal files.
    write_tensors(folder / CHECKPOINT, tensors, {WORDS: json.dumps(words)})


def read_checkpoint(folder: Path, recipe: Recipe, source: Mapping[str, Any]) -> State | None:
    """The state that a folder holds, None if it holds none.

    Raises:
        PlanMismatchError: it is of another recipe, or trained on something else.
        CorruptFileError: it cannot be read.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        words = json.loads(read_metadata(path)[WORDS])
        tensors = load_file(path)
        step, resampled = words["step"], tuple(words["resampled"])
        groups: dict[str, dict[str, Tensor]] = {"weight": {}, "first": {}, "second": {}}
        for name, x in tensors.items():
            kind, dot, weight = name.partition(".")
            if dot:
                groups[kind][weight] = x
        state = State(
            step=step,
            resampled=resampled,
            weights=groups["weight"],
            first=groups["first"],
            second=groups["second"],
            since_fired=tensors["since_fired"],
            window=tensors["window"],
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CorruptFileError(
            f"{folder.name}/{CHECKPOINT} cannot be read ({error}); delete it and train again"
        ) from error
    wanted = json.loads(json.dumps({"recipe": recipe.record(), "source": dict(source)}))
    if differs := [n for n in wanted if wanted[n] != words.get(n)]:
        inner = [n for what in differs for n in wanted[what] if wanted[what][n] != words.get(what, {}).get(n)]
        raise PlanMismatchError(
            f"{folder.name} holds a training of another {' and '.join(differs)} ({', '.join(inner)} differ); "
            "give the same options, or a new folder"
        )
    return state
