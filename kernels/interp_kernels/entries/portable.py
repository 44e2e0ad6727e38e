"""`entries` in plain torch on any device: dot products of the chosen rows and keys, some at a time. No gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from interp_kernels.entries.api import EntriesCall
from interp_kernels.row_blocks import block_entries
from interp_kernels.scores import scores_at


def supports(call: EntriesCall) -> tuple[bool, str]:
    """Everything."""
    return True, ""


def run(call: EntriesCall) -> Tensor:
    """[B, H, E] in the working dtype."""
    p = call.problem
    step = max(1, block_entries(p.q.device) // max(1, p.batch * p.heads * p.q.shape[3]))
    found = p.q.new_empty((p.batch, p.heads, len(call.i)), dtype=p.work_dtype)
    with torch.no_grad():
        for start in range(0, len(call.i), step):
            i, j = call.i[start : start + step], call.j[start : start + step]
            lse = call.lse[:, :, i].to(found.dtype)
            s = scores_at(p, i, j, found.dtype)
            found[..., start : start + step] = torch.exp(s - lse.masked_fill(lse == float("-inf"), 0.0))
    return found
