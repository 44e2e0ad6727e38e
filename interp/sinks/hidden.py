"""Sinks in the hidden states: massive activations, the dimensions that mark a sink, and norms of keys, values and residuals over layers.

    phi(x) = max over sink dimensions d of |x_d| / RMS(x); a token is a sink where phi > 20, from layer 2 on
             (VAR: Kang et al. 2025, section 4 of the methods notes; its dimensions are hard-coded per backbone, here they are found)
    massive activation: |x_d| > 100 and > 1,000 times the median |x| of the layer (Sun et al. 2024, arXiv 2402.17762)

A first-token sink shows as a residual of huge norm whose keys and values are smaller than those of other tokens (Gu et al. 2025,
section 4): a head that looks there writes almost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.capture.call import Attended, AttentionCall
from interp.models.hooked import HookedModel

PHI_THRESHOLD = 20.0
MASSIVE_VALUE = 100.0
MASSIVE_RATIO = 1000.0
SINK_DIMENSIONS = 2


def hidden_states(model: HookedModel, ids: Sequence[int]) -> Tensor:
    """Residual stream at the entrance of every layer and after the last, float32 [layer + 1, token, feature]."""
    with torch.no_grad():
        output = model.hf.base_model(
            torch.tensor([list(ids)], device=model.device), output_hidden_states=True, use_cache=False
        )
    return torch.stack([h[0].float() for h in output.hidden_states])


def sink_dimensions(states: Tensor, *, count: int = SINK_DIMENSIONS, from_layer: int = 2) -> list[int]:
    """The features in which the first token stands out most: largest median over layers of |x_d| / RMS(x) at the first token."""
    first = states[from_layer:-1, 0]
    outstanding = (first.abs() / first.square().mean(-1, keepdim=True).sqrt()).median(0).values
    return outstanding.topk(count).indices.tolist()


def phi(states: Tensor, dimensions: Sequence[int]) -> Tensor:
    """phi of every token at every layer: float32 [layer + 1, token]."""
    return states[..., list(dimensions)].abs().amax(-1) / states.square().mean(-1).sqrt().clamp(min=1e-12)


def massive_activations(states: Tensor, *, value: float = MASSIVE_VALUE, ratio: float = MASSIVE_RATIO) -> pd.DataFrame:
    """Activations over both thresholds: columns layer (entrance of), token, feature, activation, ratio to the layer's median."""
    size = states.abs()
    median = size.flatten(1).median(1).values.clamp(min=1e-12)
    layer, token, feature = torch.nonzero((size > value) & (size > ratio * median[:, None, None]), as_tuple=True)
    activation = states[layer, token, feature]
    return pd.DataFrame(
        {
            "layer": layer.numpy(),
            "token": token.numpy(),
            "feature": feature.numpy(),
            "activation": activation.numpy(),
            "ratio": (activation.abs() / median[layer]).numpy(),
        }
    )


def norms(model: HookedModel, ids: Sequence[int]) -> pd.DataFrame:
    """Norms at the first token and their median over the others: columns layer, head, quantity, first, others.

    Quantities, all Euclidean: residual (entrance of the layer; head -1), key (post-rotary) and value (by key-value head), output (z, by
    query head).
    """
    rows: list[dict[str, object]] = []

    def add(layer: int, head: int, quantity: str, x: Tensor) -> None:
        norm = x.float().norm(dim=-1)
        others = float(norm[1:].median()) if len(norm) > 1 else float("nan")
        rows.append({"layer": layer, "head": head, "quantity": quantity, "first": float(norm[0]), "others": others})

    for layer, x in enumerate(hidden_states(model, ids)[:-1]):
        add(layer, -1, "residual", x)

    def take(call: AttentionCall, attended: Attended) -> None:
        for name, x in (("key", call.k), ("value", call.v), ("output", attended.out)):
            for head in range(x.shape[1]):
                add(call.site.layer, head, name, x[0, head])

    with torch.no_grad():
        model.probe(list(ids), take)
    return pd.DataFrame(rows)


def first_over_others(frame: pd.DataFrame, quantity: str) -> np.ndarray:
    """Ratio first / others of one quantity, one number per layer (median over heads)."""
    chosen = frame[frame["quantity"] == quantity]
    ratio = pd.Series(chosen["first"] / chosen["others"])
    return ratio.groupby(chosen["layer"]).median().to_numpy()
