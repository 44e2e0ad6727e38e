"""A feature's record in the shape of the files that SAEDashboard writes for Neuronpedia, so that tools that read those read ours.

Names are theirs. Where they hold what we do not compute (alignment with neurons, correlated features) the lists are empty. `dfa_values` is DFA by
source for every token of the context, exact, 0 behind the token it is of; two keys are ours: `dfa_by_head` and `dfa_without_sink_by_head`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

ABSENT = (
    "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1", "correlated_neurons_indices",
    "correlated_neurons_pearson", "correlated_neurons_l1", "correlated_features_indices", "correlated_features_pearson",
    "correlated_features_l1",
)  # fmt: skip


def neuronpedia_json(record: Mapping[str, Any], *, model: str, source: str) -> dict[str, Any]:
    """The file of one feature.

    Args:
        record: of `interp.saes.dashboard.feature_record`.
        model: Neuronpedia's modelId.
        source: its layer, such as "12-att-interp".
    """
    logits = record["logits"]
    histogram = logits.get("histogram", {"edges": [], "counts": []})
    raised, lowered = (logits.get(side, []) for side in ("raised", "lowered"))
    return {
        "modelId": model,
        "layer": source,
        "index": str(record["feature"]),
        "feature_index": record["feature"],
        **{name: [] for name in ABSENT},
        "pos_str": [token for token, _ in raised],
        "pos_values": [value for _, value in raised],
        "neg_str": [token for token, _ in lowered],
        "neg_values": [value for _, value in lowered],
        "frac_nonzero": record["density"],
        "maxActApprox": record["max"] or 0.0,
        "freq_hist_data_bar_values": _middles(record["histogram"]["edges"]),
        "freq_hist_data_bar_heights": record["histogram"]["counts"],
        "logits_hist_data_bar_values": _middles(histogram["edges"]),
        "logits_hist_data_bar_heights": histogram["counts"],
        "decoder_weights_dist": record["heads"]["weights"],
        "activations": [_activation(group, e) for group in record["groups"] for e in group["examples"]],
    }


def _activation(group: Mapping[str, Any], example: Mapping[str, Any]) -> dict[str, Any]:
    values, dfa = example["values"], example["dfa"]
    best = max(range(len(values)), key=values.__getitem__)
    return {
        "tokens": example["tokens"],
        "values": values,
        "maxValue": values[best],
        "maxValueTokenIndex": best,
        "minValue": min(values),
        "qualifying_token_index": example["position"],
        # The top contexts are no interval; SAEDashboard writes -1 for its lower end and its share.
        "bin_min": -1 if group["share"] is None else group["low"],
        "bin_max": group["high"],
        "bin_contains": -1 if group["share"] is None else group["share"],
        "dfa_values": dfa + [0.0] * (len(values) - len(dfa)),
        "dfa_targetIndex": example["position"],
        "dfa_maxValue": max(dfa),
        "dfa_by_head": example["by_head"],
        "dfa_without_sink_by_head": example["by_head_without_sink"],
    }


def _middles(edges: list[float]) -> list[float]:
    return [(a + b) / 2 for a, b in pairwise(edges)]
