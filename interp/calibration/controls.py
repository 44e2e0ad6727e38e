"""Controls of a calibration: the same settings on random heads of the same layers, and for ACT random keys of the same mass.

If random heads gain as much, the heads do not matter; if random keys of the same mass gain as much, it is not their being sinks that matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from interp.calibration.methods import Settings
from interp.capture.call import AttentionCall
from interp.capture.sweep import column_sums
from interp.errors import EditError
from interp.interventions.act import ACT
from interp.interventions.controls import random_heads
from interp.interventions.where import Head, HeadEdit


@dataclass(frozen=True, kw_only=True, eq=False)
class RandomKeys(ACT):
    """ACT with random keys in the place of the sinks that it finds: none of the sinks, and as nearly as can be of the same mass.

    For whole texts in batches without padding. A head without sinks is left alone, as by ACT.

    Attributes:
        seed: of the keys.
        reached: mass of the random keys over mass of the sinks, the mean of each call, as they come.
    """

    seed: int = 0
    reached: list[float] = field(default_factory=list[float])

    def detect(self, call: AttentionCall) -> Tensor:
        """The random keys of each chosen head, bool [B, H, Nk]."""
        if not bool(call.real_rows().all()):
            raise EditError("RandomKeys: masses of keys are taken over whole rows; give texts of one length")
        sinks = super().detect(call)
        every = sinks if self.spared == "none" else replace(self, spared="none", reached=[]).sinks(call)
        attended = call.attend(None)
        rows = torch.ones(1, call.queries, dtype=torch.bool, device=call.q.device)
        mass = column_sums(call, attended, rows=rows)["received"][:, :, 0]
        wanted = (mass * sinks).sum(-1, keepdim=True)
        free = (mass > 0) & ~every
        generator = torch.Generator().manual_seed(1000 * self.seed + call.site.layer)
        order = torch.rand(mass.shape, generator=generator).to(mass.device).masked_fill(~free, 2.0).argsort(-1)
        running = (mass * free).gather(-1, order).cumsum(-1)
        # the first key is taken in any case, further ones while they bring the sum nearer
        last = (running - wanted).abs().argmin(-1, keepdim=True)
        taken = torch.arange(call.keys, device=mass.device) <= last
        keys = torch.zeros_like(sinks).scatter(-1, order, taken) & free & sinks.any(-1, keepdim=True)
        if bool(sinks.any()):
            here = sinks.any(-1)
            self.reached.append(float(((mass * keys).sum(-1)[here] / wanted[..., 0][here]).mean()))
        return keys

    def sinks(self, call: AttentionCall) -> Tensor:
        """The sinks that ACT finds in place of which random keys are taken, bool [B, H, Nk]."""
        return super().detect(call)


def random_settings(heads: Settings, width: int, draw: np.random.Generator) -> dict[Head, float]:
    """Random other heads, as many in each layer, with the same settings; see `random_heads`."""
    others = random_heads(list(heads), width, draw)
    found: dict[Head, float] = {}
    for layer in sorted({layer for layer, _ in heads}):
        settings = [setting for (at, _), setting in heads.items() if at == layer]
        found |= dict(zip((head for head in others if head[0] == layer), settings, strict=True))
    return found


def with_random_keys(edits: Sequence[HeadEdit], seed: int) -> tuple[RandomKeys, ...]:
    """The control of ACT edits with random keys in place of sinks, everything else the same.

    Raises:
        EditError: an edit that is not ACT.
    """
    found: list[RandomKeys] = []
    for n, edit in enumerate(edits):
        if type(edit) is not ACT:
            raise EditError(f"{edit.name} finds no sinks that random keys could stand for; this control is ACT's alone")
        options: Mapping[str, object] = {
            name: getattr(edit, name)
            for name in ("heads", "layers", "phases", "beta", "detection", "threshold", "spared", "receivers")
        }
        found.append(RandomKeys(**options, seed=seed * 100 + n))  # pyright: ignore[reportArgumentType]
    return tuple(found)
