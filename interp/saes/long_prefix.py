"""Long-prefix induction: does an induction head look back one token, or does it need a longer match? (Kissane et al. 2024, section 4.3)

Sequences of distinct random tokens, BOS first where there is one, in which the P tokens at a stand again at b:

    ... x[a] ... x[a+P-1] x[a+P] ...  x[a] ... x[a+P-1] ...         row b + P - 1 should look at key a + P
        `------- prefix ----' target   `------- copy ----'

    score(P)      attention of row b + P - 1 at key a + P; mean over sequences
    control(P)    the same cell without the copy (its P tokens are fresh ones)
    corrupted(P)  the same cell with the prefix cut to 1: the source-side token two before the target (a + P - 2) is a fresh one; P >= 2
                  (what stands in front of that token still matches, so a head that bridges a gap falls less)
    dla(P)        what the head writes to the target's logit at that row, less the mean logit (last norm held)

A head that matches one token has its score at P = 1 already and keeps it when cut; a long-prefix head starts low and rises with P, and
falls when cut. The published example is GPT-2 small: 5.1 (long: below 0.3 at P = 1, above 0.7 later) and 5.5 (short: 0.7 at P = 1).
`kind` is tagged by `Rules`; the raw scores stand beside it. The cells are masses on key sets of one key each, from the kernel: nothing N x N.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.capture.call import Attended, AttentionCall, Collect
from interp.errors import OptionError
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.saes.stream import Stream, held
from interp.tasks.sequences import first_tokens, ordinary_tokens

KIND = "saes.long_prefix"
SOURCE = "long-prefix induction; Kissane et al. 2024 (arXiv 2406.17759)"
TOKENS, SAMPLES, PREFIXES = 128, 400, tuple(range(1, 10))
"""The protocol's sequence length, sequences per prefix length, and prefix lengths."""
VERSIONS: Final = ("score", "control", "corrupted")
TOKENS_PER_PASS = 4096


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What makes a head one or the other; thresholds on attention.

    Attributes:
        short: least score at the smallest P of a short-prefix head.
        low: largest score at the smallest P of a long-prefix head (the published example: 0.3).
        gain: least difference between the best score at a larger P and the one at the smallest, of a long-prefix head.
    """

    short: float = 0.4
    low: float = 0.3
    gain: float = 0.3

    def kind(self, scores: Sequence[float]) -> str:
        """The tag of one head, from its scores by ascending P: "short prefix", "long prefix" or "" (neither)."""
        if scores[0] >= self.short:
            return "short prefix"
        later = max(scores[1:], default=scores[0])
        return "long prefix" if scores[0] < self.low and later - scores[0] >= self.gain else ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """Sequences of one prefix length.

    Attributes:
        ids: of each version, int64 [sample, token].
        row, key: the cell, int64 [sample].
    """

    ids: dict[str, NDArray[np.int64]]
    row: NDArray[np.int64]
    key: NDArray[np.int64]


def long_prefix(
    model: HookedModel,
    *,
    prefixes: Sequence[int] = PREFIXES,
    tokens: int = TOKENS,
    samples: int = SAMPLES,
    rules: Rules | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Attention of every head to the token that followed a repeated prefix, by the prefix's length.

    Args:
        model: a decoder with a tokenizer.
        prefixes: lengths P, ascending.
        tokens: length of a sequence, BOS included.
        samples: sequences per P.
        rules: for the tags.
        seed: of everything that is drawn; sample i of a P does not depend on how many there are.
        progress: called with (prefix lengths done, all).

    Returns:
        Result "saes.long_prefix": one row per head and P: score, spread (standard deviation over sequences), control, corrupted (NaN at
        P = 1), dla in logits, prefix, and kind, the same for all rows of a head. Arrays: score, control, corrupted [prefix, sample, layer,
        head], dla [prefix, layer, head].

    Raises:
        OptionError: prefix lengths that do not ascend from at least 1 or do not fit in the sequence twice; fewer than two samples.
        UnsupportedModelError: what heads write cannot be followed to a logit.
    """
    given, rules = tuple(prefixes), rules or Rules()
    first = first_tokens(model)
    if not given or list(given) != sorted(set(given)) or given[0] < 1 or samples < 2:
        raise OptionError(f"wanted ascending prefixes >= 1 and samples >= 2; got {list(given)} and {samples}")
    if len(first) + 2 * (given[-1] + 1) > tokens:
        raise OptionError(f"a prefix of {given[-1]} does not fit twice in {tokens} tokens; give more tokens")
    vocabulary, stream = ordinary_tokens(model), Stream(model)
    found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in VERSIONS}
    dla: list[NDArray[np.float64]] = []
    for n, size in enumerate(given):
        drawn = draw(vocabulary, first, size, tokens=tokens, samples=samples, seed=seed)
        for name in VERSIONS:
            if name == "corrupted" and size < 2:
                found[name].append(np.full_like(found["score"][-1], np.nan))
                continue
            cells, written = _cells(model, stream, drawn.ids[name], drawn)
            found[name].append(cells)
            if name == "score":
                dla.append(written)
        if progress is not None:
            progress(n + 1, len(given))
    arrays: dict[str, NDArray[Any]] = {name: np.stack(parts) for name, parts in found.items()}
    arrays["dla"] = np.stack(dla)
    manifest = model.manifest() | {
        "method": "long_prefix",
        "source": SOURCE,
        "settings": {
            "prefixes": list(given), "tokens": tokens, "samples": samples, "bos": bool(first), "distinct": True,
            "rules": asdict(rules),
        },
        "seed": seed,
    }  # fmt: skip
    return Result(kind=KIND, table=_table(arrays, given, rules), manifest=manifest, arrays=arrays)


def draw(
    vocabulary: NDArray[np.int64], first: Sequence[int], prefix: int, *, tokens: int, samples: int, seed: int
) -> Drawn:
    """Draw the sequences of one prefix length in their three versions.

    Args:
        vocabulary: ids to draw from.
        first: what stands in front (BOS), never part of a prefix.
        prefix: P.
        tokens: length, `first` included.
        samples: how many.
        seed: of the draws.

    Raises:
        OptionError: too small a vocabulary for distinct tokens.
    """
    spare = prefix + 1
    if len(vocabulary) < tokens + spare:
        raise OptionError(f"{tokens + spare} distinct tokens are needed, and the vocabulary has {len(vocabulary)}")
    start = max(len(first), 1)  # the first token is an attention sink: no part of the prefix
    ids = {name: np.empty((samples, tokens), np.int64) for name in VERSIONS}
    row, key = np.empty(samples, np.int64), np.empty(samples, np.int64)
    for i in range(samples):
        random = np.random.default_rng([seed, prefix, i])
        body = random.choice(vocabulary, tokens + spare, replace=False)
        base, fresh = np.concatenate([first, body[: tokens - len(first)]]).astype(np.int64), body[-spare:]
        a = int(random.integers(start, tokens - 2 * prefix))
        b = int(random.integers(a + prefix + 1, tokens - prefix + 1))
        row[i], key[i] = b + prefix - 1, a + prefix
        for name in VERSIONS:
            ids[name][i] = base
        ids["score"][i, b : b + prefix] = base[a : a + prefix]
        ids["control"][i, b : b + prefix] = fresh[:prefix]
        ids["corrupted"][i] = ids["score"][i]
        if prefix > 1:
            ids["corrupted"][i, a + prefix - 2] = fresh[prefix]
    return Drawn(ids=ids, row=row, key=key)


@torch.no_grad()
def _cells(
    model: HookedModel, stream: Stream, ids: NDArray[np.int64], drawn: Drawn
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Attention at each sequence's cell [sample, layer, head], and the mean direct effect on the target's logit [layer, head]."""
    samples, tokens = ids.shape
    batch = max(1, TOKENS_PER_PASS // tokens)
    parts, written = [], np.zeros((model.layers, model.heads))
    for begin in range(0, samples, batch):
        some = slice(begin, min(begin + batch, samples))
        given, row, key = (torch.from_numpy(x[some]) for x in (ids, drawn.row, drawn.key))
        every = torch.arange(len(row))
        wish = Collect(key_sets=(torch.arange(tokens) == key[:, None])[:, None])
        mass: dict[int, Tensor] = {}
        z: dict[int, Tensor] = {}

        def take(
            call: AttentionCall, attended: Attended, mass: dict[int, Tensor] = mass, z: dict[int, Tensor] = z,
            every: Tensor = every, row: Tensor = row,
        ) -> None:  # fmt: skip
            mass[call.site.layer] = attended.stats["key_sets"][every, :, row, 0].float()
            z[call.site.layer] = attended.out[every, :, row].float()

        ends: list[Tensor] = []
        handle = stream.final_norm.register_forward_hook(lambda m, args, out, ends=ends: ends.append(args[0]))
        try:
            model.probe(given.tolist(), take, collect=lambda call, wish=wish: wish)
        finally:
            handle.remove()
        parts.append(torch.stack([mass[n] for n in sorted(mass)], 1).cpu().numpy())
        targets = given[every, key].to(stream.unembedding.device)
        direction = stream.unembedding[targets] - stream.unembedding.mean(0)
        pulled = held(stream.final_norm, ends[-1][every, row]).pulled(direction).float()
        for n, parts_of in enumerate(stream.layers):
            reads = torch.einsum("hed,bd->bhe", parts_of.written(model.heads).float(), pulled)
            written[n] += (z[n] * reads).sum(-1).double().sum(0).cpu().numpy()
    return np.concatenate(parts), written / samples


def _table(arrays: dict[str, NDArray[Any]], prefixes: Sequence[int], rules: Rules) -> pd.DataFrame:
    mean = {name: arrays[name].mean(1, dtype=np.float64) for name in VERSIONS}
    spread = arrays["score"].std(1, ddof=1, dtype=np.float64)
    _, layers, heads = mean["score"].shape
    rows = []
    for layer in range(layers):
        for head in range(heads):
            kind = rules.kind(mean["score"][:, layer, head].tolist())
            for n, size in enumerate(prefixes):
                at = (n, layer, head)
                values = {"score": mean["score"][at], "spread": spread[at], "control": mean["control"][at]}
                more = {"corrupted": mean["corrupted"][at], "dla": arrays["dla"][at], "prefix": size, "kind": kind}
                rows.append({"layer": layer, "head": head, **values, **more})
    return pd.DataFrame(rows)
