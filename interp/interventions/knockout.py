"""Cutting edges of the attention graph: `KnockOut` with renormalisation, `DeleteEdges` without.

`KnockOut` sets s_ij = -inf for i in Q, j in K before the softmax, over a window of layers (attention knock-out, Geva et al. 2023, arXiv 2304.14767:
window of about 10 layers around the one under study): the freed mass goes to the other visible keys in proportion. `DeleteEdges` sets
p_ij = 0 after it: the mass is lost, o' = o - sum_{j in K} p_ij v_j. They differ by the factor 1 / (1 - M_i), M_i the mass cut.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from interp.capture.call import AttentionCall
from interp.errors import EditError
from interp.interventions.places import Positions, check_positions, members
from interp.interventions.where import HeadEdit


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeEdit(HeadEdit):
    """Base of both: the edges are all pairs of a row and a key named.

    Attributes:
        rows: positions whose rows are cut, None for every row. Rows of tokens still to come: (n, None).
        keys: positions of keys, None for every key.
    """

    rows: Positions | None = None
    keys: Positions | None = None

    def __post_init__(self) -> None:
        """Check the positions."""
        super().__post_init__()
        if self.rows is None and self.keys is None:
            raise EditError(f"{self.title}: give rows=, keys= or both; cutting every edge is AblateHeads")
        for what, places in (("rows", self.rows), ("keys", self.keys)):
            if places is not None:
                check_positions(f"{self.title}: {what}", places)

    @property
    def detail(self) -> str:
        """The edges."""
        rows, keys = ("all" if x is None else ", ".join(map(str, x)) for x in (self.rows, self.keys))
        return f"rows {rows} x keys {keys}"

    def edges(self, call: AttentionCall) -> tuple[Tensor, Tensor] | None:
        """Row set [B or 1, Nq] and key set [B or 1, Nk] of this call, None where one of them is empty."""
        rows, keys = members(self.rows, call.row_positions()), members(self.keys, call.key_positions())
        return (rows, keys) if bool(rows.any()) and bool(keys.any()) else None


@dataclass(frozen=True, kw_only=True, eq=False)
class KnockOut(EdgeEdit):
    """Hide keys from rows; what is left of a row is renormalised. A row that loses all its keys gives out 0 (a learned sink takes all its mass)."""

    def before(self, call: AttentionCall) -> AttentionCall:
        """One hidden rectangle of the mask."""
        edges = self.edges(call)
        if edges is None:
            return call
        heads = None if self.heads is None else self.chosen_numbers(call)
        try:
            return replace(call, mask=call.mask.hide(*edges, heads=heads))
        except ValueError as said:
            raise EditError(f"{self.name}: {said}") from said


@dataclass(frozen=True, kw_only=True, eq=False)
class DeleteEdges(EdgeEdit):
    """Set attention weights to 0 behind the softmax; rows then sum to less than 1."""

    def before(self, call: AttentionCall) -> AttentionCall:
        """A factor of 0 on the key set, in the rows named."""
        edges = self.edges(call)
        if edges is None:
            return call
        rows, keys = edges
        cut = rows[:, None] & self.chosen(call)[None, :, None]
        on_keys = torch.where(cut, 0.0, 1.0).to(call.work_dtype)
        return call.with_factors(keys[:, None, None], torch.stack([on_keys, torch.ones_like(on_keys)], -1))
