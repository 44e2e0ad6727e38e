"""Which function draws which kind of result: the registry that `interp.display` looks in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from interp.widgets.figures import head_heatmap, map_heatmap

PLOTS: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType({"heads": head_heatmap, "map": map_heatmap})
"""Kind of a result -> function that draws it as a plotly figure."""
