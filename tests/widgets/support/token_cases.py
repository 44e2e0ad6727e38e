"""A text of any length whose attention is known in closed form: every row spreads evenly but for one key that weighs `FACTOR` keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

HEAVY, FACTOR = 7, 40.0
LAYER, HEADS = 3, 2


def weights_of_row(i: int) -> np.ndarray:
    """Row i of head 0: 1 per visible key, `FACTOR` for the heavy one, scaled to sum 1; float64 [i + 1]."""
    row = np.ones(i + 1)
    if i >= HEAVY:
        row[HEAVY] = FACTOR
    return row / row.sum()


def planted_capture(tokens: Sequence[str]) -> Any:
    """A capture of one layer, number 3, of one text: head 0 as above, head 1 even."""
    from interp.capture.inputs import TokenAxis
    from interp.capture.record import LayerRecord
    from interp.capture.run import Capture
    from interp.stats.labels import TokenLabels
    from interp_kernels import Mask

    n = len(tokens)
    q = torch.zeros(1, HEADS, n, 1)
    q[:, 0] = 1.0
    k = torch.zeros(1, 1, n, 1)
    k[0, 0, HEAVY] = math.log(FACTOR)
    counts = torch.arange(1, n + 1, dtype=torch.float64)
    lse = torch.stack([(counts + (FACTOR - 1) * (torch.arange(n) >= HEAVY)).log(), counts.log()]).float()[None]
    record = LayerRecord(
        values={}, lse=lse, q=q, k=k, mask=Mask.causal(), scale=1.0, softcap=None, edit=None, backend="planted"
    )
    ids = [list(range(n))]
    axis = TokenAxis(
        ids=ids,
        tokens=[list(tokens)],
        labels=TokenLabels.blank(1, n, torch.device("cpu")),
        padded=(torch.tensor(ids), torch.ones(1, n, dtype=torch.long)),
    )
    return Capture({LAYER: record}, rows=axis, cols=axis, item=0)


def words(n: int) -> list[str]:
    """Tokens that differ: " w0", " w1", ..."""
    return [f" w{i}" for i in range(n)]
