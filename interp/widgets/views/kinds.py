"""Which view opens which kind of result: the registry that `interp.display` looks in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from interp.widgets.facts import title
from interp.widgets.plots_heads import title_of
from interp.widgets.views.attention_map import AttentionMapView
from interp.widgets.views.base import View
from interp.widgets.views.compare_view import CompareView
from interp.widgets.views.curves_reading import of_sae_training, of_sinks_training
from interp.widgets.views.curves_view import CurvesView
from interp.widgets.views.entropy_view import EntropyView
from interp.widgets.views.harvest_table import norms_table
from interp.widgets.views.head_grid import HeadGrid
from interp.widgets.views.head_words import scores_table
from interp.widgets.views.needle_grid import NeedleGrid
from interp.widgets.views.needle_grid_source import has_cells
from interp.widgets.views.pattern_atlas import PatternAtlas
from interp.widgets.views.sae_feature import SAEFeature
from interp.widgets.views.sink_explorer import SinkExplorer
from interp.widgets.views.successor_table import SuccessorTable


def scores_view(result: Any, **options: Any) -> HeadGrid:
    """The grid of an analysis' table: every score beside its spread and control."""
    return HeadGrid(scores_table(result), **{"title": title_of(result), **options})


def needles_view(result: Any, **options: Any) -> View:
    """Retrieval by length and depth, where the prompts said theirs; else the grid of its scores."""
    if not has_cells(result):
        return scores_view(result, **options)
    return NeedleGrid(result, **{"title": title_of(result), **options})


def successors_view(result: Any, **options: Any) -> SuccessorTable:
    """The table of successor heads, with the pairs of each."""
    return SuccessorTable(result, **{"title": title_of(result), **options})


def atlas_view(result: Any, **options: Any) -> PatternAtlas:
    """All heads placed by how they attend."""
    return PatternAtlas(result, **{"title": title_of(result), **options})


def changes_view(result: Any, **options: Any) -> CompareView:
    """What a result says about a change: metrics beside their controls, heads in signed colours."""
    return CompareView(result, **{"title": str(result.kind), **options})


def sinks_view(result: Any, **options: Any) -> SinkExplorer:
    """Sink rates by head, layer and key."""
    return SinkExplorer(result, **{"title": title_of(result), **options})


def entropy_view(result: Any, **options: Any) -> EntropyView:
    """Entropies by head, layer and position."""
    return EntropyView(result, **{"title": title_of(result), **options})


def monitor_view(monitor: Any, *, refresh: int = 1, **options: Any) -> EntropyView:
    """Entropies over the steps of a training, following it at every `refresh`-th reading."""
    view = EntropyView(monitor, **{"title": "attention entropy in training", **options})
    view.follow(monitor, refresh=refresh)
    return view


def training_view(folder: Any, **options: Any) -> EntropyView:
    """Entropies over the steps of an experiment's trainings, read from its folder."""
    return EntropyView(folder, **{"title": f"attention entropy in training: {Path(folder).name}", **options})


def sinks_training_view(folder: Any, **options: Any) -> CurvesView:
    """Sink rates over the steps of an experiment's trainings, read from its folder."""
    return CurvesView(of_sinks_training(folder), **{"title": f"sinks over training: {Path(folder).name}", **options})


def sae_training_view(folder: Any, **options: Any) -> CurvesView:
    """The log of an autoencoder's training, read from its folder."""
    return CurvesView(of_sae_training(folder), **{"title": f"training of {Path(folder).name}", **options})


def evaluation_view(evaluation: Any, **options: Any) -> CurvesView:
    """An autoencoder on held-out text: densities, losses, probes and every metric."""
    made = evaluation.manifest
    title = f"autoencoder of layer {made['layer']}, {made['model']['name']}"
    return CurvesView(evaluation, **{"title": title, **options})


def streaming_view(result: Any, **options: Any) -> CurvesView:
    """Perplexity of every policy by position."""
    return CurvesView(result, **{"title": "streaming with and without sinks", **options})


def models_view(result: Any, **options: Any) -> CurvesView:
    """Heads over a series of models or checkpoints."""
    return CurvesView(result, **{"title": f"heads over {len(result.scans)} models", **options})


def scans_view(result: Any, **options: Any) -> CompareView:
    """The difference of two scans, head by head."""
    a, b = (side["folder"] for side in result.manifest["compared"])
    return CompareView(result, **{"title": f"{b} less {a}", **options})


def frame_view(frame: Any, **options: Any) -> HeadGrid:
    """The grid of a tidy table of statistics."""
    return HeadGrid(frame, **options)


def run_view(run: Any, **options: Any) -> HeadGrid:
    """The grid of a run of one text; query heads that share keys are bracketed where the run kept its keys."""
    keys = run.record(run.layers[0]).k
    return HeadGrid(run.frame, **{"kv_heads": None if keys is None else keys.shape[1], **options})


def features_view(source: Any, **options: Any) -> SAEFeature:
    """The features of an autoencoder: an index, and one at a time."""
    return SAEFeature(source, **options)


def harvest_view(store: Any, **options: Any) -> HeadGrid:
    """How large each head's z is in a harvest."""
    return HeadGrid(norms_table(store), **{"title": f"harvest {store.folder.name}, {store.rows:,} rows", **options})


def prefixes_view(result: Any, **options: Any) -> HeadGrid:
    """The grid of scores that were measured with prefixes of several lengths, one number for each."""
    table = result.table.drop(columns="kind").assign(prefix=[f"prefix {n}" for n in result.table["prefix"]])
    return HeadGrid(table, **{"title": title_of(result), **options})


def scan_view(scan: Any, **options: Any) -> HeadGrid:
    """The grid of a scan."""
    return HeadGrid(scan.frame, **{"title": title(scan.manifest), **options})


VIEWS: Final[Mapping[str, Callable[..., View]]] = MappingProxyType(
    {
        "batch.compare": scans_view,
        "batch.models": models_view,
        "calibration": changes_view,
        "calibration.search": changes_view,
        "circuits.activation_patching": changes_view,
        "circuits.attribution_patching": changes_view,
        "circuits.codes": changes_view,
        "circuits.direct_logit_attribution": changes_view,
        "circuits.knockout_sweep": changes_view,
        "circuits.overlap": changes_view,
        "circuits.path_patching": changes_view,
        "entropy": entropy_view,
        "entropy.monitor": monitor_view,
        "entropy.training": training_view,
        "entropy.training_sinks": sinks_training_view,
        "explain.agreement": changes_view,
        "explain.faithfulness": changes_view,
        "explain.gradient": scores_view,
        "explain.norms": scores_view,
        "explain.panel": changes_view,
        "explain.rollout": changes_view,
        "heads": frame_view,
        "heads.causal_retrieval": changes_view,
        "heads.confirm": changes_view,
        "heads.copying": scores_view,
        "heads.deployment": changes_view,
        "heads.duplicate_token": scores_view,
        "heads.embedding": atlas_view,
        "heads.features": scores_view,
        "heads.flexprefill": scores_view,
        "heads.induction": scores_view,
        "heads.patterns": scores_view,
        "heads.previous_token": scores_view,
        "heads.qrhead": scores_view,
        "heads.report": scores_view,
        "heads.retrieval": needles_view,
        "heads.streaming": scores_view,
        "heads.succession_attention": scores_view,
        "heads.successor": successors_view,
        "heads.successor_probe": scores_view,
        "interventions.answer_effects": changes_view,
        "interventions.generation_effects": changes_view,
        "interventions.text_effects": changes_view,
        "map": AttentionMapView,
        "run": run_view,
        "saes.attribution": features_view,
        "saes.evaluation": evaluation_view,
        "saes.features": features_view,
        "saes.harvest": harvest_view,
        "saes.ioi_features": changes_view,
        "saes.ioi_position": changes_view,
        "saes.long_prefix": prefixes_view,
        "saes.polysemanticity": scores_view,
        "saes.prefix_on_text": scores_view,
        "saes.recursive_dfa": changes_view,
        "saes.training": sae_training_view,
        "scan": scan_view,
        "sinks": sinks_view,
        "sinks.streaming": streaming_view,
    }
)
"""Kind of a result -> function that opens it in a view."""
