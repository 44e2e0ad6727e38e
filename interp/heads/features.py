"""How each head attends, in a dozen numbers: means of its statistics over natural text, with the same on random tokens as control.

These are the pattern features that `interp.heads.embedding` places the heads by: spread (entropy, largest probability), reach (mean distance,
window masses) and target (first token, previous token, itself, equal tokens, what followed them, punctuation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from interp.errors import OptionError
from interp.heads.tables import head_table, mean_of
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.haystack import corpus_texts
from interp.tasks.sequences import Source, sequences

FEATURES: Final = (
    "normalised_entropy",
    "max_probability",
    "mean_distance",
    "window_mass_64",
    "window_mass_256",
    "first_token_mass",
    "current_token_mass",
    "previous_token_mass",
    "duplicate_token_mass",
    "induction_mass",
    "punctuation_mass",
    "output_norm",
)
"""Statistics of `interp.stats`; each is one column."""


def features(
    model: HookedModel,
    *,
    statistics: Sequence[str] = FEATURES,
    texts: Sequence[str] | None = None,
    tokens: int = 512,
    samples: int = 4,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Mean of several statistics of every head, over all query rows of pieces of natural text.

    Args:
        model: a decoder with a tokenizer.
        statistics: names of `interp.stats.names()` that need no second sweep.
        texts: None takes the held-out documents of the project's corpus.
        tokens: of a piece.
        samples: pieces of text, and as many sequences of random tokens; at least 2.
        seed: of the places and the random tokens.
        progress: called with (sequences done, sequences).

    Returns:
        Result "heads.features": one column per statistic, and STATISTIC_random, its mean on random tokens. score, spread (standard
        deviation over pieces) and control are those of the first statistic. Arrays: values [statistic, piece, layer, head].

    Raises:
        OptionError: fewer than two samples, no statistic, or unknown ones.
        InputDataError: no text is long enough.
    """
    if samples < 2 or not statistics:
        raise OptionError(f"wanted samples >= 2 and at least one statistic, got {samples} and {list(statistics)}")
    pool = corpus_texts("held_out") if texts is None else texts
    measured: dict[Source, NDArray[np.float64]] = {}
    kinds: tuple[Source, ...] = ("natural", "random")
    for turn, kind in enumerate(kinds):
        found = []
        for done, ids in enumerate(sequences(model, kind, texts=pool, tokens=tokens, count=samples, seed=seed)):
            run = model.run(ids, collect=list(statistics), keep="none", logits="none")
            found.append(np.stack([_per_head(run.stats[name]) for name in statistics]))
            if progress is not None:
                progress(turn * samples + done + 1, len(kinds) * samples)
        measured[kind] = np.stack(found, axis=1)
    natural, random = measured["natural"], measured["random"]
    means = {name: mean_of(natural[n]) for n, name in enumerate(statistics)}
    means |= {f"{name}_random": mean_of(random[n]) for n, name in enumerate(statistics)}
    table = head_table(natural[0], control=mean_of(random[0]), extra=means)
    settings = {"statistics": list(statistics), "tokens": tokens, "samples": samples, "own_texts": texts is not None}
    manifest = model.manifest() | {
        "method": "features",
        "source": "means of interp.stats over natural text; control: ordinary tokens drawn at random",
        "settings": settings,
        "seed": seed,
    }
    arrays = {"values": natural.astype(np.float32)}
    return Result(kind="heads.features", table=table, manifest=manifest, arrays=arrays)


def _per_head(values: torch.Tensor) -> NDArray[np.float64]:
    """Mean over rows where defined: [layer, head, row] or [layer, head] -> [layer, head]."""
    values = values.double()
    return (values.nanmean(-1) if values.ndim == 3 else values).cpu().numpy()
