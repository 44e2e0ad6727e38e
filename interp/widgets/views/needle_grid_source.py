"""`NeedleCells`: what a model found, and what its heads copied, by length of the prompt and depth of the needle: what NeedleGrid shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.errors import OptionError
from interp.results import Result
from interp.widgets.views.protocol import Reply, answer, whole

SURE: Final = 0.95
"""Coverage of the intervals."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CopiedSpans:
    """What every head copied, by cell: over the accepted answers of the cell.

    Attributes:
        layers: the model's own numbers of the layers.
        score, spread, control: float32 [layer, head, length, depth]: mean and standard deviation of the retrieval score, and the mean for
            random spans. NaN where a cell has no accepted answer, or where the result does not say which answers belong to it.
        active: float32 [layer, head, length, depth], accepted answers in which the head copied anything; NaN likewise.
    """

    layers: tuple[int, ...]
    score: NDArray[np.float32]
    spread: NDArray[np.float32]
    control: NDArray[np.float32]
    active: NDArray[np.float32]

    @property
    def heads(self) -> int:
        """Query heads of each layer."""
        return self.score.shape[1]

    @property
    def ranked(self) -> list[tuple[int, int]]:
        """(layer, head), the largest mean over cells first, ties to the lowest layer and head; heads without a number last."""
        with np.errstate(invalid="ignore"):
            known = np.isfinite(self.score)
            mean = np.where(known, self.score, 0.0).sum((2, 3)) / known.sum((2, 3))
        order = np.argsort(-np.nan_to_num(mean, nan=-np.inf).ravel(), kind="stable")
        return [(self.layers[i // self.heads], int(i % self.heads)) for i in order]


@dataclass(frozen=True, kw_only=True, eq=False)
class NeedleCells:
    """A grid of needle trials.

    Attributes:
        lengths: tokens of the prompts, ascending.
        depths: of the needle, from 0 (start) to 1, ascending.
        found: float64 [length, depth], answers that were accepted.
        asked: float64 [length, depth], prompts; NaN where the result does not say.
        copied: what the heads copied; None where no heads were scored.

    Raises:
        OptionError: no cells, or more found than asked.
    """

    lengths: tuple[int, ...]
    depths: tuple[float, ...]
    found: NDArray[np.float64]
    asked: NDArray[np.float64]
    copied: CopiedSpans | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not self.lengths or not self.depths or (self.found > self.asked).any():
            raise OptionError("a grid of needles needs lengths, depths, and in no cell more answers found than asked")

    @property
    def frame(self) -> pd.DataFrame:
        """One row per cell (and head, where heads were scored): length, depth, found, asked, low, high (of the share found), and the scores."""
        low, high = wilson(self.found, self.asked)
        cells = pd.DataFrame(
            {
                "length": np.repeat(self.lengths, len(self.depths)),
                "depth": np.tile(self.depths, len(self.lengths)),
                "found": self.found.ravel().astype(int),
                "asked": self.asked.ravel(),
                "low": low.ravel(),
                "high": high.ravel(),
            }
        )
        if self.copied is None:
            return cells
        c = self.copied
        heads = len(c.layers) * c.heads
        index = {
            "layer": np.repeat(c.layers, c.heads * len(cells)),
            "head": np.tile(np.repeat(np.arange(c.heads), len(cells)), len(c.layers)),
        }
        scores = {name: getattr(c, name).ravel() for name in ("score", "spread", "control", "active")}
        repeated = pd.concat([cells] * heads, ignore_index=True)
        return pd.DataFrame(index).join(repeated).assign(**scores)


def wilson(
    successes: NDArray[np.floating], trials: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's score interval of a share, at `SURE` coverage: lowest and highest; NaN without trials (Wilson 1927)."""
    k, n = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    z = NormalDist().inv_cdf(0.5 + SURE / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(n > 0, k / n, np.nan)
        middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def needle_cells(given: Result | pd.DataFrame) -> NeedleCells:
    """Read a grid.

    Args:
        given: of `interp.heads.retrieval` over prompts that say their length and depth; or a table with a row per trial, columns length,
            depth and correct (true or false).

    Raises:
        OptionError: neither of the two.
    """
    return _of_result(given) if isinstance(given, Result) else _of_trials(given)


def has_cells(result: Result) -> bool:
    """Whether a result of `interp.heads.retrieval` says which lengths and depths it was measured at."""
    return {"grid", "grid_accepted"} <= result.arrays.keys() and {"lengths", "depths"} <= result.manifest[
        "settings"
    ].keys()


def _of_result(result: Result) -> NeedleCells:
    if not has_cells(result):
        raise OptionError(
            "this result has no lengths and depths: its prompts did not say theirs; open its table with HeadGrid"
        )
    settings, arrays = result.manifest["settings"], result.arrays
    found = np.asarray(arrays["grid_accepted"], np.float64)
    grid = np.asarray(arrays["grid"], np.float64)
    layers = tuple(sorted(int(x) for x in result.table["layer"].unique()))
    owner = _owners(result)
    empty = np.full(grid.shape, np.nan)
    parts = {"spread": empty, "control": empty, "active": empty}
    if owner is not None:
        parts = _by_cell(arrays["score"], arrays["control"], owner, grid.shape)
    return NeedleCells(
        lengths=tuple(int(x) for x in settings["lengths"]),
        depths=tuple(float(x) for x in settings["depths"]),
        found=found,
        asked=np.full(found.shape, np.nan if owner is None else settings["samples"] / found.size),
        copied=CopiedSpans(layers=layers, score=_by_head(grid), **{name: _by_head(x) for name, x in parts.items()}),
    )


def _owners(result: Result) -> NDArray[np.int64] | None:
    """The cell of each accepted sample, where prompts came needle by needle, each over the whole grid, as `interp.tasks.needle` makes them.

    The result does not say so, but its own counts and means by cell tell: None where they do not fit.
    """
    arrays = result.arrays
    counts = arrays["grid_accepted"]
    if result.manifest["settings"]["samples"] % counts.size or not {"sample", "score", "control"} <= arrays.keys():
        return None
    owner = np.asarray(arrays["sample"], np.int64) % counts.size
    if (np.bincount(owner, minlength=counts.size) != counts.ravel()).any():
        return None
    cells = arrays["grid"].reshape(counts.size, *arrays["grid"].shape[2:])
    fits = all(np.allclose(arrays["score"][owner == n].mean(0), cells[n], atol=1e-6) for n in np.unique(owner))
    return owner if fits else None


def _by_cell(
    score: NDArray[np.floating], control: NDArray[np.floating], owner: NDArray[np.int64], shape: tuple[int, ...]
) -> dict[str, NDArray[np.float64]]:
    """Spread, control and number of active answers, each [length, depth, layer, head]."""
    found = {name: np.full((shape[0] * shape[1], *shape[2:]), np.nan) for name in ("spread", "control", "active")}
    for n in np.unique(owner):
        mine = owner == n
        found["control"][n] = control[mine].mean(0)
        found["active"][n] = (score[mine] > 0).sum(0)
        if mine.sum() > 1:
            found["spread"][n] = score[mine].std(0, ddof=1)
    return {name: x.reshape(shape) for name, x in found.items()}


def _by_head(cells: NDArray[np.float64]) -> NDArray[np.float32]:
    """[length, depth, layer, head] as [layer, head, length, depth]."""
    return np.ascontiguousarray(cells.transpose(2, 3, 0, 1), np.float32)


def _of_trials(trials: pd.DataFrame) -> NeedleCells:
    missing = [c for c in ("length", "depth", "correct") if c not in trials.columns]
    if missing or trials.empty:
        raise OptionError(
            "needle trials need a row for each, with columns length, depth and correct; "
            + (f"{', '.join(missing)} are missing" if missing else "there are none")
        )
    lengths, depths = (sorted(trials[c].unique()) for c in ("length", "depth"))
    cells: Any = trials.assign(correct=trials["correct"].astype(float)).groupby(["length", "depth"])["correct"]
    index = pd.MultiIndex.from_product([lengths, depths])
    found, asked = (
        x.reindex(index, fill_value=0).to_numpy(np.float64).reshape(len(lengths), len(depths))
        for x in (cells.sum(), cells.count())
    )
    return NeedleCells(
        lengths=tuple(int(x) for x in lengths), depths=tuple(float(x) for x in depths), found=found, asked=asked
    )


def _packed(*arrays: NDArray[np.floating]) -> list[bytes]:
    return [np.ascontiguousarray(a, "<f4").tobytes() for a in arrays]


def _answers(cells: NeedleCells, message: Mapping[str, Any]) -> Reply:
    with np.errstate(invalid="ignore", divide="ignore"):
        share = cells.found / cells.asked
    return {}, _packed(share, *wilson(cells.found, cells.asked), cells.found, cells.asked)


def _head(cells: NeedleCells, message: Mapping[str, Any]) -> Reply:
    c = cells.copied
    if c is None:
        raise OptionError("no heads were scored in these trials; what is here is what the model answered")
    layer = whole(message, "layer", 0, max(c.layers) + 1)
    if layer not in c.layers:
        raise OptionError(f"layer {layer} was not scored; there are {', '.join(map(str, c.layers))}")
    at = c.layers.index(layer), whole(message, "head", 0, c.heads)
    active = c.active[at]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = active / cells.found
    return {}, _packed(c.score[at], c.spread[at], c.control[at], share, *wilson(active, cells.found), active)


OPERATIONS = {"answers": _answers, "head": _head}


def serve(source: NeedleCells, message: object) -> Reply:
    """Answer NeedleGrid's page, each buffer float32 [length, depth].

    `answers`: share of answers found, its interval's ends, found, asked. `head`: score, spread, control, share of accepted answers in which
    the head copied, its interval's ends, their number.
    """
    return answer(OPERATIONS, source, message)
