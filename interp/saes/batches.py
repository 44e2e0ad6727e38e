"""`Batches`: mixed batches of a harvested layer, in an order that the seed decides.

In every epoch the shards are dealt into groups in a random order, and the rows of a group are shuffled together: the mixing buffer, as
large as a group. Batch number i is the same whatever came before it, so a training that was stopped goes on with the very same batches.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
from torch import Tensor

from interp.errors import OptionError
from interp.saes.store import Store


class Batches:
    """Batches of one layer of a harvest, without end: batch number i, epoch after epoch.

    Args:
        store: the harvest.
        layer: which of its layers.
        size: rows of a batch; what is left of an epoch behind its last full batch is left out of that epoch.
        buffer: rows that are mixed at least, as long as there are so many; in memory at once, in the stored dtype.
        seed: of the order.

    Raises:
        OptionError: fewer rows than one batch, or sizes below 1.
    """

    def __init__(self, store: Store, layer: int, *, size: int, buffer: int = 131_072, seed: int = 0) -> None:
        if size < 1 or buffer < 1:
            raise OptionError(f"batch and buffer must be at least 1 row; got {size} and {buffer}")
        if store.rows < size:
            raise OptionError(
                f"the harvest holds {store.rows} rows, fewer than one batch of {size}; harvest more, or take smaller batches"
            )
        self.store, self.layer, self.size, self.buffer, self.seed = store, layer, size, buffer, seed
        self._group = lru_cache(maxsize=2)(self._mixed)  # a batch may begin in one group and end in the next
        self._deal = lru_cache(maxsize=2)(self._dealt)

    @property
    def per_epoch(self) -> int:
        """Full batches of one epoch."""
        return self.store.rows // self.size

    def __getitem__(self, number: int) -> Tensor:
        """Batch `number`, from 0, float32 [size, d_in]."""
        epoch, inside = divmod(number, self.per_epoch)
        start, stop = inside * self.size, (inside + 1) * self.size
        parts, at = [], 0
        for group, shards in enumerate(self._deal(epoch)):
            count = sum(self.store.shard_rows[s] for s in shards)
            if at < stop and start < at + count:
                parts.append(self._group(epoch, group)[max(start - at, 0) : stop - at])
            at += count
        return torch.cat(parts).float()

    def _dealt(self, epoch: int) -> list[list[int]]:
        """The shards of each group, in the order of this epoch."""
        groups: list[list[int]] = [[]]
        rows = 0
        for shard in torch.randperm(self.store.shards, generator=self._generator(epoch, 0)).tolist():
            if rows >= self.buffer:
                groups.append([])
                rows = 0
            groups[-1].append(shard)
            rows += self.store.shard_rows[shard]
        return groups

    def _mixed(self, epoch: int, group: int) -> Tensor:
        """The rows of a group, shuffled."""
        rows = torch.cat([self.store.z(self.layer, shard) for shard in self._deal(epoch)[group]])
        return rows[torch.randperm(len(rows), generator=self._generator(epoch, group + 1))]

    def _generator(self, epoch: int, use: int) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed}/{epoch}/{use}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
