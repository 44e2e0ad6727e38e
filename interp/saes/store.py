"""`Store`: harvested z on disk: shards of rows by layer, the tokens they come from, and a manifest.

A folder holds `manifest.json`, `layer-12/00003.safetensors` (z, [row, d_in], bfloat16, float16 or float32) for every layer and shard, and
`tokens/00003.safetensors`: ids [token] of the shard's contexts one after the other, lengths [context], and rows [row], which token each row
of z belongs to. Row r is the same token in every layer. A shard is complete when the manifest names it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp.display import view as open_view
from interp.errors import CorruptFileError, OptionError, OutputError
from interp.ledger import write_whole

KIND = "saes.harvest"
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardTokens:
    """The tokens of a shard.

    Attributes:
        ids: of all its contexts one after the other, int32 [token].
        lengths: tokens of each context, int32 [context].
        rows: number of the token that each row of z belongs to, ascending, int32 [row].
    """

    ids: Tensor
    lengths: Tensor
    rows: Tensor

    @property
    def contexts(self) -> list[list[int]]:
        """The ids of each context."""
        return [x.tolist() for x in self.ids.split(self.lengths.tolist())]

    @property
    def context(self) -> Tensor:
        """Number of the context within the shard that each row is in, int64 [row]."""
        return torch.bucketize(self.rows, self.lengths.cumsum(0), right=True)

    @property
    def position(self) -> Tensor:
        """Place of each row's token in its context, from 0, int64 [row]."""
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), self.lengths.cumsum(0)])
        return self.rows.long() - starts[self.context]


class Store:
    """A harvest on disk.

    Args:
        folder: of a harvest, finished or not.

    Attributes:
        manifest: what was harvested of what: model, layers, heads, settings, text, shards.

    Raises:
        CorruptFileError: the folder holds no harvest.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.manifest: dict[str, Any] = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
            if self.manifest["kind"] != KIND:
                raise KeyError(f"kind {self.manifest['kind']}")
            self.layers: list[int] = list(self.manifest["layers"])
            self.shard_rows: list[int] = [shard["rows"] for shard in self.manifest["shards"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptFileError(
                f"{self.folder.name} holds no harvest ({error}); make one with `interp sae harvest`"
            ) from error

    @property
    def rows(self) -> int:
        """Rows of each layer."""
        return sum(self.shard_rows)

    @property
    def shards(self) -> int:
        """Finished shards."""
        return len(self.shard_rows)

    @property
    def d_in(self) -> int:
        """Length of a row."""
        return int(self.manifest["d_in"])

    def z(self, layer: int, shard: int) -> Tensor:
        """The rows of a layer in a shard, [row, d_in], in the dtype they are stored in.

        Raises:
            OptionError: a layer that was not harvested.
            CorruptFileError: the file is missing or damaged.
        """
        if layer not in self.layers:
            raise OptionError(f"layer {layer} was not harvested; {self.folder.name} holds layers {self.layers}")
        return self._read(z_path(self.folder, layer, shard))["z"]

    def tokens(self, shard: int) -> ShardTokens:
        """The tokens of a shard. Raises CorruptFileError if the file is missing or damaged."""
        return ShardTokens(**self._read(tokens_path(self.folder, shard)))

    def sample(self, layer: int, rows: int) -> Tensor:
        """Rows spread evenly over all shards, float32 [at most rows, d_in]; the same ones each time."""
        wanted = torch.linspace(0, self.rows - 1, min(rows, self.rows)).long().unique()
        parts, start = [], 0
        for shard, count in enumerate(self.shard_rows):
            here = wanted[(wanted >= start) & (wanted < start + count)] - start
            if len(here):
                parts.append(self.z(layer, shard)[here].float())
            start += count
        return torch.cat(parts)

    def view(self, **options: object) -> Any:
        """Open how large each head's z is in a notebook widget."""
        return open_view(KIND, self, **options)

    def _read(self, path: Path) -> dict[str, Tensor]:
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise CorruptFileError(f"{path.parent.name}/{path.name} cannot be read ({error}); harvest again") from error


def z_path(folder: Path, layer: int, shard: int) -> Path:
    """Where the rows of a layer lie."""
    return folder / f"layer-{layer}" / f"{shard:05}.safetensors"


def tokens_path(folder: Path, shard: int) -> Path:
    """Where the tokens of a shard lie."""
    return folder / "tokens" / f"{shard:05}.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: x.contiguous() for name, x in tensors.items()}, temporary, dict(metadata or {}) or None)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path.parent.name}/{path.name}: {error.strerror or error}") from error


def read_metadata(path: Path) -> dict[str, str]:
    """The words beside the tensors of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a harvest's manifest."""
    write_whole(folder / MANIFEST, {"kind": KIND, **manifest})
