"""The state of a layer's heads in one training step: quantiles over rows of what `EntropyRows` measures. A few numbers per head.

Quantiles are of the nearest rank, without interpolation: on rows that are defined (two visible keys, three for the rest).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interp.capture.observe import Seen
from interp.entropy.rows import EntropyRows

Heads = NDArray[np.float32]

ROWS: Final = 2048
"""Rows of each sequence that are looked at, evenly spaced; the kernel still sees them all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerHealth:
    """One layer's heads in one step; arrays float32 [H].

    Attributes:
        path, layer: which module, and its number in the order of the calls.
        entropy: mean over rows of H_i / log n_i.
        entropy_q10, entropy_q50, entropy_q90: its quantiles.
        rest_q50: median normalised entropy of the keys other than the first, renormalised.
        sink_mass: mean mass on the first key.
        sink_output: what comes out of the first key, M_i |v_0|, relative to the mean norm of a value.
        rho_q50, rho_q99: quantiles of the logits' norm about their mean.
        max_logit: the largest visible logit.
        qk_norm: ||W_Q W_K^T||_2 where the weights were found, else NaN; filled by the monitor.
    """

    path: str
    layer: int
    entropy: Heads
    entropy_q10: Heads
    entropy_q50: Heads
    entropy_q90: Heads
    rest_q50: Heads
    sink_mass: Heads
    sink_output: Heads
    rho_q50: Heads
    rho_q99: Heads
    max_logit: Heads
    qk_norm: Heads

    def columns(self) -> dict[str, Any]:
        """Name -> array [H], in the order of a table: path, layer, head, then the quantities."""
        heads = len(self.entropy)
        told = {"path": np.full(heads, self.path), "layer": np.full(heads, self.layer), "head": np.arange(heads)}
        return told | {name: getattr(self, name) for name in QUANTITIES}


QUANTITIES: Final = tuple(f.name for f in fields(LayerHealth) if f.name not in ("path", "layer"))


def health(seen: Seen) -> LayerHealth:
    """Measure one attention call: one sweep of the kernel, O(N) memory.

    Args:
        seen: the call, of `interp.capture.observe`.
    """
    call = seen.call
    attended = call.attend(EntropyRows.wish(call))
    rows = EntropyRows.of(call, attended)
    entropy, rest, mass = rows.normalised, rows.rest_normalised, 1 - rows.rest_mass
    if "sink_logit_mass" in attended.stats:
        mass = mass - attended.stats["sink_logit_mass"]
    mass = torch.where(rows.defined, mass, torch.nan)
    norm = torch.where(rows.defined, rows.logit_norm, torch.nan)
    low, middle, high = _quantiles(entropy, (0.1, 0.5, 0.9))
    rho, large_rho = _quantiles(norm, (0.5, 0.99))
    sink = _mean(mass)
    values = call.v.float().norm(dim=-1)
    first = (values * (call.key_positions() == 0)[:, None]).sum(-1)
    share = first.mean(0) / values.mean((0, 2)).clamp(min=torch.finfo(torch.float32).tiny)
    # A maximum would pass over rows that are not a number.
    broken = rows.defined & ~torch.isfinite(rows.lse)
    largest = torch.where(broken, torch.inf, rows.max_logit.nan_to_num(nan=-torch.inf)).amax((0, 2))
    return LayerHealth(
        path=seen.path,
        layer=call.site.layer,
        entropy=_array(_mean(entropy)),
        entropy_q10=_array(low),
        entropy_q50=_array(middle),
        entropy_q90=_array(high),
        rest_q50=_array(_quantiles(rest, (0.5,))[0]),
        sink_mass=_array(sink),
        sink_output=_array(sink * share.repeat_interleave(call.group)),
        rho_q50=_array(rho),
        rho_q99=_array(large_rho),
        max_logit=_array(largest),
        qk_norm=np.full(call.heads, np.nan, dtype=np.float32),
    )


def _mean(x: Float[Tensor, "batch head query"]) -> Float[Tensor, " head"]:
    return x.nanmean((0, 2))


def _quantiles(x: Float[Tensor, "batch head query"], at: tuple[float, ...]) -> tuple[Float[Tensor, " head"], ...]:
    """Nearest-rank quantiles of each head over batch and rows, NaN left out; NaN where nothing is left."""
    step = -(-x.shape[2] // ROWS)
    ordered = x[:, :, ::step].transpose(0, 1).flatten(1).sort(dim=1).values
    count = (~ordered.isnan()).sum(1)
    ranks = torch.stack([((count - 1).clamp(min=0) * q).round().long() for q in at], 1)
    return ordered.gather(1, ranks).unbind(1)


def _array(x: Tensor) -> Heads:
    return x.float().cpu().numpy()
