"""Successor heads: does a head's OV circuit send an ordinal word to the next one ("Monday" to "Tuesday")? From the weights alone.

    logits_h(s) = e(s) W_V W_O W_U        factored, [words, d] -> [words, value] -> [words, words]; no d x d matrix, no vocabulary
    score_h     = share of the pairs (s, t) of all tasks for which t has the strictly largest logit among the task's tokens

Gould et al. 2023, "Successor Heads" (arXiv 2312.09230), equation of section 2, micro-averaged over tasks. Differences that the literature
leaves open are options or columns: the effective embedding e(s) and the norms (all eight combinations are columns), the candidates (every
word of the task, or only those that follow one). Known faults of the released replication are not repeated: ties are no success (they are
common in bfloat16), no roman numeral stands twice, and MLP0 has its norm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import InputDataError, OptionError
from interp.heads.direct_path import DirectPath, Norms
from interp.heads.parts import Embedding
from interp.heads.tables import head_table, named
from interp.heads.weights import read_weights
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import generator
from interp.tasks.succession import Chain, chains

Candidates = Literal["words", "targets"]
TASK_ABOVE = 0.5
"""Score of a task that counts towards the label (heads.md section 14: at least three tasks above 0.5)."""
SHUFFLES = 20
"""Random pairings of words and successors that the control averages over."""


def successor(
    model: HookedModel,
    *,
    embedding: Embedding = "mlp",
    norms: Norms = "model",
    candidates: Candidates = "words",
    lists: Sequence[Chain] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Score every head of a decoder by how often its OV circuit maps an ordinal word to its successor.

    Args:
        model: a decoder with a tokenizer.
        embedding: the variant of e(s) that `score` is taken with, see `interp.heads.parts`; "mlp" is the paper's.
        norms: as `interp.heads.direct_path` says, for `score`.
        candidates: "words", all single-token words of the list, or "targets", those that follow another.
        lists: ordered lists as tokens; None takes `interp.tasks.succession.chains`, all tasks in all ways of writing.
        seed: of the control.
        progress: called with (layers done, layers).

    Returns:
        Result "heads.successor", score in [0, 1]: pairs of all tasks together. Columns: spread, the standard deviation over tasks of the
        score per task; control, the score when the successors of each list are dealt out at random (mean of 20 deals); itself, the share of
        words that the head sends to themselves (copying heads); tasks_above, number of tasks that score above 0.5; TASK, the score of each
        task; EMBEDDING/NORMS, the score of each variant. Arrays: correct, uint8 [pair, layer, head], and pair_task [pair], in the
        order of the manifest's lists.

    Raises:
        OptionError: an unknown option.
        InputDataError: no tokenizer, or no list with two single-token words in a row.
        UnsupportedModelError: a model whose weights cannot be read per head.
    """
    named("embedding", embedding, get_args(Embedding))
    named("norms", norms, get_args(Norms))
    named("candidates", candidates, get_args(Candidates))
    lists = _lists(model) if lists is None else list(lists)
    if not lists:
        raise OptionError("lists is empty; give at least one Chain, or None for those of the tokenizer")
    weights = read_weights(model)
    ids = tokens_of(lists)
    streams = torch.stack([weights.effective_embedding(ids, e) for e in get_args(Embedding)])
    measured: dict[str, Predictions] = {}
    for done, n in enumerate(get_args(Norms)):

        def say(layer: int, before: int = done * model.layers) -> None:
            if progress is not None:
                progress(before + layer, len(get_args(Norms)) * model.layers)

        found = predict(DirectPath(weights, n), lists, streams, candidates=candidates, say=say)
        measured |= {f"{e}/{n}": x for e, x in zip(get_args(Embedding), found, strict=True)}
    chosen = measured[f"{embedding}/{norms}"]
    correct = chosen.correct
    tasks = list(dict.fromkeys(chain.task for chain in lists))
    owner = np.concatenate([np.full(len(chain.pairs), tasks.index(chain.task)) for chain in lists])
    per_task = np.stack([correct[owner == k].mean(0) for k in range(len(tasks))])
    table = head_table(
        per_task,
        control=chosen.shuffled(seed),
        extra={
            "itself": chosen.itself.mean(0),
            "tasks_above": (per_task > TASK_ABOVE).sum(0),
            **dict(zip(tasks, per_task, strict=True)),
            **{name: x.correct.mean(0) for name, x in measured.items()},
        },
    ).assign(score=correct.mean(0).reshape(-1))
    manifest = model.manifest() | {
        "method": "successor",
        "source": "Gould et al. 2023 (arXiv 2312.09230)",
        "settings": {
            "embedding": embedding,
            "norms": norms,
            "candidates": candidates,
            "shuffles": SHUFFLES,
            "layout": weights.layout.name,
            "parallel": weights.parallel,
        },
        "seed": seed,
        "lists": [{"task": c.task, "case": c.case, "words": len(c.tokens), "pairs": len(c.pairs)} for c in lists],
    }
    arrays = {"correct": correct.astype(np.uint8), "pair_task": owner}
    return Result(kind="heads.successor", table=table, manifest=manifest, arrays=arrays)


class Predictions:
    """Where every head sends every word of some lists.

    Attributes:
        correct: bool [pair, layer, head], whether the successor has the strictly largest logit.
        itself: bool [pair, layer, head], whether the word itself has.
    """

    def __init__(self, winners: Sequence[NDArray[np.int64]], lists: Sequence[Chain]) -> None:
        self._winners = winners
        self._lists = lists
        self.correct = self._share([[t for _, t in chain.pairs] for chain in lists])
        self.itself = self._share([[s for s, _ in chain.pairs] for chain in lists])

    def shuffled(self, seed: int) -> NDArray[np.float64]:
        """The score when the successors of each list are dealt out at random: [layer, head], mean of `SHUFFLES` deals."""
        deals = []
        for deal in range(SHUFFLES):
            draw = generator(seed, deal)
            wanted = [draw.permutation([t for _, t in chain.pairs]).tolist() for chain in self._lists]
            deals.append(self._share(wanted).mean(0))
        return np.mean(deals, axis=0)

    def _share(self, wanted: Sequence[Sequence[int]]) -> NDArray[np.bool_]:
        return np.concatenate([w == np.array(ids)[:, None, None] for w, ids in zip(self._winners, wanted, strict=True)])


@torch.no_grad()
def predict(
    path: DirectPath,
    lists: Sequence[Chain],
    streams: Tensor,
    *,
    candidates: Candidates = "words",
    say: Callable[[int], None] = lambda layer: None,
) -> list[Predictions]:
    """The candidate that each head's direct path raises most, for the first word of every pair, under several readings of the words.

    Args:
        path: direct paths of the model's heads.
        lists: ordered lists.
        streams: e(s) of the tokens `tokens_of(lists)`, in that order, for each reading: [reading, token, d].
        candidates: see `successor`.
        say: called with the number of layers done.

    Returns:
        One `Predictions` per reading.
    """
    ids = tokens_of(lists)
    place = {token: k for k, token in enumerate(ids)}
    directions = path.unembedding(torch.tensor(ids, device=streams.device))
    winners: list[list[NDArray[np.int64]]] = [[] for _ in lists]
    for layer in range(len(path.weights.blocks)):
        # [reading, head, token, value] and [head, value, token]
        values = path.values(layer, streams.flatten(0, 1)).unflatten(1, streams.shape[:2]).transpose(0, 1)
        readout = path.outputs(layer) @ directions.T
        for k, chain in enumerate(lists):
            options = _candidates(chain, candidates)
            rows, columns = [place[s] for s, _ in chain.pairs], [place[t] for t in options]
            winners[k].append(_winners(values[:, :, rows] @ readout[..., columns], np.array(options)))
        say(layer + 1)
    # per list [reading, pair, layer, head]
    stacked = [np.stack(x).transpose(1, 3, 0, 2) for x in winners]
    return [Predictions([w[reading] for w in stacked], lists) for reading in range(len(streams))]


def tokens_of(lists: Sequence[Chain]) -> list[int]:
    """The distinct tokens of some lists, in order."""
    return list(dict.fromkeys(token for chain in lists for token in chain.tokens.values()))


def _lists(model: HookedModel) -> list[Chain]:
    if model.tokenizer is None:
        raise InputDataError(
            "successor heads are scored on words, and this model came without a tokenizer; give lists="
        )
    return chains(model.tokenizer)


def _candidates(chain: Chain, candidates: Candidates) -> list[int]:
    targets = {t for _, t in chain.pairs}
    return [token for token in chain.tokens.values() if candidates == "words" or token in targets]


def _winners(logits: Tensor, options: NDArray[np.int64]) -> NDArray[np.int64]:
    """Token with the strictly largest logit, -1 at a tie: logits [reading, head, word, option] -> [reading, head, word]."""
    if len(options) == 1:
        return np.full(logits.shape[:-1], options[0])
    best = logits.topk(2, dim=-1)
    tied = best.values[..., 0] == best.values[..., 1]
    return np.where(tied.cpu().numpy(), -1, options[best.indices[..., 0].cpu().numpy()])
