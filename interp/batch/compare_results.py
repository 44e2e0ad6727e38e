"""`compare_results`: two results of one analysis of heads (of two models, checkpoints or settings): differences, changes of rank, and intervals.

Intervals are given where a result keeps the score of each sample, whose mean is the head's score, and in no other case:

- "bootstrap over samples": both keep 8 or more; each side's are redrawn on their own. Where both sides saw the same inputs, what these have in
  common stays in, and the intervals are too wide rather than too narrow.
- "normal, from the spread of samples": a side keeps fewer. Means are drawn with the standard error spread / sqrt(samples); of few
  samples that is too narrow.
- "no interval: the result keeps no repeats".

Samples stand for what an analysis draws (texts, prompts, random sequences), not for other weights or other seeds of training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.batch.differences import (
    KEYS,
    Side,
    changed_settings,
    check_draws,
    difference_maps,
    difference_table,
    drawn_again,
)
from interp.errors import OptionError
from interp.heads.report import REPORT, RESULTS, load_report
from interp.results import Result, saved_kind
from interp.sinks.alpha import PAPER_EPSILON

NONE: Final = "no interval: the result keeps no repeats"
OVER: Final = {"bootstrap": "bootstrap over samples", "normal": "normal, from the spread of samples"}
"""How intervals were made, in words."""
WIDE: Final = "heads.report"
ACCURACY: Final = 1e-4
"""Of the mean of the samples (kept as float32) against the score, so that no other array is taken for its samples."""


def _best_mask(result: Result) -> NDArray[Any] | None:
    """The recall of each head's best mask: [text, layer, head] of [text, candidate, layer, head]."""
    recall = result.arrays.get("recall")
    if recall is None:
        return None
    best = np.nanmean(recall, axis=0).argmax(axis=0)
    return np.take_along_axis(recall, best[None, None], axis=1)[:, 0]


def _sunk(result: Result) -> NDArray[Any] | None:
    """Whether a head sinks in each sequence: [sequence, layer, head] of alpha [sequence, layer, head, key]."""
    alpha = result.arrays.get("alpha_natural")
    return None if alpha is None else (alpha[..., 0] > PAPER_EPSILON).astype(np.float64)


SAMPLES: Final[Mapping[str, Callable[[Result], NDArray[Any] | None]]] = {
    "entropy": lambda result: result.arrays.get("sequence_score"),
    "sinks": _sunk,
    "heads.patterns": _best_mask,
}
"""Kind -> the score of each sample [sample, layer, head]; the array "score" of other kinds."""


def compare_results(
    a: str | Path | Result,
    b: str | Path | Result,
    *,
    statistics: Sequence[str] | None = None,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Compare two results of the same kind with one row per head.

    Args:
        a: folder of the result that is compared with, or the result. Of a report of heads all analyses are compared.
        b: the other one.
        statistics: which analyses of a report, None for all that both have.
        confidence: of the intervals.
        draws: redrawn pairs of means.
        seed: of the draws.

    Returns:
        As `interp.batch.compare.compare`, with the name of the analysis as statistic. The manifest says the method and the number of samples of each.

    Raises:
        OptionError: other kinds, other layers or heads, rows that are not heads, an analysis that one does not have; an impossible number.
        OutputError, CorruptFileError: a folder holds no result.
    """
    check_draws(confidence, draws)
    sides = [_open(x) for x in (a, b)]
    names = _common(sides[0], sides[1], statistics)
    generator = np.random.default_rng(seed)
    tables, methods, samples = [], {}, {}
    for name in names:
        pair = [side[name] for side in sides]
        left, right = (_side(name, result, letter) for letter, result in zip("AB", pair, strict=True))
        if not left.values.index.equals(right.values.index):
            raise OptionError(f"the two results of {name} are of other layers or heads; compare models of one shape")
        samples[name] = [len(side.ids) for side in (left, right)]
        drawn = None
        methods[name] = NONE
        if min(samples[name]) >= 2:
            how, *means = drawn_again(left, right, draws, generator)
            methods[name], drawn = OVER[how], (means[0], means[1])
        table = difference_table(left, right, drawn, confidence)
        # A head with fewer than two samples has no spread.
        alone = ~(np.isfinite(left.errors) & np.isfinite(right.errors))
        table.loc[alone, ["spread", "low", "high", "rank_low", "rank_high"]] = np.nan
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    firsts = [side[names[0]] for side in sides]
    kinds = list(dict.fromkeys(methods.values()))
    manifest = {
        "model": firsts[1].manifest.get("model"),
        "compared": [
            {"folder": _called(x), "model": r.manifest.get("model")} for x, r in zip((a, b), firsts, strict=True)
        ],
        "differences": dict(_differences(sides[0], sides[1], names)),
        "settings": {
            "statistics": list(names),
            "confidence": confidence,
            "draws": draws,
            "method": kinds[0] if len(kinds) == 1 else "by the analysis, see methods",
            "methods": methods,
        },
        "samples": samples,
        "seed": seed,
        "versions": firsts[1].manifest.get("versions"),
    }
    return Result(kind="batch.compare", table=table, manifest=manifest, arrays=difference_maps(table))


def holds_result(folder: Path) -> bool:
    """Whether a folder holds a result that can be compared: one analysis, or a report of heads."""
    return saved_kind(folder) is not None or saved_kind(folder / REPORT) == WIDE


def _open(given: str | Path | Result) -> dict[str, Result]:
    """The results by name: one, or those of all analyses of a report."""
    if isinstance(given, Result):
        return {_name(given): given}
    folder = Path(given)
    for whole in (folder, folder.parent):
        if saved_kind(whole / REPORT) == WIDE and (whole / RESULTS).is_dir() and folder in (whole, whole / REPORT):
            return load_report(whole)[1]
    result = Result.load(folder)
    return {_name(result): result}


def _name(result: Result) -> str:
    return result.kind.removeprefix("heads.")


def _called(given: str | Path | Result) -> str:
    if isinstance(given, Result):
        return str((given.manifest.get("model") or {}).get("name", "a result"))
    return Path(given).name


def _common(a: Mapping[str, Result], b: Mapping[str, Result], wanted: Sequence[str] | None) -> list[str]:
    """The analyses to compare, in A's order."""
    shared = [name for name in a if name in b]
    missing = [name for name in wanted or () if name not in shared]
    if missing or not shared:
        raise OptionError(
            f"the results do not share {', '.join(missing) or 'an analysis'}; A has {', '.join(a)}; B has {', '.join(b)}"
        )
    return [name for name in shared if wanted is None or name in wanted]


def _side(name: str, result: Result, letter: str) -> Side:
    """Scores with their samples, which are those of this side alone: nothing says that the other's are the same ones.

    Raises:
        OptionError: the rows are not one for each head.
    """
    table: Any = result.table
    if (table["layer"] < 0).any() or (table["head"] < 0).any() or table.duplicated(["layer", "head"]).any():
        raise OptionError(f"a {result.kind} result has not one row for each head, so its heads cannot be compared")
    rows = table.assign(statistic=name).set_index(KEYS).sort_index()
    values = rows["score"].astype(np.float64)
    samples = _samples(result, values)
    if samples is None:
        return Side(values=values, errors=np.full(len(values), np.nan))
    defined = np.isfinite(samples)
    count = defined.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(defined, samples, 0.0).sum(0) / count
        errors = np.sqrt(np.where(defined, (samples - mean) ** 2, 0.0).sum(0) / (count - 1) / count)
    return Side(
        values=values,
        errors=np.where(count >= 2, errors, np.nan),
        ids=tuple(f"{letter}{n}" for n in range(len(samples))),
        counts=defined.astype(np.float64),
        sums=np.where(defined, samples, 0.0),
    )


def _samples(result: Result, values: pd.Series) -> NDArray[np.float64] | None:
    """The score of each sample [sample, row]; None if the result keeps none whose mean is the score."""
    found = SAMPLES.get(result.kind, lambda result: result.arrays.get("score"))(result)
    layers, heads = (values.index.get_level_values(name).nunique() for name in ("layer", "head"))
    if found is None or found.ndim != 3 or found.shape[1:] != (layers, heads) or layers * heads != len(values):
        return None
    samples = found.reshape(len(found), -1).astype(np.float64)
    defined = np.isfinite(samples)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(defined, samples, 0.0).sum(0) / defined.sum(0)
    return samples if np.allclose(mean, values.to_numpy(), atol=ACCURACY, rtol=ACCURACY, equal_nan=True) else None


def _differences(
    a: Mapping[str, Result], b: Mapping[str, Result], names: Sequence[str]
) -> Iterator[tuple[str, list[Any]]]:
    """The settings in which the results differ; those of one analysis of a report with its name in front."""
    for name in names:
        manifests = [side[name].manifest for side in (a, b)]
        facts = [{key: x.get(key) for key in ("model", "dtype", "seed", "versions")} for x in manifests]
        if name == names[0]:
            yield from changed_settings(facts[0], facts[1]).items()
        settings = [x.get("settings") or {} for x in manifests]
        for key, values in changed_settings(settings[0], settings[1]).items():
            yield (key if len(names) == 1 else f"{name}.{key}"), values
