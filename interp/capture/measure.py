"""Between statistics and kernels: what the needs of the statistics mean for a kernel call, and the statistics' values from its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from interp.capture.call import AttentionCall
from interp.stats.declaration import Statistic
from interp.stats.labels import TokenLabels
from interp.stats.needs import Needs
from interp.stats.rows import Rows
from interp_kernels import Attended, Collect, columns, visible_rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurement:
    """A set of statistics on one pair of token axes (queries x keys), ready for the kernels.

    Attributes:
        statistics: what is wanted.
        queries: labels of the query axis.
        keys: labels of the key axis.
    """

    statistics: tuple[Statistic, ...]
    queries: TokenLabels
    keys: TokenLabels

    @property
    def needs(self) -> Needs:
        """The joint needs of all statistics."""
        return reduce(Needs.__or__, (s.needs for s in self.statistics), Needs())

    def collect(self) -> Collect:
        """The joint needs in the kernel's words."""
        needs = self.needs
        flags: dict[str, Any] = {name: True for name in needs.kernel}
        sets = sorted(needs.sets)
        labels = {
            "duplicate": (self.queries.ids, self.keys.ids),
            "induction": (self.queries.ids, self.keys.previous_ids()),
        }
        matches = [labels[name] for name in sorted(needs.matches)]
        return Collect(
            **flags,
            key_sets=torch.stack([self.keys.sets[name] for name in sets], dim=1) if sets else None,
            rest=self.keys.sets["first_token"] if needs.rest else None,
            match=(torch.stack([m[0] for m in matches], dim=1), torch.stack([m[1] for m in matches], dim=1))
            if matches
            else None,
            windows=tuple(sorted(needs.windows)),
            offsets=tuple(sorted(needs.offsets)),
        )

    def values(self, call: AttentionCall, attended: Attended, shared: MaskCounts) -> dict[str, Tensor]:
        """Every statistic's values on one layer: float32 [B, H, Nq], [B, H, Nk] or [B, H], NaN at padding."""
        needs = self.needs
        received = None
        if needs.received:
            swept = columns(
                call.q,
                call.k,
                attended.lse,
                mask=call.mask,
                scale=call.scale,
                softcap=call.softcap,
                edit=call.edit,
                rows=self.queries.real[:, None],
            )
            received = swept.stats["received"][:, :, 0]
        rows = Rows(
            lse=attended.lse,
            out=attended.out,
            values=call.v,
            visible=shared.visible,
            measured=attended.stats,
            sets=tuple(sorted(needs.sets)),
            windows=tuple(sorted(needs.windows)),
            offsets=tuple(sorted(needs.offsets)),
            matches=tuple(sorted(needs.matches)),
            keys=self.keys,
            queries=self.queries,
            received=received,
            received_rows=shared.received_rows if needs.received else None,
        )
        present = [s for s in self.statistics if not (s.optional and "sink_logit_mass" not in attended.stats)]
        real = {"query": self.queries.real[:, None], "key": self.keys.real[:, None]}
        return {
            s.name: s.derive(rows).float()
            if s.axis == "prompt"
            else torch.where(real[s.axis], s.derive(rows).float(), torch.nan)
            for s in present
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskCounts:
    """Counts that depend on the mask alone and so are shared by all layers that got the same mask.

    Attributes:
        visible: visible keys of each row, int64 [B or 1, H or 1, Nq].
        received_rows: rows that see each key, padding rows left out, int64 [B or 1, H or 1, Nk]; None if not needed.
    """

    visible: Tensor
    received_rows: Tensor | None

    @staticmethod
    def of(call: AttentionCall, queries: TokenLabels, *, received: bool) -> MaskCounts:
        """Count for one call."""
        q, mask = call.q, call.mask.to(call.q.device)
        sizes = (q.shape[0], call.heads, call.queries, call.keys)
        return MaskCounts(
            visible=call.visible_count(),
            received_rows=visible_rows(mask, queries.real[:, None], *sizes, q.device)[:, :, 0] if received else None,
        )


def wanted(
    statistics: Sequence[Statistic], *, keys: TokenLabels, tokens: bool, causal: bool, equal_axes: bool
) -> tuple[Statistic, ...]:
    """The statistics that make sense on a pair of axes.

    Key sets that nothing names on this axis are left out (special tokens of an image, a span of the encoder's text in the decoder's),
    and so are distances across two axes (cross-attention), and equal tokens where there are no tokens or where rows see later keys,
    because they are defined by earlier ones.
    """

    def fits(needs: Needs) -> bool:
        by_distance = bool(needs.offsets or needs.windows or "distance" in needs.kernel)
        return (
            needs.sets <= keys.sets.keys()
            and (equal_axes or not by_distance)
            and (not needs.matches or (tokens and equal_axes and causal))
        )

    return tuple(s for s in statistics if fits(s.needs))
