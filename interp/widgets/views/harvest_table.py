"""How large each head's z is in a harvest, from the stored rows alone: what its view shows."""

from __future__ import annotations

from typing import Final

import pandas as pd
import torch

from interp.errors import OptionError
from interp.saes.store import Store

ROWS: Final = 4096
"""Rows of each layer that are read, spread evenly over the shards."""


def norms_table(store: Store) -> pd.DataFrame:
    """One row per layer and head: mean norm of z with its standard deviation over rows, and the head's share of the layer's variance.

    An autoencoder of a whole layer spends its loss in proportion to that share.

    Raises:
        OptionError: nothing was harvested yet.
        CorruptFileError: a shard is missing or damaged.
    """
    if store.rows < 2:
        raise OptionError(f"{store.folder.name} holds {store.rows} rows yet; harvest some text first")
    parts = []
    for layer in store.layers:
        rows = store.sample(layer, ROWS).double()
        z = rows.unflatten(-1, (int(store.manifest["heads"]), -1))
        norm, variance = z.norm(dim=-1), z.var(0, correction=0).sum(-1)
        values = {
            "head": range(z.shape[1]),
            "norm_of_z": norm.mean(0).numpy(),
            "norm_of_z_spread": norm.std(0).numpy(),
            "share_of_variance": (variance / variance.sum().clamp(min=torch.finfo(torch.float64).tiny)).numpy(),
        }
        parts.append(pd.DataFrame(values).assign(layer=layer))
    return pd.concat(parts, ignore_index=True)
