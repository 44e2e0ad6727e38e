"""`report`: the entropy structure of a finished model, as one table of heads with its controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.capture.call import Attended, AttentionCall
from interp.capture.inputs import TextOrIds
from interp.entropy.projections import query_keys
from interp.entropy.regimes import QUARTERS, regime_shares, regimes
from interp.entropy.rows import EntropyRows
from interp.entropy.spectral import qk_norm_product, qk_spectral_norm
from interp.errors import OptionError, UnsupportedModelError
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.corpus import corpus
from interp.tasks.sequences import sequences

TOKENS = 512
SEQUENCES = 16
SHORTEST = 32
BATCH = 8
ROUNDING = 1e-3
"""Nats by which a float32 entropy may lie below a float32 bound and still count as keeping it."""
QUANTITIES: Mapping[str, Callable[[EntropyRows], Tensor]] = {
    "entropy": lambda r: torch.where(r.real, r.entropy, torch.nan),
    "normalised": lambda r: r.normalised,
    "effective_keys": lambda r: torch.where(r.real, r.entropy.exp(), torch.nan),
    "max_probability": lambda r: torch.where(r.real, (r.max_logit - r.lse).exp(), torch.nan),
    "sink_mass": lambda r: torch.where(r.real, 1 - r.rest_mass, torch.nan),
    "rest_entropy": lambda r: torch.where(r.real & (r.rest_mass > 0), r.rest_entropy, torch.nan),
    "rest_normalised": lambda r: r.rest_normalised,
    "rest_part": lambda r: r.rest_part,
    "logit_norm": lambda r: torch.where(r.real, r.logit_norm, torch.nan),
    "max_logit": lambda r: torch.where(r.real, r.max_logit, torch.nan),
    "bound": lambda r: r.bound,
    "outcomes": lambda r: torch.where(r.real, r.outcomes.to(r.entropy.dtype), torch.nan),
    "rest_outcomes": lambda r: torch.where(r.real, r.rest_visible.to(r.entropy.dtype), torch.nan),
}
"""What is read of every row."""


def report(
    model: HookedModel,
    *,
    texts: Sequence[str] | None = None,
    tokens: int = TOKENS,
    count: int = SEQUENCES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Measure the entropy of every head on natural text and on random tokens.

    The score of a head is its normalised entropy H_i / log n_i, the mean over rows with n_i >= 2 and over sequences, in [0, 1]; `spread` is
    the standard deviation over sequences of the sequence's mean; `control` is the score on random tokens. Never compare entropies in
    nats across lengths: a uniform causal head has a mean of 0.86 log T at T = 1024.

    Args:
        model: a hooked decoder or encoder that reads text.
        texts: natural texts; None takes the held-out documents of the project's corpus.
        tokens: T, tokens per sequence.
        count: sequences of each kind.
        seed: for all draws.
        progress: called with (steps done, steps in all).

    Returns:
        Result "entropy". Columns beside layer, head, score, spread, control (means over rows and sequences, nats unless said):
        entropy; ratio_of_means (mean H over mean log n); effective_keys (mean exp H); max_probability; sink_mass (mass on the first token and
        a learned sink), rest_entropy and rest_normalised (what is left, renormalised), choice_part and rest_part (the two parts of the
        chain rule, which add up to entropy; see `interp.entropy.rows`); logit_norm, logit_norm_p99 (rho), max_logit (largest), bound (mean
        of the least entropy that rho allows), bound_slack (smallest H - bound of any row, at least 0 but for rounding); position_slope and
        rest_position_slope (nats per log n over rows: 0 for a head that looks at a fixed number of keys, 1 for a uniform one),
        length_slope (the same over the means of whole sequences of growing length); regime (quarter of the largest mean entropy, 3 is
        overloaded), regime_normalised (quarter of 1); qk_spectral, qk_norm_product (see `interp.entropy.spectral`; NaN where
        the projections are not known by name, and no bound of the logits where the manifest's qk_norm says so).
        Arrays: position_edges [bucket + 1], and by_position, rest_by_position (normalised) [layer, head, bucket]; lengths [length], by_length
        (normalised) and entropy_by_length [layer, head, length]; sequence_score [sequence, layer, head]; regime_shares [layer, quarter].

    Raises:
        OptionError: fewer than two sequences or fewer than 8 tokens.
        UnsupportedModelError: an encoder-decoder, whose decoder would see one token.
    """
    if model.is_encoder_decoder:
        raise UnsupportedModelError(
            f"{type(model.hf).__name__} is an encoder-decoder, and this report reads one text through one stack; "
            "run(..., target=) measures the entropies of all three kinds of its attention"
        )
    if count < 2 or tokens < 8:
        raise OptionError(f"entropy report: wanted at least 2 sequences of at least 8 tokens, got {count} of {tokens}")
    say = progress or (lambda done, total: None)
    texts = [document.text for document in corpus("held_out")] if texts is None else texts
    natural, random = (
        sequences(model, source, texts=texts, tokens=tokens, count=count, seed=seed) for source in ("natural", "random")
    )
    lengths = lengths_up_to(tokens)
    steps = len(lengths) + 2
    rows = measured(model, natural)
    say(1, steps)
    control = nanmean(measured(model, random, ("normalised",))["normalised"], (1, 3))
    say(2, steps)
    curves = {name: np.full((*control.shape, len(lengths)), np.nan) for name in ("normalised", "entropy", "outcomes")}
    for n, length in enumerate(lengths):
        # A prefix is run again, not cut out: encoders see the whole text, and some positions scale with its length.
        short = rows if length == tokens else measured(model, [s[:length] for s in natural], tuple(curves))
        for name, curve in curves.items():
            curve[..., n] = nanmean(short[name] if name != "outcomes" else np.log(short[name]), (1, 3))
        say(3 + n, steps)
    edges = position_edges(tokens)
    mean = {name: nanmean(x, (1, 3)) for name, x in rows.items()}
    by_sequence = nanmean(rows["normalised"], (3,))
    log_n = np.log(np.maximum(rows["outcomes"], 1))
    spectral = spectral_columns(model, *control.shape)
    columns: dict[str, NDArray[Any]] = {
        "score": mean["normalised"],
        "spread": by_sequence.std(axis=1, ddof=1),
        "control": control,
        "entropy": mean["entropy"],
        "ratio_of_means": mean["entropy"] / nanmean(log_n, (1, 3)),
        **{
            name: mean[name]
            for name in ("effective_keys", "max_probability", "sink_mass", "rest_entropy", "rest_normalised")
        },
        "choice_part": mean["entropy"] - mean["rest_part"],
        "rest_part": mean["rest_part"],
        "logit_norm": mean["logit_norm"],
        "logit_norm_p99": np.nanquantile(rows["logit_norm"], 0.99, axis=(1, 3)),
        "max_logit": np.nanmax(rows["max_logit"], axis=(1, 3)),
        "bound": mean["bound"],
        "bound_slack": np.nanmin(rows["entropy"] - rows["bound"], axis=(1, 3)),
        "position_slope": slope(log_n, rows["entropy"], rows["outcomes"] >= 2),
        "rest_position_slope": slope(
            np.log(np.maximum(rows["rest_outcomes"], 1)), rows["rest_entropy"], rows["rest_outcomes"] >= 2
        ),
        "length_slope": slope(curves["outcomes"][:, None], curves["entropy"][:, None], curves["outcomes"][:, None] > 0),
        "regime": regimes(mean["entropy"]),
        "regime_normalised": regimes(mean["normalised"], top=1.0),
        "qk_spectral": spectral["qk_spectral"],
        "qk_norm_product": spectral["qk_norm_product"],
    }
    layers, heads = control.shape
    index = {"layer": np.repeat(np.arange(layers), heads), "head": np.tile(np.arange(heads), layers)}
    table = pd.DataFrame(index | {name: x.reshape(-1) for name, x in columns.items()})
    shares = regime_shares(mean["entropy"])
    manifest = model.manifest() | {
        "method": "entropy",
        "settings": {"tokens": tokens, "sequences": count, "lengths": lengths, "bos": model.bos_record(None)},
        "seed": seed,
        "rows": int(np.isfinite(rows["entropy"]).sum()),
        "rows_below_bound": int((rows["entropy"] < rows["bound"] - ROUNDING).sum()),
        "overloaded_share": float((columns["regime"] == len(QUARTERS) - 1).mean()),
        "overloaded_share_normalised": float((columns["regime_normalised"] == len(QUARTERS) - 1).mean()),
        "qk_norm": sorted(layer for layer, x in query_keys(model.hf).items() if x.normed),
    }
    arrays = {
        "position_edges": np.asarray(edges),
        "by_position": bucketed(rows["normalised"], edges),
        "rest_by_position": bucketed(rows["rest_normalised"], edges),
        "lengths": np.asarray(lengths),
        "by_length": curves["normalised"].astype(np.float32),
        "entropy_by_length": curves["entropy"].astype(np.float32),
        "sequence_score": by_sequence.swapaxes(0, 1).astype(np.float32),
        "regime_shares": shares[list(QUARTERS)].to_numpy(),
    }
    return Result(kind="entropy", table=table, manifest=manifest, arrays=arrays)


@torch.no_grad()
def measured(
    model: HookedModel, inputs: TextOrIds, names: Sequence[str] = tuple(QUANTITIES), *, batch: int = BATCH
) -> dict[str, NDArray[np.float32]]:
    """Quantities of every row of inputs of one length: name -> float32 [layer, sequence, head, row], NaN where undefined.

    Memory: names x layers x sequences x heads x T.
    """
    parts: list[dict[int, dict[str, NDArray[np.float32]]]] = []

    def take(call: AttentionCall, attended: Attended) -> None:
        rows = EntropyRows.of(call, attended)
        shape = rows.entropy.shape
        parts[-1][call.site.layer] = {
            name: QUANTITIES[name](rows).expand(shape).float().cpu().numpy() for name in names
        }

    for start in range(0, len(inputs), batch):
        parts.append({})
        model.probe(inputs[start : start + batch], take, collect=EntropyRows.wish)
    return {
        name: np.stack([np.concatenate([part[layer][name] for part in parts]) for layer in sorted(parts[0])])
        for name in names
    }


def spectral_columns(model: HookedModel, layers: int, heads: int) -> dict[str, NDArray[np.float64]]:
    """qk_spectral and qk_norm_product [layer, head]; NaN for layers whose projections are not known by name."""
    found = {name: np.full((layers, heads), np.nan) for name in ("qk_spectral", "qk_norm_product")}
    with torch.no_grad():
        for layer, projections in query_keys(model.hf).items():
            w_q, w_k = projections.weights()
            found["qk_spectral"][layer] = qk_spectral_norm(w_q, w_k).cpu().numpy()
            found["qk_norm_product"][layer] = qk_norm_product(w_q, w_k).cpu().numpy()
    return found


def lengths_up_to(tokens: int) -> list[int]:
    """32, 64, 128 ... and `tokens` itself."""
    doubled = [SHORTEST << n for n in range(32) if SHORTEST << n < tokens]
    return [*doubled, tokens]


def position_edges(tokens: int) -> list[int]:
    """Edges of the buckets of rows by position: 0, 1, 2, 4, 8 ... and `tokens`."""
    return [0, *[1 << n for n in range(32) if 1 << n < tokens], tokens]


def bucketed(values: NDArray[Any], edges: Sequence[int]) -> NDArray[np.float32]:
    """Mean over sequences and the rows of each bucket: [layer, sequence, head, row] -> float32 [layer, head, bucket]."""
    return np.stack([nanmean(values[..., a:b], (1, 3)) for a, b in pairwise(edges)], axis=-1).astype(np.float32)


def slope(x: NDArray[Any], y: NDArray[Any], kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Least-squares slope of y on x for every head, over the sequences and rows that are kept: [layer, sequence, head, row] -> [layer, head].

    NaN where x does not vary.
    """
    kept = kept & np.isfinite(y)
    total = kept.sum((1, 3))
    divisor = np.where(total > 0, total, np.nan)[:, None, :, None]
    x0, y0 = (np.where(kept, v, 0.0).astype(np.float64) for v in (x, y))
    dx, dy = (np.where(kept, v - v.sum((1, 3), keepdims=True) / divisor, 0.0) for v in (x0, y0))
    square = (dx * dx).sum((1, 3))
    return (dx * dy).sum((1, 3)) / np.where(square > 0, square, np.nan)


def nanmean(x: NDArray[Any], axes: tuple[int, ...]) -> NDArray[np.float64]:
    """Mean over the values that are defined; NaN, without a warning, where none is."""
    defined = np.isfinite(x)
    count = defined.sum(axes)
    return np.where(defined, x, 0.0).astype(np.float64).sum(axes) / np.where(count > 0, count, np.nan)
