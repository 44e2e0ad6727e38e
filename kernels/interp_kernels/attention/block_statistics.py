"""Statistics of whole rows: from the logits of one row block to everything that `Collect` names.

With m the row's largest visible logit, d = s - m and e = exp(d), every mass is a sum of e over a key set times 1 / total,
where total = sum e (plus exp(sink - m)). The entropy is log(total) - (sum e d) / total; both terms are positive, so
nothing cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp_kernels.row_blocks import Block, Logits

_NONE = float("-inf")
# Share of the mass below which the keys outside a set are looked at on their own.
FAINT = 2.0**-12


@dataclass(frozen=True)
class Softmax:
    """The softmax of the rows of a block.

    Attributes:
        d: s - row_max, [b, h, rows, cols], -inf where hidden (0 after `Logits.fill_hidden`); the buffer of the logits.
        e: exp(d), 0 where hidden.
        total: sum of e over the keys.
        row_max: [b, h, rows] as the other row quantities; -inf for rows that see nothing.
        inverse: probability = e * inverse; 0 for rows that see nothing.
        log_total: lse - row_max, 0 for rows without any outcome.
        lse: log of the sum over keys and sink.
        sink: (mass, its part of the entropy) of the learned sink logit, or None.
    """

    d: Tensor
    e: Tensor
    total: Tensor
    row_max: Tensor
    inverse: Tensor
    log_total: Tensor
    lse: Tensor
    sink: tuple[Tensor, Tensor] | None


def softmax(logits: Logits, sink_logits: Tensor | None, e: Tensor) -> Softmax:
    """Turn a block's logits into d (in place) and e (written to `e`)."""
    row_max = logits.s.amax(-1)
    low = row_max.masked_fill(row_max == _NONE, 0.0)
    d = logits.s.sub_(low[..., None])
    torch.exp(d, out=e)
    total = e.sum(-1)
    if sink_logits is None:
        some = total > 0
        log_total = torch.log(total).masked_fill(~some, 0.0)
        inverse = torch.where(some, total.reciprocal(), 0.0)
        return Softmax(d, e, total, row_max, inverse, log_total, torch.where(some, low + log_total, _NONE), None)
    # Both outcomes are taken below the larger of the two, so that neither overflows.
    sink = sink_logits.to(e.dtype)[None, :, None].expand_as(row_max)
    top = torch.maximum(row_max, sink)
    top = top.masked_fill(top == _NONE, 0.0)
    keys, own = torch.exp(row_max - top), torch.exp(sink - top)
    both = total * keys + own
    some = both > 0
    log_both = torch.log(both).masked_fill(~some, 0.0)
    share = torch.where(some, both.reciprocal(), 0.0)
    surprise = (top - sink + log_both).masked_fill(own == 0, 0.0)
    mass = own * share
    log_total = (top - low + log_both).masked_fill(row_max == _NONE, 0.0)
    return Softmax(
        d, e, total, row_max, keys * share, log_total, torch.where(some, top + log_both, _NONE), (mass, mass * surprise)
    )


def weigh_logits(soft: Softmax) -> Tensor:
    """e d in the place of d, which must be 0 where hidden: what the entropies sum up. The last use of d."""
    return soft.d.mul_(soft.e)


def entropy(soft: Softmax, weighed: Tensor) -> Tensor:
    """Entropy of keys and sink, [b, h, rows]; `weighed` from `weigh_logits`."""
    of_keys = soft.inverse * (soft.total * soft.log_total - weighed.sum(-1))
    return of_keys if soft.sink is None else of_keys + soft.sink[1]


def moments(soft: Softmax) -> Tensor:
    """Sums of (s - row_max) and its square over visible keys, [b, h, rows, 2]. Needs d to be 0 where hidden."""
    return torch.stack([soft.d.sum(-1), _square_sum(soft.d)], -1)


def prob_square(soft: Softmax) -> Tensor:
    """Sum of squared probabilities of the keys."""
    return _square_sum(soft.e) * soft.inverse.square()


def distance(soft: Softmax, block: Block, offset: int, scratch: Tensor) -> Tensor:
    """Sum of p (i + offset - j), entry by entry: sums of p i and of p j would cancel."""
    gap = block.rows.arange(soft.e.device)[:, None] + offset - block.cols.arange(soft.e.device)
    return torch.mul(soft.e, gap.to(soft.e.dtype), out=scratch).sum(-1) * soft.inverse


class Rest:
    """Mass and entropy over the keys outside a set. Made before d is touched, finished with e d.

    Sums of e below the row's maximum serve most rows; the entropy log l' - (sum' e d) / l' then subtracts numbers up to
    -log FAINT, and may err by 16 eps of the dtype in absolute terms. Where the keys left out hold nearly all the mass,
    the others' e have lost their digits, and those few rows get a softmax of their own.
    """

    def __init__(self, soft: Softmax, left_out: Tensor) -> None:
        """left_out: bool [b or 1, cols]; d is -inf where hidden."""
        self.soft, self.others = soft, (~left_out).to(soft.e.dtype)
        self.total = _sum_over(soft.e, self.others)
        self.faint = self.total < FAINT * soft.total
        if not bool(self.faint.any()):
            self.own = None
            return
        t = soft.d[self.faint]
        out = left_out[self.faint.nonzero()[:, 0]] if left_out.shape[0] > 1 else left_out
        top = t.masked_fill_(out, _NONE).amax(-1, keepdim=True)
        e = torch.exp(t.sub_(top.masked_fill(top == _NONE, 0.0)))
        total = e.sum(-1)
        log_total = torch.log(total).masked_fill(total == 0, 0.0)
        surprise = torch.where(total > 0, log_total - t.masked_fill_(e == 0, 0.0).mul_(e).sum(-1) / total, 0.0)
        self.own = torch.exp(top[:, 0] + log_total - soft.log_total[self.faint]), surprise

    def finish(self, weighed: Tensor) -> tuple[Tensor, Tensor]:
        """(mass, entropy), [b, h, rows]; `weighed` from `weigh_logits`."""
        some = self.total > 0
        total = torch.where(some, self.total, 1.0)
        mass = self.total * self.soft.inverse
        surprise = torch.log(total) - _sum_over(weighed, self.others) / total
        surprise = torch.where(some, surprise, 0.0)
        if self.own is not None:
            mass[self.faint], surprise[self.faint] = self.own
        return mass, surprise


def windows(soft: Softmax, block: Block, offset: int, sizes: Sequence[int]) -> Tensor:
    """Mass on the keys with 0 <= i + offset - j < w, [b, h, rows, W]."""
    pos = block.rows.arange(soft.e.device)[:, None] + offset
    cols = block.cols
    first, last = block.rows.start + offset, block.rows.stop - 1 + offset
    masses: list[Tensor] = []
    for w in sizes:
        # Columns inside the window of every row need no mask.
        inner = min(max(last - w + 1, cols.start), cols.stop), max(min(first + 1, cols.stop), cols.start)
        outer = min(max(first - w + 1, cols.start), cols.stop), max(min(last + 1, cols.stop), cols.start)
        parts = [outer] if inner[0] >= inner[1] else [(outer[0], inner[0]), (inner[1], outer[1])]
        mass = soft.e[..., inner[0] - cols.start : inner[1] - cols.start].sum(-1) if inner[0] < inner[1] else 0.0
        for a, b in parts:
            if a < b:
                gap = pos - torch.arange(a, b, device=pos.device)
                mass = mass + (soft.e[..., a - cols.start : b - cols.start] * ((gap >= 0) & (gap < w))).sum(-1)
        masses.append(mass if isinstance(mass, Tensor) else torch.zeros_like(soft.inverse))
    return torch.stack(masses, -1) * soft.inverse[..., None]


def offsets(soft: Softmax, block: Block, offset: int, distances: Sequence[int]) -> Tensor:
    """Probability at the key i + offset - d, [b, h, rows, O]; 0 where there is none."""
    row = torch.arange(soft.e.shape[2], device=soft.e.device)[:, None]
    steps = torch.tensor(distances, device=row.device)
    col = row + (block.rows.start + offset - block.cols.start) - steps
    there = (col >= 0) & (col < soft.e.shape[3])
    found = soft.e[:, :, row, col.clamp(0, soft.e.shape[3] - 1)]
    return found * there * soft.inverse[..., None]


def matches(soft: Softmax, row_ids: Tensor, key_ids: Tensor, scratch: Tensor) -> Tensor:
    """Mass on the keys whose id is the row's, [b, h, rows, M]; ids [b or 1, M, rows] and [b or 1, M, cols], negative ids match nothing."""
    masses: list[Tensor] = []
    for m in range(row_ids.shape[1]):
        rows = row_ids[:, m, :, None]
        same = (rows == key_ids[:, m, None, :]) & (rows >= 0)
        masses.append(torch.mul(soft.e, same[:, None], out=scratch).sum(-1))
    return torch.stack(masses, -1) * soft.inverse[..., None]


def _sum_over(x: Tensor, members: Tensor) -> Tensor:
    """Sum of x [b, h, rows, cols] over the columns of a set, 0 and 1 in members [b or 1, cols]."""
    return torch.stack([part @ members[min(b, len(members) - 1)] for b, part in enumerate(x)])


def _square_sum(x: Tensor) -> Tensor:
    # One pass and no square in memory.
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return norm * norm  # pyright: ignore[reportUnknownVariableType]
