"""Which function draws which kind of result: the registry that `interp.display` looks in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from interp.widgets.figures import head_heatmap, map_heatmap
from interp.widgets.plots_batch import compare_figure, models_figure
from interp.widgets.plots_calibration import calibration_figure, search_figure
from interp.widgets.plots_circuits import (
    circuit_figure,
    codes_figure,
    direct_figure,
    effects_figure,
    knockout_figure,
    overlap_figure,
)
from interp.widgets.plots_entropy import entropy_figure
from interp.widgets.plots_explain import (
    agreement_figure,
    deployment_figure,
    faithfulness_figure,
    panel_figure,
    rollout_figure,
    streaming_loss_figure,
)
from interp.widgets.plots_heads import (
    causal_figure,
    confirm_figure,
    embedding_figure,
    retrieval_figure,
    scores_figure,
    sinks_figure,
    successor_figure,
)
from interp.widgets.plots_sae_attribution import (
    attribution_figure,
    directions_figure,
    ioi_figure,
    long_prefix_figure,
    prefix_on_text_figure,
    recursive_figure,
)
from interp.widgets.plots_saes import sae_evaluation_figure, sae_training_figure
from interp.widgets.plots_training import monitor_figure, sinks_training_figure, training_figure

PLOTS: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {
        "batch.compare": compare_figure,
        "batch.models": models_figure,
        "calibration": calibration_figure,
        "calibration.search": search_figure,
        "circuits.activation_patching": circuit_figure,
        "circuits.attribution_patching": circuit_figure,
        "circuits.codes": codes_figure,
        "circuits.direct_logit_attribution": direct_figure,
        "circuits.knockout_sweep": knockout_figure,
        "circuits.overlap": overlap_figure,
        "circuits.path_patching": circuit_figure,
        "entropy": entropy_figure,
        "entropy.monitor": monitor_figure,
        "entropy.training": training_figure,
        "entropy.training_sinks": sinks_training_figure,
        "explain.agreement": agreement_figure,
        "explain.faithfulness": faithfulness_figure,
        "explain.gradient": scores_figure,
        "explain.norms": scores_figure,
        "explain.panel": panel_figure,
        "explain.rollout": rollout_figure,
        "heads": head_heatmap,
        "map": map_heatmap,
        "heads.causal_retrieval": causal_figure,
        "heads.confirm": confirm_figure,
        "heads.copying": scores_figure,
        "heads.deployment": deployment_figure,
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
        "interventions.answer_effects": effects_figure,
        "interventions.generation_effects": effects_figure,
        "interventions.text_effects": effects_figure,
        "saes.attribution": attribution_figure,
        "saes.evaluation": sae_evaluation_figure,
        "saes.ioi_features": ioi_figure,
        "saes.ioi_position": ioi_figure,
        "saes.long_prefix": long_prefix_figure,
        "saes.polysemanticity": directions_figure,
        "saes.prefix_on_text": prefix_on_text_figure,
        "saes.recursive_dfa": recursive_figure,
        "saes.training": sae_training_figure,
        "sinks": sinks_figure,
        "sinks.streaming": streaming_loss_figure,
    }
)
"""Kind of a result -> function that draws it as a plotly figure."""
