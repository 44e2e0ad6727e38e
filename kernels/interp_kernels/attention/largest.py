"""The k largest entries of each row, with ties going to the lowest index (which torch.topk does not promise)."""

from __future__ import annotations

import torch
from torch import Tensor

_NONE = float("-inf")


def largest(s: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values (falling) and indices int64 [..., k] of the k largest entries along the last axis of s.

    Where a row holds fewer than k entries above -inf, the rest is filled with value -inf and index -1.
    """
    n = min(k, s.shape[-1])
    value, index = torch.topk(s, n, dim=-1)
    # The set is certain unless entries equal to the k-th were left out; such rows are sorted whole.
    last = value[..., -1:]
    unsure = ((s >= last).sum(-1) > n) & (last[..., 0] > _NONE)
    if bool(unsure.any()):
        ordered = torch.sort(s[unsure], dim=-1, descending=True, stable=True)
        value[unsure], index[unsure] = ordered.values[:, :n], ordered.indices[:, :n]
    index, order = index.sort(-1)
    value, again = torch.sort(value.gather(-1, order), dim=-1, descending=True, stable=True)
    index = index.gather(-1, again).masked_fill(value == _NONE, -1)
    fill = (0, k - n)
    return torch.nn.functional.pad(value, fill, value=_NONE), torch.nn.functional.pad(index, fill, value=-1)
