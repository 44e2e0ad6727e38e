"""Which function draws which kind of result: the registry that `interp.display` looks in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from interp.widgets.figures import head_heatmap, map_heatmap
from interp.widgets.plots_entropy import entropy_figure
from interp.widgets.plots_heads import (
    causal_figure,
    confirm_figure,
    embedding_figure,
    retrieval_figure,
    scores_figure,
    sinks_figure,
    successor_figure,
)
from interp.widgets.plots_training import live_figure, monitor_figure, training_figure

PLOTS: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {
        "entropy": entropy_figure,
        "entropy.live": live_figure,
        "entropy.monitor": monitor_figure,
        "entropy.training": training_figure,
        "heads": head_heatmap,
        "map": map_heatmap,
        "heads.causal_retrieval": causal_figure,
        "heads.confirm": confirm_figure,
        "heads.copying": scores_figure,
        "heads.duplicate_token": scores_figure,
        "heads.embedding": embedding_figure,
        "heads.features": scores_figure,
        "heads.flexprefill": scores_figure,
        "heads.induction": scores_figure,
        "heads.patterns": scores_figure,
        "heads.previous_token": scores_figure,
        "heads.qrhead": scores_figure,
        "heads.report": scores_figure,
        "heads.retrieval": retrieval_figure,
        "heads.streaming": scores_figure,
        "heads.succession_attention": scores_figure,
        "heads.successor": successor_figure,
        "heads.successor_probe": scores_figure,
        "sinks": sinks_figure,
    }
)
"""Kind of a result -> function that draws it as a plotly figure."""
