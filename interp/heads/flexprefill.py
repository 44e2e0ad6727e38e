"""FlexPrefill's choice for every head: a query-aware block pattern or vertical-slash, and how much of the map it computes (arXiv 2502.20766).

Per head, over the last block of b rows (formulas of the released code, `get_active_blocks`; natural logarithms):

    a_hat   mean attention of these rows, summed over each block of keys                                  (the truth)
    a_bar   softmax over blocks of scale * (mean query of these rows) . (mean key of the block)          (the estimate)
    D = sqrt(JSD(a_bar, a_hat)),  JSD(p, r) = 1/2 sum p ln(p/m) + 1/2 sum r ln(r/m),  m = (p + r)/2;  0 <= D <= sqrt(ln 2) = 0.833

D < tau: the estimate can be trusted, and the head is query-aware; else vertical-slash. Blocks that are computed:

    vertical-slash   the key blocks with the largest column sums, and the block diagonals with the largest diagonal sums. How many: the
                     number of single keys (diagonals) whose sorted means pass gamma, // b + 1, at least `min_budget` tokens; the first key
                     block and the nearest diagonal always
    query-aware      pairs of blocks with the largest causal softmax of mean query . mean key, while their sum stays within gamma * blocks;
                     and the vertical-slash blocks of the least budget

What differs from the released code: p ln p is 0 at p = 0 (theirs gives NaN when a block's share underflows, which compares as "not below tau"
and so makes the head vertical-slash unsaid); the count of keys is divided by the block size (theirs by 128 always); key blocks that no row
sees behind a sliding window are no candidates; the share of computed blocks is of the causal half, n (n + 1) / 2, and theirs, of all n^2
(at most about a half), stands beside it as `computed_all`. Theirs computes everything where a text has no more than two blocks or than the
least budget; give longer texts here. O(N) memory and (N / b)^2 cells a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from interp.capture.call import Attended, AttentionCall
from interp.capture.inputs import TextOrIds
from interp.capture.sweep import ColumnCollect, column_sums
from interp.errors import OptionError
from interp.heads.pattern_masks import block_products, pooled, reachable, strongest
from interp.heads.patterns import queries_and_keys, reach_of, text_pieces
from interp.heads.tables import head_table, mean_of
from interp.models.hooked import HookedModel
from interp.results import Result

BLOCK = 128
"""Tokens of a block (released code)."""
TAU = 0.1
"""D below which a head is query-aware (paper)."""
GAMMA = 0.9
"""Share of attention that the chosen blocks shall cover (paper)."""
MIN_BUDGET = 512
"""Least columns and diagonals, in tokens; the demonstration of the released code has 1,024."""
QUANTITIES = ("score", "control", "query_aware", "vertical", "slash", "computed", "computed_all", "coverage")


def flexprefill(
    model: HookedModel,
    texts: TextOrIds | None = None,
    *,
    tokens: int = 2048,
    block: int = BLOCK,
    tau: float = TAU,
    gamma: float = GAMMA,
    min_budget: int = MIN_BUDGET,
    samples: int = 3,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Measure FlexPrefill's divergence D, its choice of pattern and the blocks it computes, for every head of a decoder.

    Args:
        model: a decoder.
        texts: one text or several, cut to one length, a whole number of blocks; None takes pieces of the project's held-out corpus.
        tokens: length of a text.
        block: b.
        tau: see the module.
        gamma: see the module.
        min_budget: least columns and diagonals of vertical-slash, in tokens, rounded up to blocks.
        samples: pieces of the corpus, if `texts` is None.
        seed: of the pieces.
        progress: called with (texts done, texts).

    Returns:
        Result "heads.flexprefill": score, D (low: the pooled estimate knows where the head looks); spread, standard deviation over texts;
        control, D of an estimate that knows nothing, equal shares for all blocks that are seen; pattern ("query_aware" where the mean D is
        below tau, else "vertical_slash") and query_aware, the share of texts that chose so; vertical and slash, mean number of keys and
        diagonals that reach gamma; computed, share of the causal half's blocks; computed_all, the same of all n^2 (their form); coverage,
        attention of the last rows on the computed blocks. Arrays: each of them [text, layer, head].

    Raises:
        OptionError: sizes that make no sense, fewer than three blocks, or texts that the model cannot read.
        InputDataError: no text is long enough, or texts without a tokenizer.
        UnsupportedModelError: attention that sees later tokens.
    """
    if block < 1 or min_budget < 1 or not 0.0 < gamma < 1.0 or tau < 0.0:
        raise OptionError(
            f"wanted block >= 1, min_budget >= 1, 0 < gamma < 1 and tau >= 0, got {block}, {min_budget}, {gamma} and {tau}"
        )
    pieces = text_pieces(model, texts, tokens=tokens, samples=samples, seed=seed)
    blocks = len(pieces[0]) // block
    if blocks < 3:
        raise OptionError(
            f"texts of {len(pieces[0])} tokens have {blocks} whole blocks of {block}, and a pattern needs three; give more tokens, or a smaller block"
        )
    rules = _Rules(block=block, tau=tau, gamma=gamma, least=min(blocks, -(-min_budget // block)))
    found: list[NDArray[np.float64]] = []
    for done, ids in enumerate(pieces, 1):
        found.append(_measure(model, ids[: blocks * block], rules))
        if progress is not None:
            progress(done, len(pieces))
    arrays = {name: np.stack([one[k] for one in found]) for k, name in enumerate(QUANTITIES)}
    score = arrays["score"]
    extra: dict[str, NDArray[np.generic]] = {"pattern": np.where(mean_of(score) < tau, "query_aware", "vertical_slash")}
    extra |= {name: mean_of(arrays[name]) for name in QUANTITIES[2:]}
    manifest = model.manifest() | {
        "method": "flexprefill",
        "source": "FlexPrefill (arXiv 2502.20766), get_active_blocks of the released code",
        "task": "corpus" if texts is None else "own texts",
        "settings": {
            "tokens": blocks * block,
            "texts": len(pieces),
            "block": block,
            "tau": tau,
            "gamma": gamma,
            "min_budget": min_budget,
        },
        "seed": seed,
    }
    table = head_table(score, control=mean_of(arrays["control"]), extra=extra)
    return Result(kind="heads.flexprefill", table=table, manifest=manifest, arrays=arrays)


def divergence(p: Float[Tensor, "*lead block"], r: Float[Tensor, "*lead block"]) -> Float[Tensor, "*lead"]:
    """Square root of the Jensen-Shannon divergence of two distributions, natural logarithm, in [0, 0.833]; 0 ln 0 is 0."""

    def relative(x: Tensor) -> Tensor:
        # x / m as 2 x / (p + r), which cannot underflow where x is above 0
        return torch.xlogy(x, torch.where(x > 0, 2 * x / (p + r), 1.0)).sum(-1)

    # rounding may leave a zero a little below
    return (0.5 * relative(p) + 0.5 * relative(r)).clamp(min=0).sqrt()


def count_to_cover(x: Float[Tensor, "head place"], gamma: float) -> Int[Tensor, " head"]:
    """How many of the largest entries of each row it takes to pass `gamma` (all of them, if they never do)."""
    ordered = x.sort(dim=-1, descending=True).values.cumsum(-1)
    return ((ordered <= gamma).sum(-1) + 1).clamp(max=x.shape[-1])


def vertical_slash_blocks(
    vertical: Float[Tensor, "head block"],
    slash: Float[Tensor, "head block"],
    counts: tuple[Int[Tensor, " head"], Int[Tensor, " head"]],
) -> Bool[Tensor, "head row_block key_block"]:
    """Pairs of blocks on the strongest key blocks and block diagonals, the first block and the nearest diagonal always among them.

    Args:
        vertical: attention on each key block.
        slash: attention at each distance in blocks; a diagonal of tokens touches the next block diagonal too, which their code leaves out.
        counts: how many of either.
    """
    blocks = vertical.shape[1]
    kept = []
    for sums, count in zip((vertical, slash), counts, strict=True):
        order = strongest(sums, blocks, 1)
        among = torch.arange(blocks, device=sums.device) < count[:, None]
        kept.append(torch.zeros_like(sums, dtype=torch.bool).scatter(1, order, among))
    place = torch.arange(blocks, device=vertical.device)
    behind = place[:, None] - place[None, :]
    on_diagonal = kept[1][:, behind.clamp(min=0)]
    return (kept[0][:, None, :] | on_diagonal) & (behind >= 0)


def query_aware_blocks(
    scores: Float[Tensor, "head row_block key_block"], gamma: float
) -> Bool[Tensor, "head row_block key_block"]:
    """Pairs of blocks with the largest softmax (each row of blocks sums to 1) whose sum stays within `gamma` times the number of rows."""
    shares = scores.softmax(-1).flatten(1)
    ordered = shares.sort(dim=-1, descending=True, stable=True)
    within = ordered.values.cumsum(-1) <= gamma * scores.shape[1]
    return torch.zeros_like(shares, dtype=torch.bool).scatter(1, ordered.indices, within).view(scores.shape)


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """Block size, tau, gamma, and the least number of key blocks and block diagonals."""

    block: int
    tau: float
    gamma: float
    least: int


def _measure(model: HookedModel, ids: list[int], rules: _Rules) -> NDArray[np.float64]:
    """Every quantity of one text: [quantity, layer, head]."""
    layers: dict[int, NDArray[np.float64]] = {}

    def take(call: AttentionCall, attended: Attended) -> None:
        layers[call.site.layer] = _layer(call, attended, rules).cpu().numpy()

    with torch.no_grad():
        model.probe(ids, take)
    return np.stack([layers[n] for n in sorted(layers)], axis=1)


def _layer(call: AttentionCall, attended: Attended, rules: _Rules) -> Tensor:
    """Every quantity of one layer: float64 [quantity, head]."""
    n, size = call.keys, rules.block
    blocks = n // size
    rows = torch.zeros(1, n, dtype=torch.bool, device=call.q.device)
    rows[0, -size:] = True
    swept = column_sums(call, attended, rows=rows, collect=ColumnCollect(received=True, diagonals=True))
    # a sink logit's share is nobody's: shares of the attention on keys
    columns = swept["received"][0, :, 0].double()
    total = columns.sum(-1, keepdim=True)
    columns, diagonals = columns / total, swept["diagonals"][0, :, 0, n - 1 :].double() / total
    true = columns.unflatten(-1, (blocks, size)).sum(-1)
    q, k = queries_and_keys(call)
    reach = reach_of(call)
    scale = q.shape[-1] ** -0.5 if call.scale is None else call.scale
    seen = reachable(blocks, size, reach, q.device)[-1]
    guess = (q[:, -size:].mean(1, keepdim=True) @ pooled(k, size).mT)[:, 0].double() * scale
    d = divergence(guess.masked_fill(~seen, -torch.inf).softmax(-1), true)
    blind = divergence((seen / seen.sum()).double().expand_as(true), true)
    aware = d < rules.tau
    numbers = [count_to_cover(x, rules.gamma) for x in (columns, diagonals)]
    counts = [torch.where(aware, rules.least, (x // size + 1).clamp(min=rules.least, max=blocks)) for x in numbers]
    kept = vertical_slash_blocks(true, diagonals.unflatten(-1, (blocks, size)).sum(-1), (counts[0], counts[1]))
    scores = block_products(q, k, size, reach).double() * scale
    kept = kept | (query_aware_blocks(scores, rules.gamma) & aware[:, None, None])
    computed = kept.sum((-2, -1)).double()
    return torch.stack(
        [
            d,
            blind,
            aware.double(),
            *(x.double() for x in numbers),
            computed / (blocks * (blocks + 1) / 2),
            computed / blocks**2,
            (true * kept[:, -1]).sum(-1),
        ]
    )
