"""Query-focused retrieval heads: heads that look from a question at the document that answers it (QRHead, arXiv 2506.09944).

For head h, a prompt of several documents and a question q about one of them, with A the attention of a set of query rows:

    paper   score(d) = mean over the question's tokens i of sum_{j in d} A[i, j], in [0, 1]
    code    t(j) = mean over rows i of A[i, j], minus the same with "N/A" for a question; score(d) = sum of t(j) over the tokens of d that
            are above mean - 2 standard deviations of d's tokens. The rows are all behind the documents: instruction, question and what
            opens the answer                                                                            (released code, `score_docs`)

QRScore(h) = mean over samples of the score of the gold document. "N/A" takes away what a head gives to a document whatever is asked
(sinks, first tokens of lines). The paper takes the 16 heads with the largest score, found on 128 questions of BEIR-NQ or 70 of LongMemEval;
both sets have 3 heads in common there, and 1 of 16 each with copy-score retrieval heads: a retrieval head is defined by its task.
The task here is synthetic: a needle in one of several pieces of the corpus (`interp.tasks.documents`).

Column sums over the query rows, in one pass and one sweep for each of the two questions: O(N) memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from interp.capture.call import Attended, AttentionCall
from interp.capture.sweep import column_sums
from interp.errors import InputDataError, OptionError
from interp.heads.tables import head_table, named
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks import documents
from interp.tasks.prompt import Prompt, Span

Form = Literal["paper", "code"]
NULL_QUERY = "N/A"
"""Asked for calibration (released code)."""
DROP_BELOW = 2.0
"""Tokens so many standard deviations below their document's mean are left out (released code)."""
HEADS = 16
"""How many heads the paper calls QRHeads (of 1,024 in Llama-3.1-8B)."""


def qrhead(
    model: HookedModel,
    prompts: tuple[Sequence[Prompt], Sequence[Prompt]] | None = None,
    *,
    form: Form = "code",
    samples: int = 16,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Score every head by how much it looks from a question at the document that answers it.

    Args:
        model: a decoder with a tokenizer.
        prompts: (with the question, with the null query in its place), pairwise the same up to there, as
            `interp.tasks.documents.prompts(...)` and the same with ask="N/A" give; None makes these with 5 documents of 128 tokens.
        form: see the module.
        samples: prompts to make, if none are given.
        seed: of these prompts.
        progress: called with (samples done, samples).

    Returns:
        Result "heads.qrhead": score, QRScore; spread, standard deviation over samples; control, the mean score of the other documents of the
        same prompts; null, attention on the gold document under the null query, and raw, under the question, both before tokens are left
        out; first, share of samples in which the gold document has the largest score (chance: one in the number of documents). Arrays:
        score, control, raw, null and first [sample, layer, head].

    Raises:
        OptionError: an unknown form, fewer than two samples, or prompts longer than the model reads.
        InputDataError: no tokenizer, or prompts that lack documents, rows or a matching null prompt.
    """
    named("form", form, get_args(Form))
    if model.tokenizer is None:
        raise InputDataError("prompts are text, and this model came without a tokenizer")
    if prompts is None:
        asked = documents.prompts(model.tokenizer, samples=samples, seed=seed)
        nothing = documents.prompts(model.tokenizer, samples=samples, seed=seed, ask=NULL_QUERY)
    else:
        asked, nothing = (list(x) for x in prompts)
    _check(model, asked, nothing)
    rows = "question" if form == "paper" else "tail"
    found: list[dict[str, NDArray[np.float64]]] = []
    for done, (prompt, empty) in enumerate(zip(asked, nothing, strict=True), 1):
        places = _places(prompt)
        given, null = (mean_row(model, x, x.rows[rows]) for x in (prompt, empty))
        found.append(_sample(given, null, places, list(places).index(prompt.meta["gold"]), form))
        if progress is not None:
            progress(done, len(asked))
    arrays = {name: np.stack([one[name] for one in found]) for name in found[0]}
    manifest = model.manifest() | {
        "method": "qrhead",
        "source": "QRHead (arXiv 2506.09944), " + ("the paper's definition" if form == "paper" else "released code"),
        "task": sorted({str(p.meta.get("task", "own prompts")) for p in asked}),
        "settings": {
            "form": form,
            "rows": rows,
            "samples": len(asked),
            "documents": len(_places(asked[0])),
            "longest": max(len(p.ids) for p in asked),
            "null_query": nothing[0].meta.get("question"),
        },
        "seed": seed,
    }
    extra = {name: arrays[name].mean(0) for name in ("raw", "null", "first")}
    table = head_table(arrays["score"], control=arrays["control"].mean(0), extra=extra)
    return Result(kind="heads.qrhead", table=table, manifest=manifest, arrays=arrays)


def mean_row(model: HookedModel, prompt: Prompt, rows: Sequence[int]) -> NDArray[np.float64]:
    """Mean attention of some rows of a prompt on each key: [layer, head, key]."""
    chosen = torch.zeros(1, len(prompt.ids), dtype=torch.bool, device=model.device)
    chosen[0, list(rows)] = True
    layers: dict[int, NDArray[np.float64]] = {}

    def take(call: AttentionCall, attended: Attended) -> None:
        received = column_sums(call, attended, rows=chosen)["received"]
        layers[call.site.layer] = received[0, :, 0].double().cpu().numpy() / len(rows)

    with torch.no_grad():
        model.probe(list(prompt.ids), take)
    return np.stack([layers[n] for n in sorted(layers)])


def calibrated(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Score of a document from the calibrated attention of its tokens, [..., token]: the sum of those above mean - 2 standard deviations.

    The standard deviation is that of n - 1, as in the released code; a document of one token keeps it.
    """
    mean = difference.mean(-1, keepdims=True)
    if difference.shape[-1] < 2:
        return difference.sum(-1)
    floor = mean - DROP_BELOW * difference.std(-1, ddof=1, keepdims=True)
    # without spread nothing is abnormal, and the floor is the mean itself
    return np.where((difference > floor) | (floor == mean), difference, 0.0).sum(-1)


def _sample(
    given: NDArray[np.float64], null: NDArray[np.float64], places: dict[str, Span], gold: int, form: Form
) -> dict[str, NDArray[np.float64]]:
    """Everything about one sample: [layer, head] each."""
    raw, nothing = (np.stack([x[..., slice(*place)].sum(-1) for place in places.values()]) for x in (given, null))
    scores = raw
    if form == "code":
        scores = np.stack(
            [calibrated(given[..., slice(*place)] - null[..., slice(*place)]) for place in places.values()]
        )
    others = np.delete(scores, gold, axis=0)
    return {
        "score": scores[gold],
        "control": others.mean(0),
        "raw": raw[gold],
        "null": nothing[gold],
        "first": (scores[gold] > others.max(0)).astype(np.float64),
    }


def _places(prompt: Prompt) -> dict[str, Span]:
    """The documents of a prompt, in order."""
    return {name: place for name, place in prompt.key_sets.items() if name.startswith("document")}


def _check(model: HookedModel, asked: Sequence[Prompt], nothing: Sequence[Prompt]) -> None:
    """Refuse prompts that cannot be scored."""
    if len(asked) != len(nothing) or len(asked) < 2:
        raise OptionError(
            f"wanted at least two prompts and as many with the null query, got {len(asked)} and {len(nothing)}"
        )
    for prompt, empty in zip(asked, nothing, strict=True):
        places = _places(prompt)
        if len(places) < 2 or prompt.meta.get("gold") not in places:
            raise InputDataError(
                'a prompt wants at least two key sets "document1", "document2" ... and meta "gold", the name of the one that answers; got '
                f"{', '.join(places) or 'none'} and {prompt.meta.get('gold')!r}"
            )
        if not {"question", "tail"} <= prompt.rows.keys() & empty.rows.keys():
            raise InputDataError('a prompt lacks the rows "question" and "tail"')
        end = max(stop for _, stop in places.values())
        if _places(empty) != places or empty.ids[:end] != prompt.ids[:end]:
            raise InputDataError(
                "a prompt and the one with the null query have different documents; give them one seed"
            )
        longest = max(len(prompt.ids), len(empty.ids))
        if model.context_length is not None and longest > model.context_length:
            raise OptionError(
                f"a prompt has {longest} tokens, and the model reads {model.context_length}; give fewer or shorter documents"
            )
