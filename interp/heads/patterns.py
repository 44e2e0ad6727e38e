"""Sparse pattern class of every head: under which mask of the same size does most of its attention survive (MInference, arXiv 2407.02490).

    recall of a mask M = mean over rows i of sum_{j in M} A[i, j]  =  mean_i exp(lse_M(i) - lse(i))

A head's class is the mask with the largest recall (`search_pattern` of the released code), "dense" if even that is below 0.9. The masks
and how they find their keys stand in `interp.heads.pattern_masks`.

How it is had exactly in O(N) memory, for any number of masks in one pass and one sweep more: the attention on a set of columns is a sum of
column sums, on a set of diagonals a sum of diagonal sums, on blocks a sum of block sums; where chosen columns and diagonals cross, the
weights were counted twice and are computed one by one, exp(s_ij - lse_i), and taken off. A sink logit (gpt-oss) takes part in no mask:
shares are of the attention on keys.

What differs from the released code, on purpose. The true winner is kept: their code writes an A-shape winner down as vertical-slash, and a
block-sparse one as vertical-slash (1000, 6096), which is why published files hold no other class. By default a row may keep equally many
keys under every mask, where the published sizes allow 830 to 3,750. That is the most: an A-shape keeps them all, vertical-slash fewer,
because columns chosen at the end of the text lie ahead of earlier rows, or on chosen diagonals (`kept` has the mean number, and the control
goes by it). Their A-shape window has one key more than its size, ours has its size. Their later search (v2) counts outputs that change by
more than 5e-3, so it looks at values too and its scores run into the millions; it needs the output under each mask, which sums of weights
do not give, and is not offered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.capture.call import Attended, AttentionCall
from interp.capture.inputs import TextOrIds
from interp.capture.sweep import ColumnCollect, column_sums, weights_at
from interp.errors import InputDataError, OptionError, UnsupportedModelError
from interp.heads import pattern_masks as masks
from interp.heads.pattern_masks import Candidate, Pattern
from interp.heads.tables import head_table, mean_of, named
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.corpus import corpus
from interp.tasks.sequences import sequences

DENSE_BELOW = 0.9
"""Recall below which no mask will do (a proposal of this project, from no paper)."""
FIRST_ROW = 2500
"""First row that counts, at 30,000 tokens (MInference)."""
TIE = 1e-4
"""A later candidate must be better by more than this: masks that keep everything a head looks at differ by rounding alone."""
SHORT: Final[Mapping[Pattern, str]] = {
    "stream_llm": "a_shape",
    "vertical_and_slash": "vertical_slash",
    "block_sparse": "block_sparse",
}
"""Names of the classes in column names."""


def patterns(
    model: HookedModel,
    texts: TextOrIds | None = None,
    *,
    candidates: Sequence[Candidate] | Literal["equal", "published"] = "equal",
    tokens: int = 2048,
    budget: int | None = None,
    from_row: int | None = None,
    samples: int = 3,
    dense_below: float = DENSE_BELOW,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Find the sparse pattern of every head of a decoder.

    Args:
        model: a decoder.
        texts: one text (MInference's search has one) or several, cut to one length; None takes pieces of the project's held-out corpus.
        candidates: "equal" keeps `budget` keys a row in every mask; "published" takes MInference's sizes, made for 30,000 tokens; or
            masks of your own, the blocks of one size.
        tokens: length of a text.
        budget: keys a row of the equal candidates, a multiple of 32; None takes an eighth of the text, as the published block-sparse mask.
        from_row: first row that counts; None takes the first from which every equal mask leaves keys out (2,500 of 30,000 rows for
            "published"). Rounded up to a whole block where a mask has blocks.
        samples: pieces of the corpus, if `texts` is None.
        dense_below: largest recall of a dense head.
        seed: of the pieces.
        progress: called with (texts done, texts).

    Returns:
        Result "heads.patterns": score, the recall of the best mask (by its mean over texts), in [0, 1]; spread, its standard deviation over
        texts; control, the recall to expect of a random mask that keeps as many keys in each row, mean of kept / seen keys, which is what a
        uniform head scores; pattern, the best mask's class, as MInference's files name it, with its sizes vertical and slash; label, the
        class or "dense"; budget, most keys a row of the mask, and kept, their mean number; recall_a_shape, recall_vertical_slash,
        recall_block_sparse, the best recall in each class (NaN without a candidate). The table is fit for
        `interp.heads.published.write_patterns`. Arrays: recall, control, kept [text, candidate, layer, head], in the manifest's order.

    Raises:
        OptionError: sizes that do not fit each other, the texts or the model.
        InputDataError: no text is long enough, or texts without a tokenizer.
        UnsupportedModelError: attention that sees later tokens.
    """
    pieces = text_pieces(model, texts, tokens=tokens, samples=samples, seed=seed)
    plan = _plan(candidates, len(pieces[0]), budget, from_row)
    found = []
    for done, ids in enumerate(pieces, 1):
        found.append(_measure(model, ids, plan))
        if progress is not None:
            progress(done, len(pieces))
    arrays = {name: np.stack([one[name] for one in found]) for name in ("recall", "control", "kept")}
    settings = {
        "candidates": [[c.pattern, c.vertical, c.slash] for c in plan.candidates],
        "tokens": plan.tokens,
        "texts": len(pieces),
        "from_row": plan.first,
        "index_rows": min(masks.INDEX_ROWS, plan.tokens),
        "forced": plan.forced,
        "dense_below": dense_below,
    }
    manifest = model.manifest() | {
        "method": "patterns",
        "source": "MInference (arXiv 2407.02490), search by attention recall; equal budgets and the true winner are ours",
        "task": "corpus" if texts is None else "own texts",
        "settings": settings,
        "seed": seed,
    }
    table = _table(plan.candidates, arrays, dense_below)
    return Result(kind="heads.patterns", table=table, manifest=manifest, arrays=arrays)


def text_pieces(
    model: HookedModel, texts: TextOrIds | None, *, tokens: int, samples: int, seed: int
) -> list[list[int]]:
    """Token ids of one or more texts, all of one length: the first `tokens` of each, or as many as the shortest has.

    Raises:
        OptionError: fewer than two tokens or one sample, or more tokens than the model reads.
        InputDataError: no text, one of fewer than two tokens, or a corpus without a document of `tokens`.
    """
    if tokens < 2 or samples < 1:
        raise OptionError(f"wanted tokens >= 2 and samples >= 1, got {tokens} and {samples}")
    if texts is None:
        documents = [d.text for d in corpus("held_out")]
        pieces = sequences(model, "natural", texts=documents, tokens=tokens, count=samples, seed=seed)
    elif isinstance(texts, str):
        pieces = [model.encode(texts)]
    else:
        given: list[Any] = texts.tolist() if isinstance(texts, Tensor) else list(texts)
        single = bool(given) and isinstance(given[0], int)
        pieces = [model.encode(x) if isinstance(x, str) else list(x) for x in ([given] if single else given)]
    length = min([tokens, *(len(ids) for ids in pieces)])
    if not pieces or length < 2:
        raise InputDataError("wanted texts of at least two tokens; give longer ones, or None for the project's corpus")
    if model.context_length is not None and length > model.context_length:
        raise OptionError(f"texts of {length} tokens, and the model reads {model.context_length}; give tokens= fewer")
    return [ids[:length] for ids in pieces]


def reach_of(call: AttentionCall) -> int:
    """How many keys back a row of this call sees, its own included.

    Raises:
        UnsupportedModelError: rows that see later keys.
    """
    if not call.mask.is_causal:
        raise UnsupportedModelError(
            f"layer {call.site.layer} attends to later tokens; sparse patterns are defined for decoders, whose rows see earlier keys only"
        )
    return min(call.mask.window or call.keys, call.keys)


def queries_and_keys(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """Queries and keys of the first text for each query head, float32 [head, token, feature]."""
    return call.q[0].float(), call.k[0].float().repeat_interleave(call.heads // call.k.shape[1], dim=0)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is measured: the masks, on how many tokens, from which row on, with how many forced columns and diagonals, in blocks of what
    size (0: no mask has blocks)."""

    candidates: tuple[Candidate, ...]
    tokens: int
    first: int
    forced: int
    block: int


def _plan(
    candidates: Sequence[Candidate] | Literal["equal", "published"],
    tokens: int,
    budget: int | None,
    from_row: int | None,
) -> _Plan:
    if isinstance(candidates, str):
        named("candidates", candidates, ("equal", "published"))
    if candidates == "equal":
        budget = (
            max(masks.BLOCK, tokens // masks.BLOCK_SHARE // masks.BLOCK * masks.BLOCK) if budget is None else budget
        )
        chosen = masks.equal_candidates(budget)
    elif budget is not None:
        raise OptionError('budget is for candidates="equal"; published candidates and your own have sizes of their own')
    else:
        chosen = masks.published_candidates(tokens) if isinstance(candidates, str) else tuple(candidates)
    if not chosen:
        raise OptionError("candidates is empty; give at least one mask")
    sizes = sorted({c.slash for c in chosen if c.pattern == "block_sparse"})
    if len(sizes) > 1:
        raise OptionError(f"block-sparse candidates must have blocks of one size, got {sizes}")
    block = sizes[0] if sizes else 0
    scale = tokens / masks.PUBLISHED_TOKENS
    if from_row is None:
        from_row = round(FIRST_ROW * scale) if candidates == "published" else max(c.keys for c in chosen)
    first = -(-from_row // block) * block if block else from_row
    if not 0 <= first < tokens:
        raise OptionError(
            f"rows from {first} on count, and the texts have {tokens} tokens; give longer texts, a smaller budget or another from_row"
        )
    forced = max(1, round(masks.FORCED * scale))
    return _Plan(candidates=chosen, tokens=tokens, first=first, forced=forced, block=block)


def _measure(model: HookedModel, ids: list[int], plan: _Plan) -> dict[str, NDArray[np.float64]]:
    """Recall, control and kept keys of every mask on one text: [candidate, layer, head] each."""
    layers: dict[int, NDArray[np.float64]] = {}

    def take(call: AttentionCall, attended: Attended) -> None:
        layers[call.site.layer] = _layer(call, attended, plan).cpu().numpy()

    with torch.no_grad():
        model.probe(ids, take)
    # [quantity, candidate, layer, head]
    both = np.stack([layers[n] for n in sorted(layers)], axis=2)
    return dict(zip(("recall", "control", "kept"), both, strict=True))


def _layer(call: AttentionCall, attended: Attended, plan: _Plan) -> Tensor:
    """Recall, control and kept keys of every mask in one layer: float64 [3, candidate, head]."""
    n, first, reach = plan.tokens, plan.first, reach_of(call)
    rows = torch.zeros(2, n, dtype=torch.bool, device=call.q.device)
    rows[0, first:] = True
    rows[1, -masks.INDEX_ROWS :] = True
    swept = column_sums(
        call, attended, rows=rows, collect=ColumnCollect(received=True, diagonals=True, block=plan.block)
    )
    # diagonals are numbered from the last key of the first row: distance 0 is number n - 1
    columns, diagonals = swept["received"][0].double(), swept["diagonals"][0, :, :, n - 1 :].double()
    total = columns[:, 0].sum(-1)
    seen = torch.arange(1, n + 1, device=rows.device).clamp(max=reach)[first:]
    products = masks.block_products(*queries_and_keys(call), plan.block, reach) if plan.block else None
    found = []
    for candidate in plan.candidates:
        if candidate.pattern == "block_sparse" and products is not None:
            kept = masks.strongest_blocks(products, candidate.vertical)
            blocks = swept["block_sum"][0, :, first // plan.block :].double()
            mass = (blocks * kept[:, first // plan.block :]).sum((-2, -1))
            keys = masks.keys_in_blocks(kept, plan.block, n, reach)
        else:
            mass, keys = _lines(call, attended, plan, candidate, columns, diagonals)
        keys = keys[:, first:].double()
        found.append(torch.stack([mass / total, (keys / seen).mean(-1), keys.mean(-1)]))
    return torch.stack(found, dim=1)


def _lines(
    call: AttentionCall, attended: Attended, plan: _Plan, candidate: Candidate, columns: Tensor, diagonals: Tensor
) -> tuple[Tensor, Tensor]:
    """Attention on chosen columns and diagonals [head], and the keys that each row keeps [head, row].

    `columns` and `diagonals` are sums [head, subset, place]: over the rows that count, and over those that choose.
    """
    n, reach = plan.tokens, reach_of(call)
    if candidate.pattern == "stream_llm":
        every = torch.arange(n, device=call.q.device).expand(call.heads, -1)
        vertical, slash = every[:, : candidate.vertical], every[:, : candidate.slash]
    else:
        vertical = masks.strongest(columns[:, 1], candidate.vertical, plan.forced)
        slash = masks.strongest(diagonals[:, 1], candidate.slash, plan.forced)
    mass = columns[:, 0].gather(1, vertical).sum(1) + diagonals[:, 0].gather(1, slash).sum(1)
    keys = []
    for head in range(call.heads):
        i, j = masks.crossings(vertical[head], slash[head], 0, n, reach)
        counted = i >= plan.first
        mass[head] -= weights_at(call, attended, i[counted], j[counted], head=head).double().sum()
        keys.append(masks.keys_on_lines(vertical[head], slash[head], i, n, reach))
    return mass, torch.stack(keys)


def _table(
    candidates: Sequence[Candidate], arrays: Mapping[str, NDArray[np.float64]], dense_below: float
) -> pd.DataFrame:
    """The table: every head with its best mask."""
    mean = mean_of(arrays["recall"])
    best = np.zeros(mean.shape[1:], dtype=np.int64)
    for number in range(1, len(candidates)):
        better = mean[number] > np.take_along_axis(mean, best[None], 0)[0] + TIE
        best[better] = number
    by_text = {name: np.take_along_axis(x, best[None, None], 1)[:, 0] for name, x in arrays.items()}
    score = mean_of(by_text["recall"])
    pattern = np.array([c.pattern for c in candidates])
    extra: dict[str, NDArray[Any]] = {
        "pattern": pattern[best],
        "label": np.where(score < dense_below, "dense", pattern[best]),
        "vertical": np.array([c.vertical for c in candidates])[best],
        "slash": np.array([c.slash for c in candidates])[best],
        "budget": np.array([c.keys for c in candidates])[best],
        "kept": mean_of(by_text["kept"]),
    }
    for name, short in SHORT.items():
        same = mean[pattern == name]
        extra[f"recall_{short}"] = same.max(0) if len(same) else np.full(best.shape, np.nan)
    return head_table(by_text["recall"], control=mean_of(by_text["control"]), extra=extra)
