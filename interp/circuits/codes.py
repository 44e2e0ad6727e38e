"""Circuit identification by codes (O'Neill and Bui 2024, arXiv 2405.12522), with what is needed to judge it.

Every head output on an example gets an integer code, its strongest feature (`interp.circuits.coders`). Heads are then scored by the codes that
they use on positive examples (the task) and never on negative ones (its corruption):

    node(h)  =  number of such codes of head h                                                             ("unigrams")
    edge(h)  =  sum over heads g of the number of pairs of codes of h and g that occur together
                on some positive and on no negative example                                                ("bigrams")

and the scores are held against a table of heads known by other means (patching). The paper ranks heads by pairs in another way and reports an
"F1" of true positive and true negative rates; here it is average precision, the area under the true precision-recall curve, beside

    chance        the share of true heads, which is what a random ranking gets
    null          the same score, mean over the same trials, with positives and negatives swapped in a random half of the pairs: what the
                  number of codes alone gives
    paired norm   no codes: mean ||positive - negative|| of what the head writes; read no score without it. (Patching itself multiplies that
                  difference by what follows from it, so a circuit found by patching favours it.)

Intervals resample heads, true and other ones apart, so they hold for the score as it is, the mean over trials (fits of the dictionary).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.circuits.coders import Coder, HeadOutputs, head_outputs, paired_norm, shared_dictionary, top_codes
from interp.circuits.pairs import paired
from interp.circuits.tables import circuit_result
from interp.errors import OptionError
from interp.interventions.where import Head, check_heads
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import Prompt

SOURCE = "circuit identification by codes; O'Neill and Bui 2024 (arXiv 2405.12522)"
TRUE_HEADS = 20
"""Heads of a patching result that count as the circuit."""
PROMPTS = 16
Scores = NDArray[np.float64]


def code_circuits(
    model: HookedModel,
    prompts: Sequence[Prompt],
    truth: Result | Sequence[Head],
    *,
    coder: Coder | None = None,
    position: str = "all",
    size: int = TRUE_HEADS,
    k: int = 1,
    trials: int = 4,
    draws: int = 200,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Score every head by its codes, and the scores by heads that are known.

    Args:
        model: a decoder.
        prompts: with `corrupt`; the prompts are the positives, their corruptions the negatives.
        truth: the heads of the circuit, or a result of patching, whose `size` heads with the largest |score| are taken (site z, first position).
        coder: gives head outputs features; None fits the paper's dictionary.
        position: head outputs are averaged over these tokens: "all", or a row or key set of the prompts.
        size: see `truth`.
        k: codes per head output: 1 in the paper.
        trials: seeds of the coder.
        draws: resamples of the heads; divided by the trials, swaps of the null, each of which scores every trial.
        seed: of everything.
        progress: called with (trials done, trials).

    Returns:
        Result "circuits.codes", one row per head: score (node, mean over trials), spread (over trials), control (mean of the null), edge,
        paired_norm, codes (distinct ones, mean over trials), true. manifest["identification"]: for each score its average precision
        with interval, spread over trials, chance, mean and p of the null, and ROC-AUC. Arrays: node and edge [trial, head].

    Raises:
        OptionError: numbers out of range, prompts without corruption, or truth that names no heads, or all.
        UnsupportedModelError: what a head writes cannot be told.
    """
    known = true_heads(model, truth, size)
    outputs = head_outputs(model, paired(model, prompts, most=PROMPTS, wrong=False), position)
    options = {"k": k, "trials": trials, "draws": draws}
    found = identify(outputs, known, coder or shared_dictionary(), **options, seed=seed, progress=progress)
    settings = {
        "prompts": len(prompts),
        "position": position,
        **options,
        "truth": {"kind": truth.kind, "size": size} if isinstance(truth, Result) else "heads given",
    }
    result = circuit_result("codes", model, found.table, found.arrays, source=SOURCE, settings=settings, seed=seed)
    return replace(result, manifest={**result.manifest, "identification": found.scores})


@dataclass(frozen=True, kw_only=True, eq=False)
class Identified:
    """What `identify` found; see `code_circuits`.

    Attributes:
        table: one row per head.
        scores: one record per score.
        arrays: node and edge [trial, head].
    """

    table: pd.DataFrame
    scores: list[dict[str, Any]]
    arrays: dict[str, Scores]


def identify(
    outputs: HeadOutputs,
    known: Collection[Head],
    coder: Coder,
    *,
    k: int = 1,
    trials: int = 4,
    draws: int = 200,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Identified:
    """Score the heads of outputs that are there already; arguments and errors as `code_circuits`."""
    if min(k, trials) < 1 or draws < 2:
        raise OptionError(f"wanted k and trials of at least 1 and at least 2 draws; got {k}, {trials}, {draws}")
    random = np.random.default_rng(seed)
    fits: list[tuple[Tensor, NDArray[np.int64]]] = []
    heads: list[Head] = []
    for trial in range(trials):
        heads, features = coder(outputs, int(random.integers(2**31)))
        fits.append(_units(top_codes(features, k)))
        if progress is not None:
            progress(trial + 1, trials)
    node, edge = _over_trials(fits, torch.arange(2 * outputs.pairs), len(heads))
    null = [_over_trials(fits, _swapped(outputs.pairs, random), len(heads)) for _ in range(-(-draws // trials))]
    used = [np.bincount(owner, minlength=len(heads)) for _, owner in fits]
    true = np.array([head in known for head in heads])
    if not 0 < true.sum() < len(true):
        raise OptionError(
            f"{int(true.sum())} of the {len(true)} coded heads are in the circuit; some must be, and some not"
        )
    place = {head: n for n, head in enumerate(outputs.heads)}
    norm = paired_norm(outputs)[[place[head] for head in heads]]
    scores = [
        _judged(name, rows, beside, true, draws, seed)
        for name, rows, beside in (
            ("node", node, [n.mean(0) for n, _ in null]),
            ("edge", edge, [e.mean(0) for _, e in null]),
            ("paired norm", norm[None], []),
        )
    ]
    table = pd.DataFrame(
        {
            "layer": [layer for layer, _ in heads],
            "head": [h for _, h in heads],
            "score": node.mean(0),
            "spread": node.std(0, ddof=1) if trials > 1 else np.nan,
            "control": np.mean([n.mean(0) for n, _ in null], 0),
            "edge": edge.mean(0),
            "paired_norm": norm,
            "codes": np.mean(used, 0),
            "true": true,
        }
    )
    return Identified(table=table, scores=scores, arrays={"node": node, "edge": edge})


def true_heads(model: HookedModel, truth: Result | Sequence[Head], size: int) -> set[Head]:
    """The heads that count as the circuit (see `code_circuits`).

    Raises:
        OptionError: none, or a result without that many heads.
        EditError: heads that the model does not have.
    """
    if not isinstance(truth, Result):
        known = {(int(layer), int(head)) for layer, head in truth}
    else:
        rows: Any = truth.table[truth.table["head"] >= 0]
        if "site" in rows.columns:
            rows = rows[rows["site"] == "z"]
            rows = rows[rows["position"] == rows["position"].iloc[0]] if len(rows) else rows
        if not 1 <= size <= len(rows):
            raise OptionError(f"truth: wanted the {size} strongest heads of a result that has {len(rows)} of site z")
        top = rows.loc[rows["score"].abs().sort_values(ascending=False, kind="stable").index[:size]]
        known = {(int(a), int(b)) for a, b in zip(top["layer"], top["head"], strict=True)}
    if not known:
        raise OptionError("truth: name at least one head of the circuit")
    check_heads("truth", sorted(known), model.layers, model.heads)
    return known


def average_precision(score: Scores, true: NDArray[np.bool_]) -> float:
    """Area under the precision-recall curve as the sum of precision x gain in recall; heads of equal score come in together."""
    from sklearn.metrics import average_precision_score  # takes a second to import

    return float(average_precision_score(true, score))


def _units(codes: Tensor) -> tuple[Tensor, NDArray[np.int64]]:
    """Which (head, code) unit occurs on which example, float32 [2 x pair, unit], and the head that each unit is of."""
    examples, heads, _ = codes.shape
    width = int(codes.max()) + 1
    offset = torch.arange(heads)[None, :, None] * max(width, 1)
    flat = torch.where(codes >= 0, codes + offset, -1).flatten(1)
    numbers, at = flat.unique(return_inverse=True)
    units = torch.zeros(examples, len(numbers)).scatter_(1, at.reshape(examples, -1), 1.0)
    kept = numbers >= 0
    return units[:, kept], (numbers[kept] // max(width, 1)).numpy()


def _swapped(pairs: int, random: np.random.Generator) -> Tensor:
    """An order of the examples in which positive and negative of a random half of the pairs stand in each other's place."""
    swap = torch.from_numpy(random.permuted(np.arange(pairs) < pairs // 2))
    at = torch.arange(pairs)
    return torch.cat([torch.where(swap, at + pairs, at), torch.where(swap, at, at + pairs)])


def _over_trials(fits: Sequence[tuple[Tensor, NDArray[np.int64]]], order: Tensor, heads: int) -> tuple[Scores, Scores]:
    """Node and edge scores of the examples in some order, [trial, head] each."""
    found = [_scored(units[order], owner, heads) for units, owner in fits]
    return np.stack([node for node, _ in found]), np.stack([edge for _, edge in found])


def _scored(units: Tensor, owner: NDArray[np.int64], heads: int) -> tuple[Scores, Scores]:
    """Node and edge score of each head."""
    positive, negative = units.split(len(units) // 2)
    alone = ((positive.sum(0) > 0) & (negative.sum(0) == 0)).double().numpy()
    # Only units of positive examples can make a pair.
    live = (positive.sum(0) > 0).nonzero()[:, 0]
    own = torch.from_numpy(owner)[live]
    p, n = positive[:, live], negative[:, live]
    together = ((p.T @ p > 0) & (n.T @ n == 0) & (own[:, None] != own)).sum(1)
    node = np.bincount(owner, alone, heads).astype(np.float64)
    return node, np.bincount(own.numpy(), together.double().numpy(), heads).astype(np.float64)


def _judged(
    name: str, trials: Scores, null: Sequence[Scores], true: NDArray[np.bool_], draws: int, seed: int
) -> dict[str, Any]:
    """Average precision of a score with its interval, its null and chance."""
    from sklearn.metrics import roc_auc_score

    score = trials.mean(0)
    found = average_precision(score, true)
    random = np.random.default_rng([seed, len(name)])
    groups = [np.flatnonzero(true), np.flatnonzero(~true)]
    resampled = []
    for _ in range(draws):
        at = np.concatenate([random.choice(group, size=len(group)) for group in groups])
        resampled.append(average_precision(score[at], true[at]))
    low, high = np.quantile(resampled, [0.025, 0.975])
    by_trial = [average_precision(x, true) for x in trials]
    beside = [average_precision(x, true) for x in null]
    return {
        "score": name,
        "average_precision": found,
        "low": float(low),
        "high": float(high),
        "trials": float(np.mean(by_trial)),
        "trials_spread": float(np.std(by_trial, ddof=1)) if len(by_trial) > 1 else None,
        "null": float(np.mean(beside)) if beside else None,
        "p": (1 + sum(x >= found for x in beside)) / (1 + len(beside)) if beside else None,
        "chance": float(true.mean()),
        "roc_auc": float(roc_auc_score(true, score)),
    }
