"""`VAR`: visual attention redistribution by Kang et al. 2025 (arXiv 2503.03321), for any marked group of tokens, not images alone.

Given a group G of tokens (an image, a document) and the sink tokens S of a layer, in and outside G: a row of a head counts as centred on the group if
the mass on G is at least `mass` and the share of S in it at most `rho`. For those rows, of tokens behind G:

    p'_ij = keep p_ij for j in S,  p'_ij = p_ij (1 + (1 - keep) M_S / M_{G - S}) for j in G - S,  all else as it was

Published: mass 0.2, rho 0.5, keep 0.6; text rows, all layers but the last, sinks from the hidden states (phi > 20 from layer 2 on;
`interp.sinks.hidden.phi`), found on the prompt and kept in decode: hence they are given here as positions.
Costs one sweep more a call, for the three masses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from interp.capture.call import AttentionCall, Collect
from interp.errors import EditError
from interp.interventions.places import Positions, check_positions, listed, members
from interp.interventions.where import HeadEdit

MASS = 0.2
"""Least mass of a centred row on the group."""
RHO = 0.5
"""Greatest share of sinks in that mass."""
KEEP = 0.6
"""Share of its weight that a sink keeps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VAR(HeadEdit):
    """Move weight from sink tokens to the other tokens of a group, in the rows that look at the group.

    Attributes:
        group: positions of G, no open span.
        sinks: positions of S, or layer -> positions, which then says the layers.
        mass, rho, keep: see the module; keep in [0, 1].
    """

    group: Positions
    sinks: Positions | Mapping[int, Positions]
    mass: float = MASS
    rho: float = RHO
    keep: float = KEEP

    def __post_init__(self) -> None:
        """Check the sets and numbers."""
        if isinstance(self.sinks, Mapping) and self.heads is None:
            if self.layers is not None and self.layers != tuple(self.sinks):
                raise EditError("VAR: sinks by layer say which layers; leave layers= out")
            object.__setattr__(self, "layers", tuple(self.sinks))
        super().__post_init__()
        check_positions("VAR: group", self.group)
        listed("VAR: group", self.group)
        for sinks in self.sinks.values() if isinstance(self.sinks, Mapping) else (self.sinks,):
            check_positions("VAR: sinks", sinks)
        if not (0 < self.mass < 1 and 0 <= self.rho < 1 and 0 <= self.keep <= 1):
            raise EditError(
                f"VAR: wanted mass in (0, 1), rho in [0, 1), keep in [0, 1]; got {self.mass}, {self.rho}, {self.keep}"
            )
        if isinstance(self.sinks, Mapping) and (
            missing := sorted({layer for layer, _ in self.heads or ()} - set(self.sinks))
        ):
            raise EditError(f"VAR: there are no sinks for layers {missing}, of which heads are named")

    def before(self, call: AttentionCall) -> AttentionCall:
        """Measure the masses, then factors on S and on G - S."""
        behind = call.row_positions() > listed("VAR: group", self.group)[-1]
        if not bool(behind.any()):
            return call
        at = call.key_positions()
        sinks = members(self.sinks[call.site.layer] if isinstance(self.sinks, Mapping) else self.sinks, at)
        group = members(self.group, at)
        sets = torch.stack([sinks, group & ~sinks, group & sinks], 1)
        with torch.no_grad():
            on_sinks, content, inside = call.attend(Collect(key_sets=sets)).stats["key_sets"].unbind(-1)
            total = content + inside
            centred = (total >= self.mass) & (inside <= self.rho * total) & (content > 0)
            centred &= behind[:, None] & self.chosen(call)[None, :, None]
            gain = (1 - self.keep) * on_sinks / content.where(content > 0, 1.0)
            factors = torch.stack(
                [torch.where(centred, self.keep, 1.0), torch.where(centred, 1 + gain, 1.0), torch.ones_like(gain)], -1
            )
        return call.with_factors(sets[:, None, :2], factors.to(call.work_dtype))
