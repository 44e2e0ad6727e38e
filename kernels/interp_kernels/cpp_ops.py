"""The C++ operators as torch custom operators: shapes for tracing (fake implementations) and the gradient of `attention`.

`torch.ops.interp_kernels_cpu.*` exist once `ready()` has answered (True, ""); the schemas are in csrc/ops.cpp.
With p_ij the weights and f the edit's factors, the gradient of a final logit is
``p_ij (f_ij dO_i.v_j + dlse_i - dO_i.out_i - dH_i (s_ij - lse_i + H_i))``
(Dao et al. 2022, appendix B, with the terms of lse and entropy added).
"""

from __future__ import annotations

import threading
from typing import Any, Literal, cast

import torch
from torch import Tensor

from interp_kernels import build
from interp_kernels.flatten import MaybeTensors

HISTOGRAM_BINS = 32
# Where the tensors that have a gradient stand in the schema of `attention`.
_ARGUMENTS = 16
_Q, _K, _V, _SINK = 0, 1, 2, 5
# Where the results with a gradient stand among its results.
_OUT, _LSE, _LSE_LOW, _ENTROPY = 0, 1, 2, 3
_ENTROPY_BIT = 1

# As in csrc/half.h.
_GAINS = 2

BFloat16Path = Literal["native", "widened"]
# None leaves the choice to the processor. Tests set it, since the other path must be right on the machines that take it.
PREFERRED_BFLOAT16_PATH: BFloat16Path | None = None

_half_support = [0]
_lock = threading.Lock()
_registered: list[bool] = []


def ready(progress: build.Progress | None = None) -> tuple[bool, str]:
    """Whether the operators can be called in this process, and why not. Builds and registers at the first call."""
    ok, why = build.ready(progress)
    if not ok:
        return False, why
    with _lock:
        if not _registered:
            _register()
            _registered.append(True)
    return True, ""


def bfloat16_path() -> BFloat16Path:
    """How the forward sweep of bfloat16 runs: on bfloat16 products where the processor gains by them (AMX, AVX512_BF16), else widened to
    float32. To be asked after `ready()`."""
    if PREFERRED_BFLOAT16_PATH is not None:
        return PREFERRED_BFLOAT16_PATH
    return "native" if _half_support[0] == _GAINS else "widened"


def can_multiply_bfloat16() -> bool:
    """Whether bfloat16 products run here at all, fast or not. To be asked after `ready()`."""
    return _half_support[0] > 0


def _register() -> None:
    _half_support[:] = [torch.ops.interp_kernels_cpu.half_support()]
    for name, fake in (
        ("attention", _fake_attention),
        ("attention_backward", _fake_backward),
        ("columns", _fake_columns),
        ("entries", _fake_entries),
        ("tile", _fake_tile),
    ):
        torch.library.register_fake(  # pyright: ignore[reportUnknownMemberType]
            f"interp_kernels_cpu::{name}", fake
        )
    torch.library.register_autograd(  # pyright: ignore[reportUnknownMemberType]
        "interp_kernels_cpu::attention", _backward, setup_context=_save
    )


def _fake_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    softcap: float,
    sink_logits: Tensor | None,
    mask: MaybeTensors,
    mask_ints: list[int],
    edit: MaybeTensors,
    collect: MaybeTensors,
    wish: int,
    sets: int,
    topk: int,
    topk_rows: int,
    windows: list[int],
    offsets: list[int],
) -> tuple[Tensor, ...]:
    lead = q.shape[:3]
    matches = collect[2]

    def wanted(ask: bool, *last: int) -> Tensor:
        return q.new_empty((*lead, *last) if ask else (0,), dtype=torch.float32)

    top = (*q.shape[:2], topk_rows, topk) if topk else (0,)
    return (
        wanted(True, v.shape[3]),
        wanted(True),
        wanted(True),
        wanted(bool(wish & 1)),
        wanted(bool(wish & 2)),
        wanted(bool(wish & 4), 2),
        wanted(bool(wish & 8)),
        wanted(bool(wish & 16)),
        wanted(sets > 0, sets),
        wanted(collect[1] is not None),
        wanted(collect[1] is not None),
        wanted(matches is not None, 0 if matches is None else matches.shape[1]),
        wanted(len(windows) > 0, len(windows)),
        wanted(len(offsets) > 0, len(offsets)),
        q.new_empty(top, dtype=torch.int64),
        q.new_empty(top, dtype=torch.float32),
        wanted(sink_logits is not None),
    )


def _fake_backward(
    q: Tensor,
    k: Tensor,
    scale: float,
    softcap: float,
    mask: MaybeTensors,
    mask_ints: list[int],
    edit: MaybeTensors,
    v: Tensor,
    lse: Tensor,
    lse_low: Tensor,
    grad_out: Tensor,
    base: Tensor,
    grad_entropy: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _fake_columns(
    q: Tensor,
    k: Tensor,
    scale: float,
    softcap: float,
    mask: MaybeTensors,
    mask_ints: list[int],
    edit: MaybeTensors,
    lse: Tensor,
    rows: Tensor,
    subsets: int,
    received: bool,
    diagonals: bool,
    block: int,
    histogram: bool,
) -> tuple[Tensor, ...]:
    lead, nq, nk = q.shape[:2], q.shape[2], k.shape[2]

    def wanted(ask: bool, *last: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return q.new_empty((*lead, *last) if ask else (0,), dtype=dtype)

    cells = (-(-nq // block), -(-nk // block)) if block else (0, 0)
    return (
        wanted(received, subsets, nk),
        wanted(diagonals, subsets, nq + nk - 1),
        wanted(block > 0, *cells),
        wanted(block > 0, *cells),
        wanted(histogram, subsets, HISTOGRAM_BINS, dtype=torch.int64),
        wanted(histogram, subsets, HISTOGRAM_BINS),
    )


def _fake_entries(
    q: Tensor,
    k: Tensor,
    scale: float,
    softcap: float,
    mask: MaybeTensors,
    mask_ints: list[int],
    edit: MaybeTensors,
    lse: Tensor,
    i: Tensor,
    j: Tensor,
) -> Tensor:
    return q.new_empty((*q.shape[:2], i.shape[0]))


def _fake_tile(
    q: Tensor,
    k: Tensor,
    scale: float,
    softcap: float,
    mask: MaybeTensors,
    mask_ints: list[int],
    edit: MaybeTensors,
    lse: Tensor,
    row_edges: Tensor,
    col_edges: Tensor,
    largest: bool,
) -> Tensor:
    return q.new_empty((*q.shape[:2], row_edges.shape[0] - 1, col_edges.shape[0] - 1))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, ctx.scale, ctx.softcap, sink_logits, mask, ctx.mask_ints, edit, _, wish, *_ = inputs
    # torch wants a list back for a list that holds tensors only (an empty one counts as such), and None for any other.
    ctx.tensor_lists = {
        place: len(cast("list[object]", x))
        for place, x in enumerate(inputs)
        if isinstance(x, list) and all(isinstance(y, Tensor) for y in cast("list[object]", x))
    }
    ctx.lists = len(mask)
    ctx.has_entropy = bool(wish & _ENTROPY_BIT)
    ctx.save_for_backward(
        q, k, v, sink_logits, *mask, *edit, output[_OUT], output[_LSE], output[_LSE_LOW], output[_ENTROPY]
    )


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    q, k, v, sink_logits, *rest, out, lse, lse_low, entropy = ctx.saved_tensors
    mask, edit = rest[: ctx.lists], rest[ctx.lists :]
    given = grads[_OUT]
    grad_out = torch.zeros_like(out) if given is None else given.contiguous()
    base = -(grad_out * out).sum(-1)
    if grads[_LSE] is not None:
        base = base + grads[_LSE]
    grad_entropy = grads[_ENTROPY] if ctx.has_entropy else None
    if grad_entropy is not None:
        grad_entropy = grad_entropy.contiguous()
        base = base - grad_entropy * entropy
    base = base.contiguous()
    gq, gk, gv = torch.ops.interp_kernels_cpu.attention_backward(
        q.float(), k.float(), ctx.scale, ctx.softcap, mask, ctx.mask_ints, edit, v.float(), lse, lse_low, grad_out, base, grad_entropy
    )  # fmt: skip
    result: list[Any] = [None] * _ARGUMENTS
    for place, length in ctx.tensor_lists.items():
        result[place] = [None] * length
    result[_Q], result[_K], result[_V] = gq.to(q.dtype), gk.to(k.dtype), gv.to(v.dtype)
    if sink_logits is not None:
        below = sink_logits[:, None] - lse - lse_low
        slope = base if grad_entropy is None else base - grad_entropy * below
        result[_SINK] = (below.exp() * slope).sum((0, 2))
    return tuple(result)
