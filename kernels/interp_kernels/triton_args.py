"""What the Triton kernels are given: named tuples of pointers and strides, made from `Problem`, `Mask` and `Edit`. Imports no Triton.

A field that is None is compiled away. Axes that broadcast have stride 0, so nothing is repeated. Index tensors come as int32 [B] or [H].
"""

from __future__ import annotations

import importlib.util
import math
from typing import NamedTuple

import torch
from torch import Tensor

from interp_kernels.spec.edit import Edit
from interp_kernels.spec.mask import Mask
from interp_kernels.spec.problem import Problem
from interp_kernels.visibility import hide_bits

MAX_HEAD_DIM = 256
_FAR = 1 << 29  # as in triton_masks
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class Strided(NamedTuple):
    """A tensor by pointer and the strides of batch, head and row; the last axis has stride 1 (or is the row axis itself)."""

    p: Tensor
    b: int
    h: int
    r: int


class MaskArgs(NamedTuple):
    """`Mask` for the kernels; see `triton_masks.visible_tile`."""

    window: int | None = None
    left: Tensor | None = None
    right: Tensor | None = None
    prefix: Tensor | None = None
    sinks: Tensor | None = None
    windows: Tensor | None = None
    row_docs: Strided | None = None
    key_docs: Strided | None = None
    row_words: Strided | None = None
    key_words: Strided | None = None
    head_words: Tensor | None = None
    keep: Strided | None = None
    block_rows: int | None = None
    block_keys: int | None = None
    slopes: Tensor | None = None
    bias: Strided | None = None
    bias_floor: float | None = None
    bias_adds: int | None = None


class EditArgs(NamedTuple):
    """`Edit` for the kernels; sets come as one code per key (the last code: in no set)."""

    logit_scale: Strided | None = None
    key_bias: Strided | None = None
    codes: Strided | None = None
    factors: Strided | None = None
    gate: Strided | None = None


def strided(x: Tensor) -> Strided:
    """[B or 1, H or 1, N or 1, (features)] with stride 0 on axes of size 1; copies when the feature axis is not dense."""
    if x.ndim == 4 and x.stride(3) != 1 and x.shape[3] > 1:
        x = x.contiguous()
    b, h, r = (x.stride(axis) if x.shape[axis] > 1 else 0 for axis in range(3))
    return Strided(x, b, h, r)


def keyed(x: Tensor) -> Strided:
    """[B or 1, (H or 1,) N] numbers by key or by row: dense last axis, stride 0 on leading axes of size 1."""
    x = (x if x.ndim == 3 else x.unsqueeze(1)).contiguous()
    b, h = (x.stride(axis) if x.shape[axis] > 1 else 0 for axis in range(2))
    return Strided(x, b, h, 1)


def index_vector(x: Tensor | None, size: int) -> Tensor | None:
    """A per-batch or per-head integer vector as int32 [size], clamped so that sums with positions stay inside int32."""
    return None if x is None else x.clamp(-_FAR, _FAR).to(torch.int32).expand(size).contiguous()


def lower_mask(mask: Mask, batch: int, heads: int, queries: int, keys: int, device: torch.device) -> MaskArgs:
    """`MaskArgs` of a mask for a call of these sizes."""
    words = hide_bits(mask, heads, queries, keys, device)
    bias = None
    floor = None
    if mask.dense_bias is not None:
        is_bool = mask.dense_bias.dtype == torch.bool
        bias = strided(mask.dense_bias.contiguous().view(torch.int8) if is_bool else mask.dense_bias.contiguous())
        floor = 0.0 if is_bool else torch.finfo(mask.dense_bias.dtype).min / 2
    return MaskArgs(
        window=None if mask.window is None else min(mask.window, _FAR),
        left=index_vector(mask.left, batch),
        right=index_vector(mask.right, batch),
        prefix=index_vector(mask.prefix_length, batch),
        sinks=index_vector(mask.head_sinks, heads),
        windows=index_vector(mask.head_windows, heads),
        row_docs=None if mask.query_documents is None else keyed(mask.query_documents),
        key_docs=None if mask.key_documents is None else keyed(mask.key_documents),
        row_words=None if words is None else keyed(words[0]),
        key_words=None if words is None else keyed(words[1]),
        head_words=None if words is None else words[2],
        keep=None if mask.block_keep is None else strided(mask.block_keep.contiguous().view(torch.int8)),
        block_rows=None if mask.block_size is None else mask.block_size[0],
        block_keys=None if mask.block_size is None else mask.block_size[1],
        slopes=None if mask.alibi_slopes is None else mask.alibi_slopes.to(torch.float32).contiguous(),
        bias=bias,
        bias_floor=floor,
        bias_adds=1 if mask.dense_bias is not None and mask.dense_bias.dtype != torch.bool else None,
    )


def lower_edit(edit: Edit | None) -> EditArgs:
    """`EditArgs` of an edit."""
    if edit is None:
        return EditArgs()
    codes = None
    if edit.sets is not None:
        number = torch.arange(edit.sets.shape[2], device=edit.sets.device)[:, None]
        codes = torch.where(edit.sets, number, edit.sets.shape[2]).amin(2).to(torch.int8)
    return EditArgs(
        logit_scale=None if edit.logit_scale is None else strided(edit.logit_scale.to(torch.float32)),
        key_bias=None if edit.key_bias is None else keyed(edit.key_bias.to(torch.float32)),
        codes=None if codes is None else keyed(codes),
        factors=None if edit.factors is None else strided(edit.factors.to(torch.float32)),
        gate=None if edit.gate is None else strided(edit.gate.to(torch.float32)),
    )


def is_plain(problem: Problem) -> bool:
    """Whether nothing but the scale acts on the products q.k, so that the forward may take log2 e into it."""
    mask, edit = problem.mask, problem.edit
    edited = edit is not None and (edit.logit_scale is not None or edit.key_bias is not None)
    return problem.softcap is None and mask.alibi_slopes is None and mask.dense_bias is None and not edited


def forward_scale(problem: Problem) -> float:
    """The factor on q.k that the forward takes: in base 2 for plain problems, else in nats."""
    return problem.scale * math.log2(math.e) if is_plain(problem) else problem.scale


def refusal(problem: Problem) -> str:
    """Why Triton cannot serve this problem, or "" when it can. Every operation asks this first."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if problem.q.dtype not in DTYPES:
        return f"triton computes in float32, float16 and bfloat16, not {problem.q.dtype}; use portable or reference"
    if problem.q.shape[3] > MAX_HEAD_DIM:
        return f"head dim {problem.q.shape[3]} is over {MAX_HEAD_DIM}"
    if min(problem.batch, problem.heads, problem.queries, problem.keys, problem.q.shape[3]) == 0:
        return "an axis is empty"
    if problem.q.device.type == "cuda":
        return ""
    if problem.q.device.type != "cpu":
        return f"no Triton for device {problem.q.device.type}"
    return "" if interpreted() else "CPU tensors need TRITON_INTERPRET=1, set before Triton is imported"


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels (TRITON_INTERPRET=1 when our kernels were first imported)."""
    masks = importlib.import_module("interp_kernels.triton_masks")
    return type(masks.tanh).__name__ == "InterpretedFunction"
