"""Previous-token, duplicate-token and induction heads on real text, where equal tokens say who should look where.

With x_i the token of row i, and the targets of TransformerLens's `detect_head` (its 0/1 pattern D):

    previous    A[i, i - 1]                                      rows i >= 1
    duplicate   sum of A[i, j] over j < i with x_j = x_i         all earlier copies
    induction   sum of A[i, j] over j <= i with x_{j-1} = x_i    all tokens that followed an earlier copy (j = i where x_{i-1} = x_i)

The score is the mean over the rows that have such a target (1 is a head that looks nowhere else); rows without one say nothing. The first
token is an attention sink in most models, so for duplicates it is no target and a row whose only earlier copy it is does not count (for
induction it never is one). `mul` and `abs` are the two values of `detect_head`, over all N rows, the first token a target as any other:

    mul   sum(A D) / sum(A)                 sum(A) = N, so that rows without a target dilute it
    abs   1 - sum |A - D| / N               = (2 sum(A D) - number of ones in D) / N, in (-1, 1]

Control: the same targets dealt to the wrong rows (the row tokens of a text permuted), in the same pass; it keeps how often tokens occur
and where, and breaks only that the row itself has the token. For previous it is the mass two tokens back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.capture.call import Attended, AttentionCall, Collect
from interp.errors import OptionError
from interp.heads.positional import TOKENS_PER_PASS, Kind
from interp.heads.tables import head_table, mean_of, named
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.corpus import corpus
from interp.tasks.prompt import generator
from interp.tasks.sequences import first_tokens, sequences

OFFSETS = (0, 1, 2)
MATCHES: Final[tuple[str, ...]] = ("duplicate", "first", "induction", "duplicate control", "induction control")


def positional_text(
    model: HookedModel,
    kinds: Sequence[Kind] = get_args(Kind),
    *,
    texts: Sequence[str] | None = None,
    tokens: int = 512,
    samples: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Kind, Result]:
    """Measure the three kinds of heads on pieces of real text; see the module for formulas, rows and control.

    Args:
        model: a decoder with a tokenizer.
        kinds: of "previous", "duplicate", "induction".
        texts: None takes the held-out documents of the project's corpus.
        tokens: length of a piece, BOS included where the tokenizer adds one.
        samples: pieces, cut at random places.
        seed: of the places and the control.
        progress: called with (pieces done, pieces).

    Returns:
        Result by kind, "heads.previous_token", "heads.duplicate_token", "heads.induction": score in [0, 1], spread (standard deviation over
        pieces), control, mul, abs. Arrays: score [sample, layer, head], NaN for a piece without a row that counts.

    Raises:
        OptionError: an unknown kind, fewer than two samples, or pieces of fewer than three tokens.
        InputDataError: no text is long enough.
    """
    for kind in kinds:
        named("kinds", kind, get_args(Kind))
    if samples < 2 or tokens < 3:
        raise OptionError(f"wanted samples >= 2 and tokens >= 3, got {samples} and {tokens}")
    texts = [d.text for d in corpus("held_out")] if texts is None else texts
    pieces = sequences(model, "natural", texts=texts, tokens=tokens, count=samples, seed=seed)
    batch = max(1, TOKENS_PER_PASS // tokens)
    found: list[dict[str, NDArray[np.float64]]] = []
    for first in range(0, samples, batch):
        some = torch.tensor(pieces[first : first + batch], device=model.device)
        deals = [generator(seed, first + k).permutation(tokens) for k in range(len(some))]
        found += _measure(model, some, torch.as_tensor(np.stack(deals), device=model.device))
        if progress is not None:
            progress(min(first + batch, samples), samples)
    manifest = model.manifest() | {
        "source": "TransformerLens detect_head; Olsson et al. 2022 (arXiv 2209.11895); IOI (arXiv 2211.00593)",
        "settings": {
            "form": "text",
            "tokens": tokens,
            "samples": samples,
            "bos": bool(first_tokens(model)),
            "rows": "those with a target; the first token is no target of duplicate",
        },
        "seed": seed,
    }
    return {kind: _result(kind, found, manifest) for kind in dict.fromkeys(kinds)}


def _measure(model: HookedModel, ids: Tensor, deals: Tensor) -> list[dict[str, NDArray[np.float64]]]:
    """Every quantity of a batch of pieces [text, token]: one dictionary of [layer, head] per text."""
    dealt = ids.gather(1, deals)
    nothing = torch.full_like(ids, -1)
    before = nothing.clone()
    before[:, 1:] = ids[:, :-1]
    first, others = nothing.clone(), ids.clone()
    first[:, 0], others[:, 0] = ids[:, 0], -1
    match = (
        torch.stack([ids, ids, ids, dealt, dealt], dim=1),
        torch.stack([others, first, before, others, before], dim=1),
    )
    layers: dict[int, tuple[Tensor, Tensor]] = {}

    def take(call: AttentionCall, attended: Attended) -> None:
        layers[call.site.layer] = (attended.stats["match"], attended.stats["offsets"])

    with torch.no_grad():
        model.probe(ids, take, collect=lambda call: Collect(match=match, offsets=OFFSETS))
    order = sorted(layers)
    # [text, layer, head, row, quantity]
    matched = torch.stack([layers[n][0] for n in order], dim=1).double().cpu().numpy()
    offset = torch.stack([layers[n][1] for n in order], dim=1).double().cpu().numpy()
    rows = [piece.cpu().numpy() for piece in ids]
    return [_quantities(matched[k], offset[k], rows[k], dealt[k].cpu().numpy()) for k in range(len(rows))]


def _quantities(
    matched: NDArray[np.float64], offset: NDArray[np.float64], ids: NDArray[np.int64], dealt: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Scores, controls, mul and abs of one text, by kind: [layer, head] each."""
    mass: dict[str, NDArray[np.float64]] = dict(zip(MATCHES, np.moveaxis(matched, -1, 0), strict=True))
    itself, previous, second = np.moveaxis(offset, -1, 0)
    n = len(ids)
    found = {
        "previous": previous[..., 1:].mean(-1),
        "previous control": second[..., 2:].mean(-1),
    }
    # the row's own place is a match of the first two, not of the dealt ones unless the deal gave the row its own token
    own = dealt == ids
    duplicate = {"": mass["duplicate"] - np.where(np.arange(n) > 0, itself, 0.0)}
    duplicate[" control"] = mass["duplicate control"] - np.where(own & (np.arange(n) > 0), itself, 0.0)
    for name, row_ids in (("", ids), (" control", dealt)):
        found[f"duplicate{name}"] = _mean(duplicate[name], _copies(ids, row_ids, from_key=1) > 0)
        found[f"induction{name}"] = _mean(mass[f"induction{name}"], _followers(ids, row_ids) > 0)
    at_first = mass["first"].copy()
    at_first[..., 0] -= itself[..., 0]
    totals = {
        "previous": (previous.sum(-1), n - 1),
        "duplicate": ((duplicate[""] + at_first).sum(-1), _copies(ids, ids, from_key=0).sum()),
        "induction": (mass["induction"].sum(-1), _followers(ids, ids).sum()),
    }
    for kind, (total, ones) in totals.items():
        found[f"{kind} mul"] = total / n
        found[f"{kind} abs"] = (2 * total - ones) / n
    return found


def _copies(ids: NDArray[np.int64], row_ids: NDArray[np.int64], *, from_key: int) -> NDArray[np.int64]:
    """How many keys j with from_key <= j < i carry the token that row i looks for: [row]."""
    seen: dict[int, int] = {}
    counts = []
    for i, (key, row) in enumerate(zip(ids.tolist(), row_ids.tolist(), strict=True)):
        counts.append(seen.get(row, 0))
        if i >= from_key:
            seen[key] = seen.get(key, 0) + 1
    return np.array(counts)


def _followers(ids: NDArray[np.int64], row_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many keys j with 1 <= j <= i follow the token that row i looks for: [row]; as many as that token has places before i."""
    return _copies(ids, row_ids, from_key=0)


def _mean(values: NDArray[np.float64], rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over the rows that count, NaN without any: [layer, head]."""
    return values[..., rows].mean(-1) if rows.any() else np.full(values.shape[:-1], np.nan)


def _result(kind: Kind, found: Sequence[dict[str, NDArray[np.float64]]], manifest: dict[str, object]) -> Result:
    score = np.stack([x[kind] for x in found])
    name = kind if kind == "induction" else f"{kind}_token"
    table = head_table(
        score,
        control=mean_of([x[f"{kind} control"] for x in found]),
        extra={part: np.mean([x[f"{kind} {part}"] for x in found], axis=0) for part in ("mul", "abs")},
    )
    return Result(
        kind=f"heads.{name}",
        table=table,
        manifest={**manifest, "method": name},
        arrays={"score": score.astype(np.float32)},
    )
