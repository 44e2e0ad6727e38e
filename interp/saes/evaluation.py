"""`Evaluation`: every metric of an autoencoder on held-out text, as tables that can be saved, read and drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from interp.display import plot as draw
from interp.display import view as open_view
from interp.errors import CorruptFileError, OutputError
from interp.ledger import write_whole
from interp.models.hooked import HookedModel
from interp.saes.core import SAE
from interp.saes.metrics import reconstruction
from interp.saes.model_losses import LossMeter
from interp.saes.probing import sparse_probing
from interp.saes.store import Store, write_tensors

KIND = "saes.evaluation"


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What was measured.

    Attributes:
        table: columns positions ("all", "without first"), metric, value.
        probing: see `interp.saes.probing.sparse_probing`; empty where it was left out.
        density: share of rows on which each feature fires, float64 [view, d_sae].
        manifest: autoencoder, model, text, versions.
    """

    table: pd.DataFrame
    probing: pd.DataFrame
    density: Tensor
    manifest: Mapping[str, Any]

    @property
    def frame(self) -> pd.DataFrame:
        """The metrics, one row each, a column for each view."""
        wide = self.table.pivot(index="metric", columns="positions", values="value")
        return wide.reindex(self.table["metric"].unique()).rename_axis(columns=None)

    def plot(self, **options: object) -> Any:
        """Density histogram, cross-entropy, and probes as a plotly figure."""
        return draw(KIND, self, **options)

    def view(self, **options: object) -> Any:
        """Open it in a notebook widget."""
        return open_view(KIND, self, **options)

    def save(self, folder: str | Path) -> Path:
        """Write tables, densities and manifest. Returns the folder.

        Raises:
            OutputError: it cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.table.to_parquet(folder / "table.parquet", index=False)
            self.probing.to_parquet(folder / "probing.parquet", index=False)
        except OSError as error:
            raise OutputError(f"cannot write the evaluation to {folder.name}: {error.strerror or error}") from error
        write_tensors(folder / "density.safetensors", {"density": self.density})
        write_whole(folder / "manifest.json", {"kind": KIND, **self.manifest})
        return folder

    @staticmethod
    def load(folder: str | Path) -> Evaluation:
        """Read a saved evaluation.

        Raises:
            CorruptFileError: a file is missing or damaged.
        """
        folder = Path(folder)
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            if manifest.pop("kind") != KIND:
                raise KeyError("kind")
            return Evaluation(
                table=pd.read_parquet(folder / "table.parquet"),
                probing=pd.read_parquet(folder / "probing.parquet"),
                density=load_file(folder / "density.safetensors")["density"],
                manifest=manifest,
            )
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise CorruptFileError(f"{folder.name} holds no evaluation of an autoencoder ({error})") from error


def evaluate(
    sae: SAE,
    model: HookedModel,
    store: Store,
    layer: int,
    *,
    contexts: Sequence[Sequence[int]] | None = None,
    probing_rows: int = 5_000,
) -> Evaluation:
    """Every metric of an autoencoder.

    Args:
        sae: a finished autoencoder.
        model: the model that it is of.
        store: a harvest of text that it was not trained on; position 0 and special tokens count as far as the harvest kept them.
        layer: whose z it reads.
        contexts: inputs for the model's own loss; None takes the harvest's, all of them.
        probing_rows: rows per probing task, 0 to leave probing out.

    Raises:
        OptionError: autoencoder, harvest and model do not fit.
    """
    measured = reconstruction(sae, store, layer)
    given = [c for shard in range(store.shards) for c in store.tokens(shard).contexts] if contexts is None else contexts
    losses = LossMeter(model, layer, given).measure(sae)
    probes = pd.DataFrame()
    if probing_rows:
        ks = [k for k in (1, 2, 5) if k <= min(sae.config.d_sae, sae.config.d_in)]
        probes = sparse_probing(sae, store, layer, model.tokens, ks=ks, rows=probing_rows)
    config = sae.config
    manifest = {
        **model.manifest(),
        "layer": layer,
        "autoencoder": {
            "architecture": config.architecture,
            "d_in": config.d_in,
            "d_sae": config.d_sae,
            "k": config.k,
            **config.metadata,
        },
        "text": store.manifest["text"],
        "rows": store.rows,
        "contexts": len(given),
        "context_tokens": sum(map(len, given)),
    }
    table = pd.concat([measured.table, losses], ignore_index=True)
    return Evaluation(table=table, probing=probes, density=measured.density, manifest=manifest)
