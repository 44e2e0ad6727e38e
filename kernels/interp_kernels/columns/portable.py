"""`columns` in plain torch on any device: row blocks of the map exp(s - lse), summed as they pass. No gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from interp_kernels.columns.api import ColumnsCall
from interp_kernels.row_blocks import Block, Slab, part_of_batch, slabs
from interp_kernels.spec.collect import HISTOGRAM_BINS


def supports(call: ColumnsCall) -> tuple[bool, str]:
    """Everything."""
    return True, ""


def run(call: ColumnsCall) -> dict[str, Tensor]:
    """The sums asked for, in the working dtype; counts in float64, which holds them exactly."""
    with torch.no_grad():
        sums = _zeros(call)
        for slab in slabs(call.problem):
            rows = part_of_batch(call.rows, slab.batch)[:, None].to(slab.dtype)
            here = {name: x[slab.batch, slab.heads] for name, x in sums.items()}
            for block in slab.blocks():
                prob = weights(slab, block, call.lse)
                _add(call, here, prob, rows[..., block.rows.start : block.rows.stop], block, slab)
        return {name: x if x.is_floating_point() else x.double() for name, x in sums.items()}


def weights(slab: Slab, block: Block, lse: Tensor) -> Tensor:
    """The map on a block, exp(s - lse) [b, h, rows, cols], in the slab's buffer of logits; 0 where hidden and in empty rows."""
    lse = lse[slab.batch, slab.heads, block.rows.start : block.rows.stop].to(slab.dtype)
    return slab.logits(block).s.sub_(lse.masked_fill(lse == float("-inf"), 0.0)[..., None]).exp_()


def _zeros(call: ColumnsCall) -> dict[str, Tensor]:
    p, wish = call.problem, call.collect
    lead, subsets = (p.batch, p.heads), (p.batch, p.heads, call.rows.shape[1])
    shapes: dict[str, tuple[int, ...]] = {}
    if wish.received:
        shapes["received"] = (*subsets, p.keys)
    if wish.diagonals:
        shapes["diagonals"] = (*subsets, p.queries + p.keys - 1)
    if wish.block:
        cells = (*lead, -(-p.queries // wish.block), -(-p.keys // wish.block))
        shapes |= {"block_sum": cells, "block_max": cells}
    sums = {name: p.q.new_zeros(shape, dtype=p.work_dtype) for name, shape in shapes.items()}
    if wish.histogram:
        bins = (*subsets, HISTOGRAM_BINS)
        sums["histogram_mass"] = p.q.new_zeros(bins, dtype=p.work_dtype)
        sums["histogram_count"] = torch.zeros(bins, dtype=torch.int64, device=p.q.device)
    return sums


def _add(call: ColumnsCall, sums: dict[str, Tensor], prob: Tensor, rows: Tensor, block: Block, slab: Slab) -> None:
    p, wish = call.problem, call.collect
    if wish.received:
        sums["received"][..., block.cols.start : block.cols.stop] += rows @ prob
    if wish.diagonals:
        # Entry (i, j) belongs to diagonal i - j + Nk - 1; the block's first is that of its first row and last column.
        first = block.rows.start - (block.cols.stop - 1) + p.keys - 1
        part = rows @ _skewed(prob, slab)
        sums["diagonals"][..., first : first + part.shape[-1]] += part
    if wish.block:
        _add_cells(sums, prob, block, wish.block)
    if wish.histogram:
        number = bin_numbers(prob)
        shape = (*prob.shape[:3], HISTOGRAM_BINS)
        mass = prob.new_zeros(shape).scatter_add_(-1, number, prob)
        # One block's counts stay below 2**24, where float32 is exact.
        count = prob.new_zeros(shape).scatter_add_(-1, number, (prob > 0).to(prob.dtype))
        sums["histogram_mass"] += rows @ mass
        sums["histogram_count"] += (rows @ count).long()


def bin_numbers(prob: Tensor) -> Tensor:
    """min(31, floor(-log2 p)) as int64, from the binary exponent and so exact at powers of two; 31 where p is 0."""
    fraction, exponent = torch.frexp(prob)
    # p = fraction 2^exponent with fraction in [1/2, 1).
    number = (fraction == 0.5).to(torch.int64) - exponent
    return torch.where(prob > 0, number, HISTOGRAM_BINS - 1).clamp_(0, HISTOGRAM_BINS - 1)


def _skewed(prob: Tensor, slab: Slab) -> Tensor:
    """Row r shifted so that equal columns are equal diagonals: [b, h, rows, rows + cols - 1], from the last column of the first row on."""
    b, h, r, n = prob.shape
    # Rows of width n + 2 (r - 1), the entries in the middle, reversed; read again with one entry less a row.
    wide = slab.buffer("skewed", b, h, r, n + 2 * (r - 1)).zero_()
    wide[..., r - 1 : r - 1 + n] = prob.flip(-1)
    return wide.as_strided(
        (b, h, r, n + r - 1), (*wide.stride()[:2], wide.stride(2) - 1, 1), wide.storage_offset() + r - 1
    )


def _add_cells(sums: dict[str, Tensor], prob: Tensor, block: Block, size: int) -> None:
    start, stop = block.cols.start // size, -(-block.cols.stop // size)
    pad = (block.cols.start - start * size, stop * size - block.cols.stop)
    cells = torch.nn.functional.pad(prob, pad).view(*prob.shape[:3], stop - start, size)
    line = block.rows.arange(prob.device) // size
    sums["block_sum"][..., start:stop].index_add_(2, line, cells.sum(-1))
    largest = cells.amax(-1)
    sums["block_max"][..., start:stop].scatter_reduce_(2, line[:, None].expand_as(largest), largest, "amax")
