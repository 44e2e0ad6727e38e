"""Which heads to calibrate: the gain of each head alone, screened by one backward, verified exactly for the most promising.

ACT calibrates one head at a time, measures accuracy on training prompts and keeps the heads that help (Yu et al. 2024, section 5 and code; 928
heads x 7,450 prompts as whole forwards; its rule for keeping is not in the code). Here: first-order gains of all heads and settings
(`interp.calibration.variants`), then exact gains of the first ones of that ranking, and a rule that is an argument (`Selection`).

Many heads are tried, so the best one gains by chance alone. Two answers, and only the second settles it: p_family, the share of sign flips
(each prompt's gains of all candidates together) in which the largest mean gain of any candidate reaches this one's: it holds for all candidates
that were verified, not for those that the screen left out by looking at the same prompts, and takes prompts for independent; and the held-out
prompts of `interp.calibration.report`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from interp.calibration.methods import Method
from interp.calibration.variants import (
    OPTIONS,
    base_run,
    check_entrance,
    option_scores,
    screen,
    variant_states,
)
from interp.capture.edits import current
from interp.errors import OptionError
from interp.interventions.answers import check_prompts, equal_lengths
from interp.interventions.controls import within_half
from interp.interventions.readout import Readout
from interp.interventions.where import Head
from interp.ledger import Ledger
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import Prompt

Metric = Literal["logprob", "accuracy"]
HEADS = 16
"""Heads that are verified exactly, if not said otherwise."""
TOKENS = 1024
"""Tokens of a pass of the screen, whose graph is kept."""
FLIPS = 2000
ROUNDING = 1e-4
"""Gain up to which nothing has happened."""
LEDGER = "search.json"
Candidate = tuple[int, int, int]
"""(layer, head, number of the setting)."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which verified heads are kept: those that gain more than `margin`, best first, at most `most`.

    "Any gain" is the default (above what rounding does: a head without sinks "gains" 1e-6); a margin is `margin=`; "the best k" is
    `margin=-inf, most=k`.

    Attributes:
        metric: "logprob" of the right option among the options, which moves before the accuracy does, or "accuracy", as ACT.
        margin: least gain, not reached itself.
        most: most heads, None for no bound.
        p: largest p_family, None for any; at 0.05 a head is kept by chance in at most one search of twenty (see the module).
    """

    metric: Metric = "logprob"
    margin: float = ROUNDING
    most: int | None = None
    p: float | None = None

    def __post_init__(self) -> None:
        """Check the rule."""
        if self.metric not in get_args(Metric):
            raise OptionError(f"metric must be one of {', '.join(get_args(Metric))}; got {self.metric!r}")
        if self.most is not None and self.most < 1:
            raise OptionError(f"most must be at least 1, or None; got {self.most}")
        if self.p is not None and not 0 < self.p <= 1:
            raise OptionError(f"p must lie in (0, 1], or be None; got {self.p}")


def search(
    model: HookedModel,
    prompts: Sequence[Prompt],
    method: Method,
    *,
    heads: int | None = HEADS,
    layers: Sequence[int] | None = None,
    selection: Selection | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Find the heads that answer better when they alone are calibrated.

    Args:
        model: a decoder.
        prompts: with choices "options" and answers of one token; the search side of a `CalibrationTask`.
        method: what calibrating means, and the settings to try.
        heads: how many to verify, by their largest first-order gain over the settings; None for all.
        layers: layers to search, None for all. ACT's: 2 to the last but one for Llama-2-7B.
        selection: which to keep, None for any gain. Of a layer at most half of the heads are kept, so that random others are left as controls.
        seed: of the sign flips.
        folder: keeps finished passes in `search.json`, so that the same call goes on where it was interrupted.
        progress: called with (passes done, passes).

    Returns:
        Result "calibration.search", a row per head of the layers: predicted, the first-order gain of its best setting (nats of option
        log-probability), and predicted_spread; verified; and for verified heads score, the exact gain of the selection's metric, mean over
        prompts, at setting; spread, its standard deviation over prompts; control, the mean largest gain of all candidates under sign flips;
        p_family; gain_logprob and gain_accuracy; selected. Arrays: candidates [candidate, (layer, head, setting)]; logprob and correct
        [candidate, prompt]; base_logprob and base_correct [prompt]. Manifest "moved": how many heads the method changes at all; ACT leaves a
        head alone in which it finds no sink.

    Raises:
        OptionError: no prompts, prompts without options, or heads or layers that are not there.
        UnsupportedModelError, CaptureError: a model that is no decoder, or cannot be run from the middle.
    """
    rule = selection or Selection()
    at = _layers(model, layers)
    _check(model, prompts)
    if heads is not None and heads < 1:
        raise OptionError(f"heads must be at least 1, or None for all; got {heads}")
    readout = Readout(model)
    record = {
        "model": model.manifest()["model"],
        "dtype": str(model.dtype),
        "interventions": in_force_now(),
        "method": describe(method),
        "layers": at,
        "prompts": [[list(p.ids), p.answer[0], list(p.choices[OPTIONS])] for p in prompts],
    }
    ledger = Ledger(None if folder is None else Path(folder) / LEDGER, record)
    groups = _groups(prompts)
    count = _Count(progress, len(groups))
    first = [
        count(lambda g=g, n=n: ledger.get(f"screen {n}", lambda: _screen(readout, [prompts[i] for i in g], method, at)))
        for n, g in enumerate(groups)
    ]
    predicted, predicted_spread = _gains(first, len(prompts), (len(at), model.heads, len(method.settings)))
    candidates = _candidates(predicted, at, heads)
    touched = sorted({layer for layer, _, _ in candidates})
    count.expect(len(groups) * len(touched))
    values = {name: np.zeros((len(candidates), len(prompts))) for name in ("logprob", "correct")}
    base = {name: np.zeros(len(prompts)) for name in values}
    for n, group in enumerate(groups):
        some = [prompts[i] for i in group]
        verify = _Verification(readout, some, method, touched, check=n == 0)
        for name in base:
            base[name][group] = [first[n][f"{name} {k}"] for k in range(len(group))]
        for layer in touched:
            mine = [c for c, candidate in enumerate(candidates) if candidate[0] == layer]
            wanted = [candidates[c][1:] for c in mine]
            name = f"verify {n} layer {layer}: {' '.join(f'{h}@{s}' for h, s in wanted)}"
            cell = count(lambda name=name, v=verify, la=layer, w=wanted: ledger.get(name, lambda: v(la, w)))
            for c, (head, setting) in zip(mine, wanted, strict=True):
                for metric in values:
                    values[metric][c, group] = [cell[f"{metric} {head}@{setting} {k}"] for k in range(len(group))]
    gains = {"logprob": values["logprob"] - base["logprob"], "accuracy": values["correct"] - base["correct"]}
    found = _Found(layers=at, predicted=predicted, spread=predicted_spread, candidates=candidates, gains=gains)
    table = _table(method, model.heads, found, rule, seed)
    manifest = model.manifest() | {
        "method": method.name,
        "source": "one head at a time as in ACT (arXiv 2406.15765); screen and verification: interp.calibration.variants",
        "settings": {
            "calibration": describe(method),
            "layers": at,
            "heads": heads,
            "selection": asdict(rule),
            "prompts": len(prompts),
            "flips": FLIPS,
            "interventions": in_force_now(),
        },
        "candidates": len(candidates),
        "moved": int((predicted != 0).any(-1).sum()),
        "seed": seed,
    }
    arrays = {
        "candidates": np.array([(layer, h, method.settings[s]) for layer, h, s in candidates], dtype=np.float64),
        "logprob": values["logprob"],
        "correct": values["correct"],
        "base_logprob": base["logprob"],
        "base_correct": base["correct"],
    }
    return Result(kind="calibration.search", table=table, manifest=manifest, arrays=arrays)


def selected(result: Result) -> dict[Head, float]:
    """The heads that a search kept, best first, each with its setting."""
    table: Any = result.table
    rows = table[table["selected"]].sort_values(["score", "layer", "head"], ascending=[False, True, True])
    return {(int(r["layer"]), int(r["head"])): float(r["setting"]) for r in rows.to_dict("records")}


def family_p(gains: NDArray[np.float64], *, flips: int = FLIPS, seed: int = 0) -> tuple[NDArray[np.float64], float]:
    """How often the largest mean gain of any candidate reaches each one's by chance, the signs of prompts being flipped at random.

    Args:
        gains: [candidate, prompt]; the signs of a prompt's gains are flipped together, which keeps how candidates go along.
        flips: number of draws.
        seed: of the draws.

    Returns:
        p of each candidate, (1 + draws that reach it) / (1 + draws); the mean of the largest mean gain.
    """
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(flips, gains.shape[1]))
    largest = (signs @ gains.T / gains.shape[1]).max(1)
    # what rounding does to the mean of equal numbers must not decide
    reached = largest[None] >= gains.mean(1)[:, None] - 1e-12
    return (1 + reached.sum(1)) / (1 + flips), float(largest.mean())


def describe(method: Method) -> dict[str, Any]:
    """Plain values of a method, for manifests."""
    return {"name": method.name, method.setting: list(method.settings), **method.options}


class _Count:
    """Progress over passes of which the number becomes known as the search goes on."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def expect(self, more: int) -> None:
        """So many passes more."""
        self.total += more

    def __call__(self, step: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
        """Do one."""
        found = step()
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)
        return found


class _Verification:
    """Exact scores of variants of a group of prompts; the unchanged run is made when the first variant is asked for."""

    def __init__(
        self, readout: Readout, prompts: list[Prompt], method: Method, layers: list[int], *, check: bool
    ) -> None:
        self.readout, self.prompts, self.method, self.layers = readout, prompts, method, layers
        self.check = check
        self.base: Any = None

    def __call__(self, layer: int, changes: list[tuple[int, int]]) -> dict[str, float]:
        """Log-probability and correctness of each prompt for each (head, setting)."""
        if self.base is None:
            self.base = base_run(self.readout, self.prompts, self.method, self.layers)
            if self.check:
                check_entrance(self.readout, self.base, self.layers[-1])
        cell: dict[str, float] = {}
        states = variant_states(self.readout, self.base, layer, changes)
        for (head, setting), mine in zip(changes, states, strict=True):
            with torch.no_grad():
                logprob, correct = option_scores(self.readout, self.prompts, mine)
            for k, (x, right) in enumerate(zip(logprob.tolist(), correct.tolist(), strict=True)):
                cell[f"logprob {head}@{setting} {k}"], cell[f"correct {head}@{setting} {k}"] = x, float(right)
        return cell


def _screen(readout: Readout, prompts: list[Prompt], method: Method, layers: list[int]) -> dict[str, float]:
    """Sums over the prompts of first-order gains and of their squares, and the scores of the model as it is."""
    gain, logprob, correct = screen(readout, prompts, method, layers)
    cell = {f"logprob {k}": x for k, x in enumerate(logprob.tolist())}
    cell |= {f"correct {k}": float(x) for k, x in enumerate(correct.tolist())}
    for what, sums in (("sum", gain.double().sum(0)), ("square", gain.double().square().sum(0))):
        cell |= {f"{what} {n}": x for n, x in enumerate(sums.flatten().tolist())}
    return cell


def _gains(
    cells: Sequence[Mapping[str, float]], prompts: int, shape: tuple[int, int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation over prompts of the first-order gains, [layer, head, setting] each."""
    size = int(np.prod(shape))
    total, square = (
        np.sum([[cell[f"{what} {n}"] for n in range(size)] for cell in cells], 0).reshape(shape)
        for what in ("sum", "square")
    )
    mean = total / prompts
    return mean, np.sqrt(np.maximum(square - prompts * mean**2, 0.0) / (prompts - 1))


def _candidates(predicted: NDArray[np.float64], layers: list[int], heads: int | None) -> list[Candidate]:
    """All settings of the heads with the largest first-order gain at any setting, by layer and head."""
    best = predicted.max(-1)
    order = np.argsort(-best, axis=None, kind="stable")[:heads]
    chosen = sorted((int(n) // best.shape[1], int(n) % best.shape[1]) for n in order)
    return [(layers[at], head, s) for at, head in chosen for s in range(predicted.shape[-1])]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Found:
    """What a search has measured: first-order gains [layer, head, setting] and their spread, candidates and their exact gains by metric."""

    layers: list[int]
    predicted: NDArray[np.float64]
    spread: NDArray[np.float64]
    candidates: list[Candidate]
    gains: Mapping[str, NDArray[np.float64]]


def _table(method: Method, width: int, found: _Found, rule: Selection, seed: int) -> pd.DataFrame:
    predicted, candidates, gains = found.predicted, found.candidates, found.gains
    judged = gains[rule.metric]
    p, control = family_p(judged, seed=seed)
    best: dict[Head, int] = {}
    for c, (layer, head, _) in enumerate(candidates):
        held = best.setdefault((layer, head), c)
        if judged[c].mean() > judged[held].mean():
            best[layer, head] = c
    settings = keep(best, judged.mean(1), p, rule, width)
    rows: list[dict[str, Any]] = []
    for at, layer in enumerate(found.layers):
        for head in range(width):
            c = best.get((layer, head))
            s = int(predicted[at, head].argmax()) if c is None else candidates[c][2]
            row: dict[str, Any] = {"layer": layer, "head": head, "score": np.nan, "spread": np.nan, "control": np.nan}
            row |= {"setting": method.settings[s], "predicted": predicted[at, head, s]}
            row |= {"predicted_spread": found.spread[at, head, s], "verified": c is not None}
            row |= {"p_family": np.nan, "gain_logprob": np.nan, "gain_accuracy": np.nan}
            if c is not None:
                row |= {
                    "score": judged[c].mean(),
                    "spread": judged[c].std(ddof=1),
                    "control": control,
                    "p_family": p[c],
                }
                row |= {f"gain_{name}": gain[c].mean() for name, gain in gains.items()}
            rows.append(row | {"selected": (layer, head) in settings})
    return pd.DataFrame(rows)


def keep(
    best: Mapping[Head, int], gains: NDArray[np.float64], p: NDArray[np.float64], rule: Selection, width: int
) -> list[Head]:
    """The heads that the rule keeps, best first; of a layer at most half.

    Args:
        best: head -> its best candidate.
        gains: mean gain of each candidate.
        p: p_family of each candidate.
        rule: what to keep.
        width: heads of a layer.
    """
    ranking = sorted(best, key=lambda head: (-gains[best[head]], head))
    passing = [h for h in ranking if gains[best[h]] > rule.margin and (rule.p is None or p[best[h]] <= rule.p)]
    return within_half(passing, width, rule.most)


def _groups(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Numbers of prompts that share a pass: of one length, of so many tokens that the graph of a backward can be held."""
    longest = max(len(p.ids) for p in prompts)
    return list(equal_lengths(prompts, max(1, TOKENS // longest)))


def _layers(model: HookedModel, layers: Sequence[int] | None) -> list[int]:
    at = list(range(model.layers)) if layers is None else sorted(set(layers))
    if not at or at[0] < 0 or at[-1] >= model.layers:
        raise OptionError(f"layers: wanted numbers from 0 to {model.layers - 1}, got {list(layers or ())}")
    return at


def _check(model: HookedModel, prompts: Sequence[Prompt]) -> None:
    check_prompts(model, prompts)
    if len(prompts) < 2:
        raise OptionError("a search wants at least two prompts: one has no spread")
    bad = [n for n, p in enumerate(prompts) if len(p.answer) != 1 or p.answer[0] not in p.choices.get(OPTIONS, ())]
    if bad:
        raise OptionError(
            f'prompts {bad[:5]} want choices "{OPTIONS}" and an answer of one token that is among them; see interp.calibration.tasks'
        )


def in_force_now() -> list[str]:
    """Names of the interventions in force where this is called: what is measured there is on top of them."""
    return [e.name for scope in current() for e in scope.interventions]
