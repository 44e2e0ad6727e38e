"""Instrumented attention kernels: softmax attention that measures itself, in O(N) memory. Knows torch and nothing of models.

`attention` returns out, lse and the row statistics of `Collect`; `columns` sums the map by key, diagonal or block; `entries` and `tile` give
back exact single weights and windows of the map from (q, k, lse).
"""

from __future__ import annotations

from interp_kernels.attention.api import Attended as Attended
from interp_kernels.attention.api import attention as attention
from interp_kernels.attention.api import explain as explain
from interp_kernels.columns.api import Columns as Columns
from interp_kernels.columns.api import columns as columns
from interp_kernels.dispatch import BackendError as BackendError
from interp_kernels.entries.api import entries as entries
from interp_kernels.spec.collect import Collect as Collect
from interp_kernels.spec.collect import ColumnCollect as ColumnCollect
from interp_kernels.spec.edit import Edit as Edit
from interp_kernels.spec.mask import Mask as Mask
from interp_kernels.tile.api import tile as tile
from interp_kernels.visibility import dense_bias as dense_bias
from interp_kernels.visibility import visible_count as visible_count
from interp_kernels.visibility import visible_rows as visible_rows

__all__ = [
    "Attended",
    "BackendError",
    "Collect",
    "ColumnCollect",
    "Columns",
    "Edit",
    "Mask",
    "attention",
    "columns",
    "dense_bias",
    "entries",
    "explain",
    "tile",
    "visible_count",
    "visible_rows",
]
