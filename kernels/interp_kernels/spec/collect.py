"""What a call shall measure: `Collect` for the row-wise sweep (`attention`), `ColumnCollect` for the key-major sweep (`columns`).

The names of the fields are the names of the results in `Attended.stats`; p_ij is the softmax weight, s_ij the final logit of a visible key.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

MAX_KEY_SETS = 32
HISTOGRAM_BINS = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Collect:
    """Row statistics to take in the attention sweep. All results are float32 [B, H, Nq, ...] unless said; empty rows give 0.

    Attributes:
        entropy: ``entropy``, -sum_j p log p in nats (centred sums; a sink logit's outcome is counted).
        row_max: ``row_max``, the largest visible logit (-inf for an empty row); max probability = exp(row_max - lse).
        logit_moments: ``logit_moments`` [..., 2], sums over visible keys of (s - row_max) and (s - row_max)^2. The shift by row_max keeps
            float32 exact at large logits; the row-centred norm is rho^2 = second - first^2 / n.
        prob_square: ``prob_square``, sum_j p^2.
        distance: ``distance``, sum_j p_ij (i + offset - j), tokens.
        key_sets: bool [C, Nk] or [B, C, Nk], C <= 32: ``key_sets`` [..., C], mass on each set.
        rest: bool [Nk] or [B, Nk], keys to leave out: ``rest_mass``, the mass on all other keys, and ``rest_entropy``, the entropy of the
            distribution restricted to them and renormalised (accurate where the mass left out is near 1; 0 where nothing is left).
        match: (query ids, key ids), int [M, Nq] and [M, Nk] or with a leading batch axis: ``match`` [..., M], mass on the visible keys whose id
            equals the row's; negative ids match nothing. Token equality on real text.
        topk: k > 0: ``topk_index`` int64 and ``topk_prob`` [B, H, T, k] on the rows `topk_rows` (int64 [T]; None: all rows); ties go to the
            lowest key index; rows with fewer visible keys are filled with index -1, probability 0.
        windows: ``windows`` [..., W], mass on keys with 0 <= i + offset - j < w.
        offsets: ``offsets`` [..., O], probability at the key i + offset - d, 0 where that key is hidden or absent.
    """

    entropy: bool = False
    row_max: bool = False
    logit_moments: bool = False
    prob_square: bool = False
    distance: bool = False
    key_sets: Tensor | None = None
    rest: Tensor | None = None
    match: tuple[Tensor, Tensor] | None = None
    topk: int = 0
    topk_rows: Tensor | None = None
    windows: tuple[int, ...] = ()
    offsets: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Bring every tensor to its batched form ([1, ...] where no batch axis was given) and refuse what no backend can serve."""
        if self.key_sets is not None:
            _need_bool("key_sets", self.key_sets)
            object.__setattr__(self, "key_sets", _batched(self.key_sets, 3))
            if not 1 <= self.key_sets.shape[1] <= MAX_KEY_SETS:
                raise ValueError(f"key_sets: wanted 1 to {MAX_KEY_SETS} sets, got {self.key_sets.shape[1]}")
        if self.rest is not None:
            _need_bool("rest", self.rest)
            object.__setattr__(self, "rest", _batched(self.rest, 2))
        if self.match is not None:
            rows, keys = (_batched(x, 3) for x in self.match)
            if rows.is_floating_point() or keys.is_floating_point() or rows.shape[1] != keys.shape[1]:
                raise ValueError(
                    f"match: wanted two integer tensors with the same number of id kinds, got {rows.dtype} {tuple(rows.shape)} "
                    f"and {keys.dtype} {tuple(keys.shape)}"
                )
            object.__setattr__(self, "match", (rows, keys))
        if self.topk < 0 or any(w < 1 for w in self.windows) or any(d < 0 for d in self.offsets):
            raise ValueError(
                f"wanted topk >= 0, windows >= 1, offsets >= 0; got {self.topk}, {self.windows}, {self.offsets}"
            )
        object.__setattr__(self, "windows", tuple(int(w) for w in self.windows))
        object.__setattr__(self, "offsets", tuple(int(d) for d in self.offsets))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        flags = self.entropy or self.row_max or self.logit_moments or self.prob_square or self.distance
        sets = any(x is not None for x in (self.key_sets, self.rest, self.match))
        return not (flags or sets or self.topk or self.windows or self.offsets)

    def to(self, device: torch.device | str) -> Collect:
        """The same wish with its tensors on `device`."""

        moved: dict[str, Tensor] = {
            f.name: x.to(device) for f in fields(self) if isinstance(x := getattr(self, f.name), Tensor)
        }
        match = None if self.match is None else (self.match[0].to(device), self.match[1].to(device))
        return replace(self, match=match, **moved)

    def check(self, batch: int, queries: int, keys: int) -> None:
        """Raise ValueError, naming every mismatch, if a tensor does not fit a call of these sizes."""
        sized: list[tuple[str, Tensor | None, int]] = [("key_sets", self.key_sets, keys), ("rest", self.rest, keys)]
        if self.match is not None:
            sized += [("match (query ids)", self.match[0], queries), ("match (key ids)", self.match[1], keys)]
        bad = [
            f"{name}: wanted [{batch} or 1, ..., {n}], got {tuple(x.shape)}"
            for name, x, n in sized
            if x is not None and (x.shape[-1] != n or x.shape[0] not in (1, batch))
        ]
        rows = self.topk_rows
        if rows is not None and (
            rows.ndim != 1
            or rows.is_floating_point()
            or (len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < queries)
        ):
            bad.append(
                f"topk_rows: wanted integer row numbers [T] in [0, {queries}), got {rows.dtype} {tuple(rows.shape)}"
            )
        if bad:
            raise ValueError("collect does not fit the call: " + "; ".join(bad))


@dataclass(frozen=True, kw_only=True)
class ColumnCollect:
    """Key-side statistics to take in the second sweep (`columns`), for each row subset s.

    Attributes:
        received: ``received`` [B, H, S, Nk], sum over the subset's rows of p_ij.
        diagonals: ``diagonals`` [B, H, S, Nq + Nk - 1], sum of p_ij over each diagonal; index i - j + Nk - 1 (row and key numbers).
        block: size b > 0: ``block_sum`` and ``block_max`` [B, H, ceil(Nq / b), ceil(Nk / b)] over all rows (subsets do not apply).
        histogram: ``histogram_count`` and ``histogram_mass`` [B, H, S, 32]: visible entries with p > 0 by bin min(31, floor(-log2 p)).
            Counts may come as float64, which holds them exactly past 2**24.
    """

    received: bool = True
    diagonals: bool = False
    block: int = 0
    histogram: bool = False

    def __post_init__(self) -> None:
        """Refuse a negative block and an empty wish."""
        if self.block < 0:
            raise ValueError(f"block: wanted 0 (off) or a positive size, got {self.block}")
        if not (self.received or self.diagonals or self.block or self.histogram):
            raise ValueError("columns: nothing was asked for; set received, diagonals, block or histogram")


def _need_bool(name: str, x: Tensor) -> None:
    if x.dtype != torch.bool:
        raise ValueError(f"{name}: wanted a bool membership tensor, got {x.dtype}")


def _batched(x: Tensor, ndim: int) -> Tensor:
    if x.ndim not in (ndim - 1, ndim):
        raise ValueError(f"wanted {ndim - 1} or {ndim} axes, got shape {tuple(x.shape)}")
    return x if x.ndim == ndim else x.unsqueeze(0)
