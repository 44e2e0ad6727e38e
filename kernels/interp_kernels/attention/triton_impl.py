"""`attention` on Triton (CUDA, ROCm; the interpreter on CPU): see `triton_forward`, `triton_topk`, `triton_backward`.

Triton is imported when a call runs, never before.
"""

from __future__ import annotations

import importlib

import torch
from torch import Tensor

from interp_kernels.attention.api import AttentionCall
from interp_kernels.triton_args import MAX_HEAD_DIM, refusal

MAX_TOPK = 128


def supports(call: AttentionCall) -> tuple[bool, str]:
    """Whether Triton can serve the call, and if not, why."""
    why = refusal(call.problem)
    if not why and not 0 < call.v.shape[3] <= MAX_HEAD_DIM:
        why = f"value dim {call.v.shape[3]} is not in 1..{MAX_HEAD_DIM}"
    if not why and call.collect.topk > MAX_TOPK:
        why = f"topk {call.collect.topk} is over {MAX_TOPK}"
    if not why and torch.is_grad_enabled() and any(x.requires_grad for x in _constants(call)):
        why = "its backward gives no gradients of edits, slopes or dense biases"
    return not why, why


def run(call: AttentionCall) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """out in q's dtype, lse and statistics in float32."""
    return importlib.import_module("interp_kernels.attention.triton_ops").attend(call)


def _constants(call: AttentionCall) -> list[Tensor]:
    mask, edit = call.problem.mask, call.problem.edit
    found = [mask.alibi_slopes, mask.dense_bias]
    if edit is not None:
        found += [edit.logit_scale, edit.key_bias, edit.factors, edit.gate]
    return [x for x in found if x is not None]
