"""Features of an autoencoder whose records are made up and known: no model, no autoencoder."""

from __future__ import annotations

from typing import Any

NASTY = ("<img src=x onerror=alert(1)>", "</script>", "\u202e\ud800", " the", "\n")
RAISES = ("<b>x</b>",)
FEATURES = (7, 3, 11)
HEADS = {7: 2, 3: 0, 11: 2}
DENSITY = {7: 0.25, 3: 0.5, 11: 0.125}


def example(position: int) -> dict[str, Any]:
    """A context of five tokens: values 0, 1, 2, 3, 4 quarters; DFA of the tokens up to `position` 1, -0.5, 0.25, ..."""
    return {
        "context": 1,
        "position": position,
        "tokens": list(NASTY),
        "values": [i / 4 for i in range(5)],
        "dfa": [(-0.5) ** i for i in range(position + 1)],
        "source": 0,
        "sink_share": 0.5,
        "by_head": [1.0, 2.0, 3.0],
        "by_head_without_sink": [0.0, 1.0, 1.0],
    }


def record(feature: int) -> dict[str, Any]:
    """Everything about one of `FEATURES`."""
    return {
        "feature": feature,
        "layer": 5,
        "firings": 13,
        "density": DENSITY[feature],
        "at_first": 0.0,
        "max": 1.0,
        "mean": 0.5,
        "histogram": {"edges": [0.0, 0.5, 1.0], "counts": [4, 9]},
        "heads": {"weights": [0.5, 0.25, 0.25], "dfa": [0.125, 0.125, 0.75], "dfa_without_sink": [0.0, 0.5, 0.5]},
        "logits": {"raised": [(RAISES[0], 2.5)], "lowered": [(" no", -1.5)], "histogram": {"edges": [], "counts": []}},
        "related": [(3, 0.5), (99, 0.25)],
        "groups": [
            {"name": "top", "low": 1.0, "high": 1.0, "share": None, "examples": [example(4)]},
            {"name": "interval", "low": 0.5, "high": 1.0, "share": 0.25, "examples": [example(2)]},
        ],
    }


def index() -> tuple[dict[str, Any], ...]:
    """A row for each of `FEATURES`."""
    same = {"layer": 5, "head_share": 0.75, "max": 1.0, "mean": 0.5, "tokens": list(RAISES)}
    return tuple({"feature": f, "head": HEADS[f], "density": DENSITY[f], **same} for f in FEATURES)
