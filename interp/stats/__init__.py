"""Statistics of attention heads: one declaration each (name, formula, shape, units, needs, merge rule, cost, source)."""

from __future__ import annotations

from interp.stats.catalogue import STATISTICS as STATISTICS
from interp.stats.catalogue import declare as declare
from interp.stats.catalogue import describe as describe
from interp.stats.catalogue import find as find
from interp.stats.catalogue import forward_names as forward_names
from interp.stats.catalogue import names as names
from interp.stats.declaration import Statistic as Statistic
from interp.stats.summary import Summary as Summary

__all__ = ["STATISTICS", "Statistic", "Summary", "declare", "describe", "find", "forward_names", "names"]
