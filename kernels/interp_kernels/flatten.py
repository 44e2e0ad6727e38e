"""A `Problem` and a `Collect` as the flat arguments of the C++ operators.

The order of the slots is the contract with csrc/bind.h and csrc/ops.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from interp_kernels.spec.collect import Collect
from interp_kernels.spec.edit import Edit
from interp_kernels.spec.mask import Mask
from interp_kernels.spec.problem import Problem
from interp_kernels.visibility import hide_bits

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# The kernels read whole vectors: arrays along the keys are padded to a multiple of the widest one, and key sets to groups of four.
KEY_PADDING = 16
SET_PADDING = 4

MaybeTensors = list[Tensor | None]


def servable(problem: Problem) -> tuple[bool, str]:
    """Whether the C++ kernels can compute this problem (whether they are built is another question), and why not."""
    if problem.q.device.type != "cpu":
        return False, f"the tensors are on {problem.q.device}, not on the CPU"
    if problem.q.dtype not in DTYPES:
        return False, f"{problem.q.dtype} is not among float32, bfloat16 and float16"
    if min(problem.queries, problem.keys, problem.batch, problem.heads, problem.q.shape[3]) == 0:
        return False, "an axis is empty"
    if max(problem.queries, problem.keys) >= 2**24:
        return False, "positions from 2**24 on are not exact in float32"
    edit, mask = problem.edit, problem.mask
    tensors = [mask.alibi_slopes, mask.dense_bias]
    tensors += [] if edit is None else [edit.logit_scale, edit.key_bias, edit.factors, edit.gate]
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors):
        return False, "its backward gives no gradients of edits, slopes or dense biases"
    return True, ""


def features(x: Tensor, *, widen: bool = True) -> Tensor:
    """q, k or v as the kernels read it: contiguous features, in float32 (widening bfloat16 and float16 is exact) or as they are."""
    x = x.float() if widen else x
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


@dataclass(frozen=True, kw_only=True, eq=False)
class FlatProblem:
    """q, k and everything that makes logits of them, ready for an operator."""

    q: Tensor
    k: Tensor
    scale: float
    softcap: float
    mask: MaybeTensors
    mask_ints: list[int]
    edit: MaybeTensors

    @staticmethod
    def of(problem: Problem, *, widen: bool = True) -> FlatProblem:
        """Flatten a checked problem; `widen` as in `features`."""
        return FlatProblem(
            q=features(problem.q, widen=widen),
            k=features(problem.k, widen=widen),
            scale=problem.scale,
            softcap=problem.softcap or 0.0,
            mask=_mask_tensors(problem),
            mask_ints=_mask_ints(problem),
            edit=_edit_tensors(problem.edit),
        )

    def arguments(self) -> tuple[Tensor, Tensor, float, float, MaybeTensors, list[int], MaybeTensors]:
        """The leading arguments that `columns`, `entries`, `tile` and the backward share."""
        return self.q, self.k, self.scale, self.softcap, self.mask, self.mask_ints, self.edit


def _mask_ints(problem: Problem) -> list[int]:
    mask = problem.mask
    rows, keys = mask.block_size or (0, 0)
    return [int(mask.is_causal), problem.offset, mask.window or 0, rows, keys]


def _mask_tensors(problem: Problem) -> MaybeTensors:
    mask = problem.mask
    hidden = hide_bits(mask, problem.heads, problem.queries, problem.keys, problem.q.device)
    return [
        _long(mask.left),
        _long(mask.right),
        _long(mask.prefix_length),
        _long(mask.head_sinks),
        _long(mask.head_windows),
        *_documents(mask),
        *((None, None, None) if hidden is None else (x.contiguous() for x in hidden)),
        None if mask.block_keep is None else mask.block_keep.contiguous().view(torch.uint8),
        None if mask.alibi_slopes is None else mask.alibi_slopes.detach().float().contiguous(),
        _bias(mask),
    ]


def _long(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.long().contiguous()


def _documents(mask: Mask) -> tuple[Tensor | None, Tensor | None]:
    if mask.query_documents is None or mask.key_documents is None:
        return None, None
    return small_ids(mask.query_documents, mask.key_documents)


def small_ids(rows: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Two id tensors as int32: as they are where they fit, else renumbered (equal ids stay equal, negative ones negative)."""
    bound = torch.iinfo(torch.int32).max
    if all(
        x.dtype in (torch.int32, torch.int16, torch.int8, torch.uint8) or int(x.abs().max()) < bound
        for x in (rows, keys)
    ):
        return rows.to(torch.int32).contiguous(), keys.to(torch.int32).contiguous()
    ids, number = _distinct(torch.cat([rows.flatten(), keys.flatten()]))
    number = (number - int((ids < 0).sum())).to(torch.int32)
    return number[: rows.numel()].view(rows.shape), number[rows.numel() :].view(keys.shape)


def _distinct(x: Tensor) -> tuple[Tensor, Tensor]:
    """The sorted distinct values, and where each entry stands among them."""
    both = torch.unique(x, return_inverse=True)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    values, place = cast("tuple[Tensor, Tensor]", both)
    return values, place


def _bias(mask: Mask) -> Tensor | None:
    bias = mask.dense_bias
    if bias is None:
        return None
    if bias.dtype == torch.bool:
        return torch.zeros(bias.shape).masked_fill(~bias, float("-inf"))
    low = torch.finfo(bias.dtype).min / 2
    return bias.detach().float().masked_fill(bias <= low, float("-inf")).contiguous()


def _edit_tensors(edit: Edit | None) -> MaybeTensors:
    if edit is None:
        return [None] * 5
    which = None
    if edit.sets is not None:
        count = edit.sets.shape[2]
        number = torch.arange(count, dtype=torch.uint8)[:, None]
        which = torch.where(edit.sets.any(2), (edit.sets * number).sum(2), count).to(torch.uint8).contiguous()
    return [_float(edit.logit_scale), _float(edit.key_bias), which, _float(edit.factors), _float(edit.gate)]


def _float(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach().float().contiguous()


@dataclass(frozen=True, kw_only=True, eq=False)
class FlatCollect:
    """A `Collect` ready for the operator; `rows` are the distinct rows of topk and `place` where each wanted row stands among them."""

    tensors: MaybeTensors
    wish: int
    sets: int
    topk: int
    topk_rows: int
    windows: list[int]
    offsets: list[int]
    place: Tensor | None

    @staticmethod
    def of(collect: Collect, queries: int, keys: int) -> FlatCollect:
        """Flatten a checked wish."""
        flags = (collect.entropy, collect.row_max, collect.logit_moments, collect.prob_square, collect.distance)
        rows, same = (None, None) if collect.match is None else small_ids(*collect.match)
        slot = place = None
        count = 0
        if collect.topk:
            wanted = torch.arange(queries) if collect.topk_rows is None else collect.topk_rows.long()
            distinct, place = _distinct(wanted)
            count = len(distinct)
            slot = torch.full((queries,), -1).index_put((distinct,), torch.arange(count))
            place = None if collect.topk_rows is None else place
        return FlatCollect(
            tensors=[
                None if collect.key_sets is None else _padded(collect.key_sets.float(), keys, 0.0, SET_PADDING),
                None if collect.rest is None else _padded(-(~collect.rest).to(torch.int32), keys, 0),
                rows,
                None if same is None else _padded(same, keys, -1),
                slot,
            ],
            wish=sum(1 << bit for bit, flag in enumerate(flags) if flag),
            sets=0 if collect.key_sets is None else collect.key_sets.shape[1],
            topk=collect.topk,
            topk_rows=count,
            windows=list(collect.windows),
            offsets=list(collect.offsets),
            place=place,
        )


def _padded(x: Tensor, keys: int, value: float, rows: int = 1) -> Tensor:
    more = (0, -keys % KEY_PADDING) + ((0, -x.shape[-2] % rows) if rows > 1 else ())
    return torch.nn.functional.pad(x, more, value=value).contiguous()
