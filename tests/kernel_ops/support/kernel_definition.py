"""The test-suite's own definition of every kernel, written from the docstrings of `Mask`, `Edit`, `Collect` and `ColumnCollect` alone.

It calls nothing of `interp_kernels.visibility` or `interp_kernels.scores`: visibility is decided entry by entry in plain
Python, the map is dense. In float64 it is the truth that `reference` is checked against; in a lower dtype it is the
"same-precision dense formula" of the tolerance rule.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

INF = float("inf")


def sees(mask, batch: int, heads: int, queries: int, keys: int) -> Tensor:
    """Bool [B, H, Nq, Nk], one entry after the other by the seven conditions of the docstring of `Mask`."""
    offset = mask.offset if mask.offset is not None else (keys - queries if mask.is_causal else 0)
    left = _listed(mask.left, batch, 0)
    right = _listed(mask.right, batch, 0)
    prefix = _listed(mask.prefix_length, batch, 0)
    sinks = _listed(mask.head_sinks, heads, 0)
    windows = _listed(mask.head_windows, heads, mask.window)
    query_docs = _rows(mask.query_documents, batch)
    key_docs = _rows(mask.key_documents, batch)
    rectangles = [(_rows(r.rows, batch), _rows(r.keys, batch), r.heads) for r in mask.hidden]
    keep = None if mask.block_keep is None else mask.block_keep.expand(batch, heads, -1, -1).tolist()
    dense = None if mask.dense_bias is None else _allowed(mask.dense_bias).expand(batch, heads, -1, -1).tolist()

    def one(b: int, h: int, i: int, j: int) -> bool:
        pos = i + offset
        upper = j < pos + 1 if mask.is_causal else (mask.window is None or j < pos + mask.window)
        if not (upper or j < left[b] + prefix[b]):
            return False
        if not (windows[h] is None or j > pos - windows[h] or j < left[b] + sinks[h]):
            return False
        if not left[b] <= j < keys - right[b]:
            return False
        if query_docs is not None and query_docs[b][i] != key_docs[b][j]:
            return False
        if any(rows[b][i] and cols[b][j] and (only is None or h in only) for rows, cols, only in rectangles):
            return False
        if keep is not None and not keep[b][h][i // mask.block_size[0]][j // mask.block_size[1]]:
            return False
        return dense is None or dense[b][h][i][j]

    # Heads and items with the same bounds see the same where nothing else tells them apart: their map is made once.
    alike = query_docs is None and keep is None and dense is None and not rectangles
    known: dict[object, list[bool]] = {}
    entries: list[bool] = []
    for b, h in itertools.product(range(batch), range(heads)):
        who = (left[b], right[b], prefix[b], sinks[h], windows[h]) if alike else (b, h)
        if who not in known:
            known[who] = [one(b, h, i, j) for i in range(queries) for j in range(keys)]
        entries += known[who]
    return torch.tensor(entries, dtype=torch.bool).view(batch, heads, queries, keys)


@dataclass(frozen=True)
class Order:
    """An order of the operations in scale q.k. Exact arithmetic has one result in all of them, so they show its noise.

    Attributes:
        part: q is multiplied by scale / part before the product, which is multiplied by part; None: by scale after it.
        features_reversed: from which end the products are summed.
        halves: sum the two halves of the features apart, then add them.
        base_two: take the logits to base two and back.
    """

    part: float | None = None
    features_reversed: bool = False
    halves: bool = False
    base_two: bool = False

    def product(self, q: Tensor, k: Tensor, scale: float) -> Tensor:
        """scale q.k, [Nq, Nk]."""
        q, k = (q.flip(-1), k.flip(-1)) if self.features_reversed else (q, k)
        q = q if self.part is None else q * (scale / self.part)
        half = q.shape[1] // 2 if self.halves else 0
        s = q[:, :half] @ k[:, :half].T + q[:, half:] @ k[:, half:].T if half else q @ k.T
        return s * (scale if self.part is None else self.part)


ORDERS = (Order(), Order(part=1.0))
MORE_ORDERS = tuple(Order(*choice) for choice in itertools.product((None, 1.0, 3.0, 0.7), *[(False, True)] * 3))


def logits(case, dtype: torch.dtype, order: Order = ORDERS[0]) -> tuple[Tensor, Tensor]:
    """(s, seen): final logits [B, H, Nq, Nk], -inf where hidden, and visibility after edits. Differentiable in all tensors."""
    mask, edit = case.mask, case.edit
    batch, heads, queries, _ = case.q.shape
    keys, group = case.k.shape[2], case.q.shape[1] // case.k.shape[1]
    scale = case.q.shape[3] ** -0.5 if case.scale is None else case.scale
    offset = mask.offset if mask.offset is not None else (keys - queries if mask.is_causal else 0)
    seen = case.seen
    maps = []
    for b in range(batch):
        for h in range(heads):
            q, k = case.q[b, h].to(dtype), case.k[b, h // group].to(dtype)
            s = order.product(q, k, scale)
            if case.softcap is not None:
                s = case.softcap * torch.tanh(s / case.softcap)
            if mask.alibi_slopes is not None:
                gap = (torch.arange(queries)[:, None] + offset - torch.arange(keys)[None, :]).abs()
                s = s - mask.alibi_slopes[h].to(dtype) * gap.to(dtype)
            if mask.dense_bias is not None and mask.dense_bias.dtype != torch.bool:
                bias = mask.dense_bias.expand(batch, heads, -1, -1)[b, h].to(dtype)
                s = s + torch.where(seen[b, h], bias, torch.zeros_like(bias))
            if edit is not None and edit.logit_scale is not None:
                s = s * edit.logit_scale.expand(batch, heads, -1)[b, h].to(dtype)[:, None]
            if edit is not None and edit.key_bias is not None:
                s = s + edit.key_bias.expand(batch, heads, -1)[b, h].to(dtype)[None, :]
            if order.base_two:
                s = (s * math.log2(math.e)) * math.log(2.0)
            maps.append(torch.where(seen[b, h], s, torch.full_like(s, -INF)))
    s = torch.stack(maps).view(batch, heads, queries, keys)
    return s, s.detach() > -INF


def weights(case, s: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """(p, lse, sink mass): softmax over the visible keys and the sink logit; rows without any outcome give 0 and -inf."""
    safe = torch.where(seen, s, torch.zeros_like(s))
    top = torch.where(seen, s, torch.full_like(s, -INF)).detach().amax(-1)
    sink = None
    if case.sink_logits is not None:
        sink = case.sink_logits.to(s.dtype)[None, :, None].expand(s.shape[:3])
        top = torch.maximum(top, sink.detach())
    some = top > -INF
    m = torch.where(some, top, torch.zeros_like(top))
    e = torch.where(seen, torch.exp(safe - m[..., None]), torch.zeros_like(s))
    total = e.sum(-1)
    if sink is not None:
        total = total + torch.exp(sink - m)
    total = torch.where(some, total, torch.ones_like(total))
    lse = torch.where(some, m + torch.log(total), torch.full_like(m, -INF))
    p = e / total[..., None]
    return p, lse, None if sink is None else torch.where(some, torch.exp(sink - m) / total, torch.zeros_like(m))


def plogp(p: Tensor) -> Tensor:
    """-p log p, 0 at p = 0, with a finite gradient there."""
    live = p > 0
    return torch.where(live, -p * torch.log(torch.where(live, p, torch.ones_like(p))), torch.zeros_like(p))


def attend(case, dtype: torch.dtype = torch.float64, order: Order = ORDERS[0]) -> dict[str, Tensor]:
    """Everything `attention` can give for `case`: ``out``, ``lse``, the statistics asked for, and ``p`` (the dense map, for the checks)."""
    s, seen = logits(case, dtype, order)
    p, lse, sink = weights(case, s, seen)
    batch, heads, queries, keys = s.shape
    group, edit, wish = heads // case.k.shape[1], case.edit, case.collect
    offset = case.mask.offset if case.mask.offset is not None else (keys - queries if case.mask.is_causal else 0)
    got: dict[str, Tensor] = {"p": p, "lse": lse}

    carried = p
    if edit is not None and edit.factors is not None:
        factors = edit.factors.to(dtype).expand(batch, heads, queries, -1)
        member = edit.sets.expand(batch, heads, -1, keys)
        per_entry = factors[..., -1:].expand(-1, -1, -1, keys)
        for c in range(member.shape[2]):
            per_entry = torch.where(member[:, :, c, None, :], factors[..., c : c + 1], per_entry)
        carried = p * per_entry
    narrow = case.v.dtype if dtype != torch.float64 else dtype
    v = case.v.to(dtype).repeat_interleave(group, 1)
    out = carried.to(narrow).to(dtype) @ v
    if edit is not None and edit.gate is not None:
        out = out * edit.gate.to(dtype).expand(batch, heads, queries)[..., None]
    got["out"] = out.to(narrow)

    zero = torch.zeros(batch, heads, queries, dtype=dtype)
    if sink is not None:
        got["sink_logit_mass"] = sink
    if wish.entropy:
        got["entropy"] = plogp(p).sum(-1) + (plogp(sink) if sink is not None else zero)
    top = torch.where(seen, s, torch.full_like(s, -INF)).amax(-1)
    if wish.row_max:
        got["row_max"] = top
    if wish.logit_moments:
        low = torch.where(seen, s - torch.where(top > -INF, top, zero)[..., None], torch.zeros_like(s))
        got["logit_moments"] = torch.stack([low.sum(-1), (low**2).sum(-1)], -1)
    if wish.prob_square:
        got["prob_square"] = (p**2).sum(-1)
    gap = torch.arange(queries)[:, None] + offset - torch.arange(keys)[None, :]
    if wish.distance:
        got["distance"] = (p * gap.to(dtype)).sum(-1)
    if wish.key_sets is not None:
        sets = wish.key_sets.expand(batch, -1, keys)
        got["key_sets"] = torch.stack([(p * sets[:, None, c, None, :]).sum(-1) for c in range(sets.shape[1])], -1)
    if wish.rest is not None:
        others = seen & ~wish.rest.expand(batch, keys)[:, None, None, :]
        rest, _, _ = weights(case.without_sink(), torch.where(others, s, torch.full_like(s, -INF)), others)
        got["rest_entropy"] = plogp(rest).sum(-1)
        got["rest_mass"] = torch.where(others, p, torch.zeros_like(p)).sum(-1)
    if wish.match is not None:
        row_ids, key_ids = (x.expand(batch, -1, -1) for x in wish.match)
        same = (row_ids[..., :, None] == key_ids[..., None, :]) & (row_ids[..., :, None] >= 0)
        got["match"] = torch.stack([(p * same[:, None, c]).sum(-1) for c in range(same.shape[1])], -1)
    if wish.windows:
        got["windows"] = torch.stack([(p * ((gap >= 0) & (gap < w))).sum(-1) for w in wish.windows], -1)
    if wish.offsets:
        got["offsets"] = torch.stack([(p * (gap == d)).sum(-1) for d in wish.offsets], -1)
    if wish.topk:
        got |= _topk(p, seen, wish.topk, range(queries) if wish.topk_rows is None else wish.topk_rows.tolist())
    return got


def column_sums(
    case, lse: Tensor, rows: Tensor, wish, dtype: torch.dtype = torch.float64, order: Order = ORDERS[0]
) -> dict[str, Tensor]:
    """Everything `columns` can give, from the dense map exp(s - lse); ``histogram_p`` is the map itself, for tolerant histogram checks."""
    p = entry_map(case, lse, dtype, order)
    batch, heads, queries, keys = p.shape
    rows = rows.expand(batch, -1, queries)
    subset = [p * rows[:, None, c, :, None] for c in range(rows.shape[1])]
    got: dict[str, Tensor] = {}
    if wish.received:
        got["received"] = torch.stack([x.sum(2) for x in subset], 2)
    if wish.diagonals:
        numbers = range(keys - 1, -queries, -1)  # torch counts diagonals as j - i
        got["diagonals"] = torch.stack([_along(subset, d) for d in numbers], -1)
    if wish.block:
        n, rows_of, cols_of = wish.block, range(0, queries, wish.block), range(0, keys, wish.block)
        for name, pool in (("block_sum", torch.sum), ("block_max", torch.amax)):
            got[name] = torch.stack(
                [torch.stack([pool(p[:, :, a : a + n, c : c + n], (2, 3)) for c in cols_of], -1) for a in rows_of], -2
            )
    if wish.histogram:
        count = torch.zeros(batch, heads, rows.shape[1], 32, dtype=dtype)
        mass = torch.zeros_like(count)
        for b, h, c in ((b, h, c) for b in range(batch) for h in range(heads) for c in range(rows.shape[1])):
            for x in subset[c][b, h].flatten().tolist():
                if x > 0:
                    where = max(0, min(31, math.floor(-math.log2(x))))
                    count[b, h, c, where] += 1
                    mass[b, h, c, where] += x
        got |= {"histogram_count": count, "histogram_mass": mass}
    return got


def entry_map(case, lse: Tensor, dtype: torch.dtype = torch.float64, order: Order = ORDERS[0]) -> Tensor:
    """The dense map exp(s - lse), [B, H, Nq, Nk]; 0 where hidden."""
    s, seen = logits(case, dtype, order)
    known = lse.to(dtype)
    known = torch.where(known > -INF, known, torch.zeros_like(known))
    return torch.where(
        seen, torch.exp(torch.where(seen, s, torch.zeros_like(s)) - known[..., None]), torch.zeros_like(s)
    )


def pooled(p: Tensor, row_edges: list[int], col_edges: list[int], pool: str) -> Tensor:
    """A dense map pooled over uneven bins: every bin of rows, then every bin of columns."""
    reduce = torch.sum if pool == "mean" else torch.amax
    lines = torch.stack([reduce(p[:, :, a:b], 2) for a, b in itertools.pairwise(row_edges)], 2)
    cells = torch.stack([reduce(lines[..., a:b], 3) for a, b in itertools.pairwise(col_edges)], 3)
    if pool == "max":
        return cells
    return cells / torch.tensor(
        [[(b - a) * (d - c) for c, d in itertools.pairwise(col_edges)] for a, b in itertools.pairwise(row_edges)]
    )


def _topk(p: Tensor, seen: Tensor, k: int, rows) -> dict[str, Tensor]:
    index, prob = [], []
    for b in range(p.shape[0]):
        for h in range(p.shape[1]):
            for i in rows:
                line, visible = p[b, h, i].tolist(), seen[b, h, i].tolist()
                keys = sorted((j for j in range(len(line)) if visible[j]), key=lambda j: (-line[j], j))[:k]
                index.append([*keys, *[-1] * (k - len(keys))])
                prob.append([*(line[j] for j in keys), *[0.0] * (k - len(keys))])
    shape = (*p.shape[:2], len(rows), k)
    return {"topk_index": torch.tensor(index).view(shape), "topk_prob": torch.tensor(prob, dtype=p.dtype).view(shape)}


def _along(subset: list[Tensor], number: int) -> Tensor:
    return torch.stack([x.diagonal(number, 2, 3).sum(-1) for x in subset], 2)


def _listed(x: Tensor | None, n: int, default) -> list:
    return [default] * n if x is None else x.expand(n).tolist()


def _rows(x: Tensor | None, batch: int) -> list | None:
    return None if x is None else x.expand(batch, -1).tolist()


def _allowed(bias: Tensor) -> Tensor:
    return bias if bias.dtype == torch.bool else (bias > torch.finfo(bias.dtype).min / 2) & (bias > -INF)
