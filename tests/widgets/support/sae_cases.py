"""A small autoencoder of a tiny model on random text: for the tests of the feature page, its data and its command."""

from __future__ import annotations

import numpy as np
import torch

from interp.models.toy import tiny
from interp.saes.config import SAEConfig
from interp.saes.core import SAE
from interp.saes.dashboard import FeatureSource, feature_source

LAYER, D_IN, FEATURES = 1, 60, 17
NASTY = "<img src=x onerror=alert(1)></script>"


def autoencoder() -> SAE:
    """Random rows, each its own encoder; about half of the features active at a token."""
    w_dec = torch.randn(FEATURES, D_IN, generator=torch.Generator().manual_seed(0))
    weights = {"W_enc": w_dec.T, "W_dec": w_dec, "b_dec": torch.zeros(D_IN), "b_enc": torch.zeros(FEATURES)}
    metadata = {"model_name": "tiny/llama", "hook_name": f"blocks.{LAYER}.attn.hook_z"}
    return SAE(SAEConfig(architecture="standard", d_in=D_IN, d_sae=FEATURES, metadata=metadata), weights)


def source() -> FeatureSource:
    """23 texts of 41 random bytes."""
    draw = np.random.default_rng(0)
    contexts = [[int(i) for i in draw.integers(7, 263, 41)] for _ in range(23)]
    return feature_source(autoencoder(), tiny("llama"), LAYER, contexts)
