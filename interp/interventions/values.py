"""`ScaleValues`: v_j <- g v_j for keys j, attention weights untouched (SSA's value temperature; value zeroing is g = 0)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from interp.capture.call import AttentionCall
from interp.errors import EditError
from interp.interventions.places import Positions, check_positions, members
from interp.interventions.where import HeadEdit, PerHead


@dataclass(frozen=True, kw_only=True, eq=False)
class ScaleValues(HeadEdit):
    """Scale values as query heads read them; the cache keeps them unscaled.

    Attributes:
        factor: factor for the chosen heads, or (layer, head) -> factor.
        keys: positions whose values are scaled, None for all.
    """

    factor: PerHead
    keys: Positions | None = None

    def __post_init__(self) -> None:
        """Check the positions."""
        self.take_heads_of(self.factor)
        super().__post_init__()
        if self.keys is not None:
            check_positions("ScaleValues: keys", self.keys)
        factors = self.factor.values() if isinstance(self.factor, Mapping) else (self.factor,)
        if bad := [g for g in factors if not -1e30 < g < 1e30]:
            raise EditError(f"ScaleValues: factors must be finite numbers, got {bad}")

    @property
    def detail(self) -> str:
        """Factor and keys."""
        factor = "by head" if isinstance(self.factor, Mapping) else f"x {self.factor:g}"
        return factor + ("" if self.keys is None else f" on keys {', '.join(map(str, self.keys))}")

    def before(self, call: AttentionCall) -> AttentionCall:
        """Scale v; a key head of which query heads want different factors is split up."""
        named = members(self.keys, call.key_positions())
        if not bool(named.any()):
            return call
        factor = self.per_head(self.factor, call, 1.0)
        by_group = factor.view(-1, call.group)
        if bool((by_group == by_group[:, :1]).all()):
            factor = by_group[:, 0]
        else:
            call = call.ungrouped()
        scale = torch.where(named[:, None, :, None], factor[None, :, None, None], 1.0)
        return replace(call, v=(call.v * scale).to(call.v.dtype))
