"""Sinks beyond the first token, found per input from what each key receives (ACT: Yu et al. 2024, arXiv 2406.15765, section 3).

    paper form: key j is a sink of a head if alpha_j > 5 / N
    code form:  alpha_j > 0.1, whatever N is (the released code's threshold for classification; equal to the paper's at N = 50)

with alpha_j the mean over the rows that see key j. The first key is reported apart, because it nearly always passes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.capture.run import Run

Form = Literal["paper", "code"]
PAPER_FACTOR = 5.0
CODE_THRESHOLD = 0.1


def threshold(form: Form, tokens: int, factor: float = PAPER_FACTOR) -> float:
    """The value that alpha_j must pass: factor / N (paper) or 0.1 (code)."""
    return factor / tokens if form == "paper" else CODE_THRESHOLD


def hidden_sinks(run: Run, *, form: Form = "paper", factor: float = PAPER_FACTOR) -> pd.DataFrame:
    """Sinks of every head of one text behind its first token: columns layer, head, key, token, alpha; largest alpha first.

    The run must have measured "alpha" (`collect=["alpha"]`). Keys that fewer than 16 rows see are never counted.
    """
    alpha: NDArray[np.float32] = run.stats["alpha"].numpy()
    limit = threshold(form, alpha.shape[2], factor)
    layer, head, key = np.nonzero(np.nan_to_num(alpha[..., 1:]) > limit)
    key = key + 1
    tokens = run.tokens
    frame = pd.DataFrame(
        {
            "layer": np.asarray(run.layers)[layer],
            "head": head,
            "key": key,
            "token": [tokens[k] for k in key] if tokens is not None else [str(k) for k in key],
            "alpha": alpha[layer, head, key],
        }
    )
    return frame.sort_values(["alpha", "layer", "head", "key"], ascending=[False, True, True, True], ignore_index=True)
