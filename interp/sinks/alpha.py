"""The sink metric of Gu et al. (2025, arXiv 2410.10781, section 3), for every key position and several thresholds at once.

    alpha_k = (1 / rows that see key k) sum over those rows of p_ik
    Sink_k^eps = mean over sequences, layers and heads of 1[alpha_k > eps]

Bounds: a causal head that attends uniformly has alpha of the first key H_T / T (0.074 at T = 64); the last keys average few rows, so only
keys that at least 16 rows see are counted (our rule). The rate falls with T: never compare it across lengths.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from interp.models.hooked import HookedModel

EPSILONS = (0.2, 0.3, 0.4, 0.5)
PAPER_EPSILON = 0.3
MIN_ROWS = 16


def alphas(model: HookedModel, sequences: Sequence[Sequence[int]], *, batch: int = 20) -> NDArray[np.float32]:
    """alpha_k of every sequence: float32 [sequence, layer, head, key], NaN at keys that fewer than 16 rows see.

    Sequences must have one length. Memory: sequences x layers x heads x T.
    """
    parts = []
    for start in range(0, len(sequences), batch):
        run = model.run(
            [list(s) for s in sequences[start : start + batch]], collect=["alpha"], keep="none", logits="none"
        )
        parts.append(run.stats["alpha"].transpose(0, 1).numpy())
    return np.concatenate(parts)


def sink_rates(
    alpha: NDArray[np.float32], epsilons: Sequence[float] = EPSILONS, *, key: int = 0
) -> dict[float, NDArray[np.float64]]:
    """Share of sequences in which alpha of key `key` passes each threshold: eps -> [layer, head]. Its mean over all heads is Sink_k."""
    return {eps: (alpha[..., key] > eps).mean(axis=0) for eps in epsilons}
