"""StreamingLLM's ordering on any model: perplexity of long texts with the first keys kept, lost, or replaced (Xiao et al. 2024, arXiv 2309.17453).

Every policy keeps the same number of keys, `size`:

    full                every key
    full without first  every key but the first four, hidden from the first row on: the next key can take over as the sink of all later rows
    window              the last `size` keys: the first four fall out of it
    sinks N             the first N keys and the last `size` - N
    newline N           the same, with the first N tokens of the text replaced by newlines (4 in the paper's Table 2): is it the words or the place?

A policy is an intervention on one prefill (`Streaming`, `KnockOut`). That differs from the released code, which feeds one token at a time and
gives cached keys the positions of their places in the cache: here keys keep the positions of the text, so up to the trained length the two
agree in what is kept and differ in the distances the model is told; beyond it this is harder on the model. The text is cut to what fits.

Losses are those of the same rows under every policy: row i predicts token i + 1. By bucket of i: rows below `size` (nothing is hidden yet, except
under "full without first"), then [size, 2 size), [2 size, 4 size) ... The bucket "beyond" joins all rows from `size` on, the paper's figure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from interp.errors import InputDataError, OptionError
from interp.interventions.knockout import KnockOut
from interp.interventions.readout import Readout
from interp.interventions.streaming import Streaming
from interp.ledger import Ledger
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.corpus import corpus
from interp.tasks.prompt import generator
from interp.tasks.sequences import sequences

FIRST: Final = 4
"""Keys that "full without first" hides, and newlines of the paper."""
SINKS: Final = (1, 2, 4, 8)
BEYOND: Final = "beyond"
LEDGER: Final = "streaming_loss.json"


def streaming_loss(
    model: HookedModel,
    *,
    texts: Sequence[str] | None = None,
    tokens: int = 4096,
    pieces: int = 8,
    size: int = 1024,
    sinks: Sequence[int] = SINKS,
    newline: int | str = "\n",
    resamples: int = 1000,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Loss of every policy of the module by position, with bootstrap intervals over pieces of text.

    Args:
        model: a causal decoder.
        texts: long texts; None takes the documents of the project's corpus, both sides of its split (nothing is fitted here).
        tokens: length of each piece; StreamingLLM's claim is about 4,096 and more.
        pieces: how many.
        size: keys that every policy but "full" keeps, above `sinks` and below `tokens`.
        sinks: how many first keys the policies keep, besides none ("window").
        newline: what replaces the first tokens: a token id, or a text of one token.
        resamples: of the pieces, for 95 % intervals.
        seed: of pieces and resamples.
        folder: keeps finished pieces, so that the same call goes on where it was interrupted.
        progress: called with (passes done, passes).

    Returns:
        Result "sinks.streaming", a row for each policy and bucket: policy, bucket, first_row, stop_row; score, mean loss in nats; spread,
        its standard deviation over pieces (NaN for one); control, the loss of "full" in the same rows; perplexity, low, high (of perplexity), and
        ratio, ratio_low, ratio_high: perplexity over that of "full" on the same resampled pieces; layer and head are -1. Arrays:
        "loss" [policy, piece, bucket], in the order of the manifest's policies and buckets.

    Raises:
        OptionError: sizes that do not fit each other or the model.
        InputDataError: texts that are too short, or a newline that is not one token.
        UnsupportedModelError: no decoder whose logits are a linear map of its last states.
    """
    readout = Readout(model)
    kept = sorted(set(sinks))
    if not kept or kept[0] < 1 or not max(kept[-1], FIRST) < size < tokens - 1 or pieces < 1 or resamples < 1:
        raise OptionError(
            f"wanted sinks of 1 and more below size, size below tokens - 1, pieces and resamples >= 1; "
            f"got sinks {list(sinks)}, size {size}, tokens {tokens}, pieces {pieces}, resamples {resamples}"
        )
    if model.context_length is not None and tokens > model.context_length:
        raise OptionError(f"pieces of {tokens} tokens do not fit into the {model.context_length} that the model reads")
    # A token is a character or more, so that short documents need no tokenizer to be told.
    pool = [d.text for d in corpus() if len(d.text) >= tokens] if texts is None else list(texts)
    given = sequences(model, "natural", texts=pool, tokens=tokens, count=pieces, seed=seed)
    replacement = _newline(model, newline)
    buckets = bucket_rows(tokens, size)
    policies = _policies(kept, size)
    settings = {
        "tokens": tokens,
        "pieces": pieces,
        "size": size,
        "sinks": kept,
        "newline": replacement,
        "own_texts": texts is not None,
        "positions": "the text's own, also for kept keys (the released code gives them their places in the cache)",
    }
    record = {
        "model": model.manifest()["model"],
        "dtype": str(model.dtype),
        "settings": settings,
        "ids": _digest(given),
    }
    ledger = Ledger(None if folder is None else Path(folder) / LEDGER, record)
    loss = np.zeros((len(policies), pieces, len(buckets)))
    done, total = 0, len(policies) * pieces
    for piece, ids in enumerate(given):
        for n, (name, (edit, replaced)) in enumerate(policies.items()):
            changed = [replacement] * replaced + ids[replaced:]

            def measure(edit: Streaming | KnockOut | None = edit, changed: list[int] = changed) -> dict[str, float]:
                scope: AbstractContextManager[None] = nullcontext() if edit is None else model.edit(edit)
                with scope:
                    rows = row_losses(readout, changed)
                return {bucket: float(rows[slice(*place)].mean()) for bucket, place in buckets.items()}

            cell = ledger.get(f"{name}: piece {piece}", measure)
            loss[n, piece] = [cell[bucket] for bucket in buckets]
            done += 1
            if progress is not None:
                progress(done, total)
    manifest = model.manifest() | {
        "method": "streaming_loss",
        "source": "Xiao et al. 2024 (arXiv 2309.17453), Tables 1 and 2",
        "settings": settings | {"resamples": resamples, "bos": model.bos_record(None)},
        "seed": seed,
        "policies": list(policies),
        "buckets": list(buckets),
    }
    table = _table(loss, list(policies), buckets, resamples, generator(seed, pieces))
    return Result(kind="sinks.streaming", table=table, manifest=manifest, arrays={"loss": loss})


def bucket_rows(tokens: int, size: int) -> dict[str, tuple[int, int]]:
    """Name -> (first row, the one after the last): below `size`, then doubling, then all beyond; the last token has no next one."""
    found = {f"0-{size - 1}": (0, size)}
    start = size
    while start < tokens - 1:
        stop = min(2 * start, tokens - 1)
        found[f"{start}-{stop - 1}"] = (start, stop)
        start = stop
    return found | {BEYOND: (size, tokens - 1)}


@torch.no_grad()
def row_losses(readout: Readout, ids: Sequence[int]) -> NDArray[np.float64]:
    """-ln p of the next token of every row but the last, under the interventions in force: [N - 1]; no logits of the whole text are held."""
    whole = torch.tensor([list(ids)], device=readout.model.device)
    states = readout.states(whole)[0, :-1]
    parts = [-p.gather(1, whole[0, 1:][rows, None])[:, 0] for rows, p in readout.log_probs(states)]
    return torch.cat(parts).double().cpu().numpy()


def _policies(sinks: Sequence[int], size: int) -> dict[str, tuple[Streaming | KnockOut | None, int]]:
    """Name -> what restricts attention, and how many first tokens are replaced."""
    found: dict[str, tuple[Streaming | KnockOut | None, int]] = {
        "full": (None, 0),
        "full without first": (KnockOut(keys=((0, FIRST),)), 0),
        "window": (Streaming(sinks=0, window=size), 0),
    }
    found |= {f"sinks {n}": (Streaming(sinks=n, window=size - n), 0) for n in sinks}
    return found | {f"newline {FIRST}": (Streaming(sinks=FIRST, window=size - FIRST), FIRST)}


def _digest(texts: Sequence[Sequence[int]]) -> str:
    return hashlib.sha256(";".join(",".join(map(str, ids)) for ids in texts).encode()).hexdigest()


def _newline(model: HookedModel, newline: int | str) -> int:
    if isinstance(newline, int):
        return newline
    ids = model.encode(newline, bos=False)
    if len(ids) != 1:
        raise InputDataError(
            f"newline: {newline!r} is {len(ids)} tokens under this tokenizer; give the id of the token that shall replace the first ones"
        )
    return ids[0]


def _table(
    loss: NDArray[np.float64],
    policies: Sequence[str],
    buckets: dict[str, tuple[int, int]],
    resamples: int,
    draw: np.random.Generator,
) -> pd.DataFrame:
    pieces = loss.shape[1]
    # [policy, resample, bucket]: the same pieces for every policy, so that ratios are paired.
    means = loss[:, draw.integers(pieces, size=(resamples, pieces))].mean(2)
    rows: list[dict[str, Any]] = []
    for n, policy in enumerate(policies):
        for b, (bucket, (first, stop)) in enumerate(buckets.items()):
            here, against = loss[n, :, b].mean(), loss[0, :, b].mean()
            low, high = np.exp(np.quantile(means[n, :, b], [0.025, 0.975]))
            ratio_low, ratio_high = np.exp(np.quantile(means[n, :, b] - means[0, :, b], [0.025, 0.975]))
            rows.append(
                {
                    "layer": -1, "head": -1, "policy": policy, "bucket": bucket, "first_row": first, "stop_row": stop,
                    "score": here, "spread": loss[n, :, b].std(ddof=1) if pieces > 1 else np.nan, "control": against,
                    "perplexity": np.exp(here), "low": low, "high": high,
                    "ratio": np.exp(here - against), "ratio_low": ratio_low, "ratio_high": ratio_high,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)
