"""`SuccessorScores`: scores of successor heads, and where each sends every word of the lists: what SuccessorTable shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from interp.errors import OptionError
from interp.heads.direct_path import DirectPath
from interp.heads.successor import tokens_of
from interp.heads.weights import read_weights
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.ordinals import ORDINALS
from interp.tasks.succession import CASES, Chain, chains
from interp.widgets.views.protocol import Reply, answer, readable, whole

FIXED: Final = ("score", "control", "spread", "itself", "tasks_above")
"""Columns that stand before those of the tasks."""
Ranks = Callable[[int, int], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class WordList:
    """One ordered list in one way of writing.

    Attributes:
        task: name of the list.
        case: the way of writing.
        count: pairs of neighbours in it that were scored.
        pairs: (word, successor) as written; empty where the result does not say which words were scored.
    """

    task: str
    case: str
    count: int
    pairs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class SuccessorScores:
    """Scores of every head.

    Attributes:
        table: of `interp.heads.successor`, in the order of (layer, head).
        columns: names of the table's columns that are shown.
        lists: the word lists, in the order of `correct`.
        correct: bool [pair, head], heads in the order of the table.
        ranks: of (layer, head): the rank of each pair's successor among the list's words, 1 is first, int64 [pair]; None without a model.

    Raises:
        OptionError: pairs and lists that do not fit each other.
    """

    table: pd.DataFrame
    columns: tuple[str, ...]
    lists: tuple[WordList, ...]
    correct: NDArray[np.bool_]
    ranks: Ranks | None

    def __post_init__(self) -> None:
        """Check the lengths."""
        if self.correct.shape != (sum(x.count for x in self.lists), len(self.table)):
            raise OptionError("pairs, lists and heads of this result do not fit each other; measure it again")

    def examples(self, layer: int, head: int) -> NDArray[np.int64]:
        """The rank of each pair's successor under a head: 1 is first, 0 is not first where no model tells the rank; int64 [pair].

        Raises:
            OptionError: no such head.
        """
        rows = np.flatnonzero((self.table["layer"] == layer) & (self.table["head"] == head))
        if not len(rows):
            raise OptionError(f"there is no head {layer}.{head} in this result")
        if self.ranks is not None:
            return self.ranks(layer, head)
        return self.correct[:, rows[0]].astype(np.int64)


class PathRanks:
    """Ranks of successors under the direct path of any head, from the weights: one layer's readout per call.

    Args:
        model: the model that was scored.
        lists: ordered lists as tokens.
        settings: of the result: embedding, norms and candidates.
    """

    def __init__(self, model: HookedModel, lists: Sequence[Chain], settings: Mapping[str, Any]) -> None:
        weights = read_weights(model)
        ids = tokens_of(lists)
        self._lists, self._place = lists, {token: k for k, token in enumerate(ids)}
        self._path = DirectPath(weights, settings["norms"])
        self._streams = weights.effective_embedding(ids, settings["embedding"])
        self._directions = self._path.unembedding(torch.tensor(ids, device=self._streams.device))
        self._words = settings["candidates"] == "words"

    def __call__(self, layer: int, head: int) -> NDArray[np.int64]:
        """The rank of each pair's successor; words with the same logit stand before it, so that a tie is no success."""
        with torch.no_grad():
            values, readout = (
                self._path.values(layer, self._streams)[head],
                self._path.outputs(layer)[head] @ self._directions.T,
            )
            logits = (values @ readout).cpu().numpy()
        found = []
        for chain in self._lists:
            targets = {t for _, t in chain.pairs}
            options = [self._place[t] for t in chain.tokens.values() if self._words or t in targets]
            for s, t in chain.pairs:
                row = logits[self._place[s]]
                found.append(int((row[options] >= row[self._place[t]]).sum()))
        return np.asarray(found, np.int64)


def successor_scores(
    result: Result, *, model: HookedModel | None = None, lists: Sequence[Chain] | None = None
) -> SuccessorScores:
    """Read a result of `interp.heads.successor`.

    Args:
        result: it.
        model: the model that was scored, for ranks; without it a pair is first or not.
        lists: the lists that were scored, where they were not the default ones.

    Raises:
        OptionError: not such a result, or a model or lists other than those that were scored.
    """
    if "lists" not in result.manifest or "correct" not in result.arrays:
        raise OptionError(f"wanted a result of interp.heads.successor with its pairs, got one of {result.kind}")
    recorded = result.manifest["lists"]
    order = np.lexsort((result.table["head"], result.table["layer"]))
    given = chains(model.tokenizer) if lists is None and model is not None and model.tokenizer is not None else lists
    if given is None:
        named = [_recalled(x) for x in recorded]
    else:
        named = [_of_chain(x) for x in given]
        if [(x.task, x.case, x.count) for x in named] != [(x["task"], x["case"], x["pairs"]) for x in recorded]:
            raise OptionError(
                "these are not the lists that were scored: give the model of this result, and lists= where it had its own"
            )
    tasks = list(dict.fromkeys(x.task for x in named))
    correct = result.arrays["correct"]
    return SuccessorScores(
        table=result.table.iloc[order].reset_index(drop=True),
        columns=tuple(c for c in (*FIXED, *tasks) if c in result.table.columns),
        lists=tuple(named),
        correct=correct.reshape(len(correct), -1)[:, order].astype(bool),
        ranks=None if model is None or given is None else PathRanks(model, given, result.manifest["settings"]),
    )


def _of_chain(chain: Chain) -> WordList:
    written = {token: readable(word) for word, token in chain.tokens.items()}
    pairs = tuple((written[s], written[t]) for s, t in chain.pairs)
    return WordList(task=chain.task, case=chain.case, count=len(pairs), pairs=pairs)


def _recalled(record: Mapping[str, Any]) -> WordList:
    """A list of a manifest; its words where all of the list were scored, for else only the tokenizer knows which."""
    task, case, count = str(record["task"]), str(record["case"]), int(record["pairs"])
    pairs: tuple[tuple[str, str], ...] = ()
    if task in ORDINALS and case in CASES:
        words = [CASES[case](word) for word in ORDINALS[task].words]
        following = [*words[1:], words[0]] if ORDINALS[task].cyclic else words[1:]
        if record["words"] == len(words) and count == len(following):
            pairs = tuple(zip(words, following, strict=False))
    return WordList(task=task, case=case, count=count, pairs=pairs)


def _scores(source: SuccessorScores, message: Mapping[str, Any]) -> Reply:
    values = source.table[["layer", "head", *source.columns]].to_numpy(np.float64)
    return {}, [np.ascontiguousarray(values.T, "<f4").tobytes()]


def _words(source: SuccessorScores, message: Mapping[str, Any]) -> Reply:
    return {
        "lists": [
            {"task": x.task, "case": x.case, "count": x.count, "pairs": [list(p) for p in x.pairs]}
            for x in source.lists
        ]
    }, []


def _head(source: SuccessorScores, message: Mapping[str, Any]) -> Reply:
    ranks = source.examples(whole(message, "layer", 0, 10_000), whole(message, "head", 0, 10_000))
    return {}, [ranks.astype("<f4").tobytes()]


OPERATIONS = {"scores": _scores, "words": _words, "head": _head}


def serve(source: SuccessorScores, message: object) -> Reply:
    """Answer SuccessorTable's page: `scores` (float32 [2 + column, head]: layer, head, columns), `words` (the lists), ranks of a `head`."""
    return answer(OPERATIONS, source, message)
