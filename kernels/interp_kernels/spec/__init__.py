"""The words in which a call is said: `Mask` (who sees whom), `Collect` (what is measured), `Edit` (what is changed), `Problem` (one call)."""

from __future__ import annotations

from interp_kernels.spec.collect import Collect as Collect
from interp_kernels.spec.collect import ColumnCollect as ColumnCollect
from interp_kernels.spec.edit import Edit as Edit
from interp_kernels.spec.mask import Mask as Mask
from interp_kernels.spec.problem import Problem as Problem

__all__ = ["Collect", "ColumnCollect", "Edit", "Mask", "Problem"]
