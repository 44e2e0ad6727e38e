"""`Rows`: everything that one attention call left behind for the statistics to read. Plain tensors; nothing here attends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.stats.labels import TokenLabels


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Measured quantities of one layer, as a statistic reads them.

    Attributes:
        lse: row log-sum-exp of the visible logits.
        out: head outputs z, before W_O.
        values: value vectors (one per key-value head).
        visible: number of visible keys n_i of each row.
        measured: row quantities by kernel name; columns of key_sets, windows, offsets and match follow the next four fields.
        keys: labels of the tokens on the key axis.
        queries: labels of the tokens on the query axis (the same object in self-attention).
        received: column sums over all real rows, or None when they were not asked for.
        received_rows: number of rows that see each key.
    """

    lse: Float[Tensor, "batch head query"]
    out: Float[Tensor, "batch head query value"]
    values: Float[Tensor, "batch kvhead key value"]
    visible: Int[Tensor, "#batch #head query"]
    measured: Mapping[str, Tensor]
    sets: tuple[str, ...]
    windows: tuple[int, ...]
    offsets: tuple[int, ...]
    matches: tuple[str, ...]
    keys: TokenLabels
    queries: TokenLabels
    received: Float[Tensor, "batch head key"] | None = None
    received_rows: Int[Tensor, "#batch #head key"] | None = None

    def mass(self, name: str) -> Float[Tensor, "batch head query"]:
        """Attention mass on a named key set."""
        return self.measured["key_sets"][..., self.sets.index(name)]

    def window(self, width: int) -> Float[Tensor, "batch head query"]:
        """Attention mass on the last `width` keys."""
        return self.measured["windows"][..., self.windows.index(width)]

    def offset(self, distance: int) -> Float[Tensor, "batch head query"]:
        """Attention probability exactly `distance` tokens back."""
        return self.measured["offsets"][..., self.offsets.index(distance)]

    def match(self, name: str) -> Float[Tensor, "batch head query"]:
        """Attention mass on keys that carry the row's token id (duplicate), or follow it (induction)."""
        return self.measured["match"][..., self.matches.index(name)]

    def where(
        self, keep: Bool[Tensor, "#batch #head query"], value: Float[Tensor, "batch head query"]
    ) -> Float[Tensor, "batch head query"]:
        """`value` where `keep`, NaN (undefined) elsewhere."""
        return torch.where(keep, value, torch.nan)

    def first_value_norm(self) -> Float[Tensor, "batch head"]:
        """Euclidean norm of each query head's value vector at the first real token."""
        heads, groups = self.out.shape[1], self.values.shape[1]
        index = self.keys.left[:, None, None, None].expand(-1, groups, 1, self.values.shape[3])
        return self.values.float().gather(2, index)[:, :, 0].norm(dim=-1).repeat_interleave(heads // groups, dim=1)
