"""How well an autoencoder reconstructs harvested z, always twice: at all positions, and without position 0.

The first position of a context is no place like the others (it is the attention sink, and what it holds is far from the rest), so a figure
that includes it may say nothing of the others. Definitions, with means over rows:

ev              1 - Σ|x - x̂|² / Σ|x - mean|²             mse            mean |x - x̂|²
cosine          mean cos(x, x̂)                            l2_ratio       mean |x̂| / |x|
bias            Σ|x̂|² / Σ x·x̂; below 1 is shrinkage (Rajamanoharan et al. 2024, "relative reconstruction bias")
l0, l1          mean number, and mean sum, of active features
alive           share of features that fire at all; above_1, above_10: on more than 1 % and 10 % of rows
encoder_decoder mean cos(W_enc column, W_dec row);  decoder_max, encoder_max: mean over features of the largest cosine with another one
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from interp.errors import OptionError
from interp.saes.core import SAE
from interp.saes.store import Store

VIEWS = ("all", "without first")
"""The two readings of every figure: at all positions, and at all but position 0."""
CHUNK = 1_024


@dataclass(kw_only=True, eq=False)
class _Sums:
    """Running sums over rows, in float64."""

    features: int
    d_in: int
    rows: int = 0
    numbers: dict[str, float] = field(default_factory=dict[str, float])
    total: Tensor = field(init=False)
    fired: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.total = torch.zeros(self.d_in, dtype=torch.float64)
        self.fired = torch.zeros(self.features, dtype=torch.int64)

    def add(self, x: Tensor, out: Tensor, features: Tensor) -> None:
        x, out = x.double(), out.double()
        norm, out_norm, along = x.norm(dim=-1), out.norm(dim=-1), (x * out).sum(-1)
        tiny = torch.finfo(torch.float64).tiny
        parts = {
            "error": (x - out).square().sum(),
            "square": norm.square().sum(),
            "out_square": out_norm.square().sum(),
            "along": along.sum(),
            "cosine": (along / (norm * out_norm).clamp(min=tiny)).sum(),
            "ratio": (out_norm / norm.clamp(min=tiny)).sum(),
            "l0": (features > 0).sum(),
            "l1": features.double().sum(),
        }
        for name, value in parts.items():
            self.numbers[name] = self.numbers.get(name, 0.0) + float(value)
        self.rows += len(x)
        self.total += x.sum(0)
        self.fired += (features > 0).sum(0)

    def metrics(self) -> dict[str, float]:
        if not self.rows:
            return {}
        n, s = self.rows, self.numbers
        variance = s["square"] - float(self.total.square().sum()) / n
        density = self.density()
        return {
            "rows": float(n),
            "l0": s["l0"] / n,
            "l1": s["l1"] / n,
            "mse": s["error"] / n,
            "ev": 1.0 - s["error"] / variance if variance > 0 else float("nan"),
            "cosine": s["cosine"] / n,
            "l2_ratio": s["ratio"] / n,
            "bias": s["out_square"] / s["along"] if s["along"] else float("nan"),
            "alive": float((density > 0).double().mean()),
            "above_1": float((density > 0.01).double().mean()),
            "above_10": float((density > 0.1).double().mean()),
        }

    def density(self) -> Tensor:
        return self.fired.double() / max(self.rows, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reconstruction:
    """What `reconstruction` measured.

    Attributes:
        table: columns positions ("all", "without first"), metric, value.
        density: share of rows on which each feature fires, float64 [view, d_sae], views in the order of `VIEWS`.
    """

    table: pd.DataFrame
    density: Tensor


@torch.no_grad()
def reconstruction(sae: SAE, store: Store, layer: int) -> Reconstruction:
    """Measure an autoencoder on every row of a harvested layer.

    Args:
        sae: an autoencoder whose features do not depend on the batch.
        store: a harvest of text that it was not trained on.
        layer: which of its layers.

    Raises:
        OptionError: it reads another number of values than the harvest holds, or depends on the batch.
    """
    if sae.config.d_in != store.d_in:
        raise OptionError(
            f"the autoencoder reads {sae.config.d_in} numbers, the harvest holds {store.d_in}; is it of this model?"
        )
    if sae.config.widths or sae.config.architecture == "batchtopk":
        raise OptionError(
            "set a threshold first (with_threshold): these features depend on how rows are cut into batches"
        )
    sums = [_Sums(features=sae.config.d_sae, d_in=sae.config.d_in) for _ in VIEWS]
    for shard in range(store.shards):
        z, behind = store.z(layer, shard).float(), store.tokens(shard).position > 0
        for x, later in zip(z.split(CHUNK), behind.split(CHUNK), strict=True):
            features = sae.encode(x)
            out = sae.decode(features, like=x)
            sums[0].add(x, out, features)
            sums[1].add(x[later], out[later], features[later])
    rows = [(view, name, value) for view, s in zip(VIEWS, sums, strict=True) for name, value in s.metrics().items()]
    rows += [("all", name, value) for name, value in weight_cosines(sae).items()]
    table = pd.DataFrame(rows, columns=["positions", "metric", "value"])
    return Reconstruction(table=table, density=torch.stack([s.density() for s in sums]))


@torch.no_grad()
def weight_cosines(sae: SAE) -> dict[str, float]:
    """How alike directions are: each feature's two, and each with its nearest other."""
    encoder, decoder = normalize(sae.W_enc.T.double(), dim=-1), normalize(sae.W_dec.double(), dim=-1)
    return {
        "encoder_decoder": float((encoder * decoder).sum(-1).mean()),
        "decoder_max": _nearest(decoder),
        "encoder_max": _nearest(encoder),
    }


def _nearest(directions: Tensor) -> float:
    """Mean over unit rows of the largest cosine with another row; NaN for one row."""
    if len(directions) < 2:
        return float("nan")
    best = []
    for first in range(0, len(directions), CHUNK):
        cosines = directions[first : first + CHUNK] @ directions.T
        rows = torch.arange(len(cosines))
        cosines[rows, first + rows] = -1.0
        best.append(cosines.amax(-1))
    return float(torch.cat(best).mean())


def density_histogram(density: Tensor, *, bins: int = 50, lowest: float = -6.0) -> tuple[Tensor, Tensor]:
    """Features by the logarithm of their density.

    Args:
        density: [d_sae].
        bins: how many, of equal width from `lowest` to 0; rarer features count in the first.
        lowest: logarithm to base 10.

    Returns:
        Edges [bins + 1] and counts of features that fire at all [bins].
    """
    logs = density[density > 0].double().log10().clamp(min=lowest, max=0.0)
    edges = torch.linspace(lowest, 0.0, bins + 1, dtype=torch.float64)
    return edges, torch.histogram(logs, edges).hist
