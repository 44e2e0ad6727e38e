"""Attention interpretability in O(N) memory: exact statistics of every head of a transformer.

    >>> import interp
    >>> model = interp.load("smollm2-135m")  # doctest: +SKIP
    >>> run = model.run("The cat sat on the mat.")  # doctest: +SKIP
    >>> run.attention[3, 5].top(4, k=3)  # doctest: +SKIP

Public names load on first use, so that `import interp` is quick and imports neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp import calibration, circuits, entropy, explain, heads, interventions, saes, sinks, stats, tasks
    from interp.batch.scan import scan
    from interp.capture.run import Run
    from interp.maps.attention_map import AttentionMap
    from interp.models.available import available_models
    from interp.models.hooked import HookedModel, wrap
    from interp.models.load import load
    from interp.models.toy import tiny
    from interp.widgets.views.explore import explore

    __version__: str

__all__ = [
    "AttentionMap",
    "HookedModel",
    "Run",
    "__version__",
    "available_models",
    "calibration",
    "circuits",
    "entropy",
    "explain",
    "explore",
    "heads",
    "interventions",
    "load",
    "saes",
    "scan",
    "sinks",
    "stats",
    "tasks",
    "tiny",
    "wrap",
]

_NAMES = {
    "AttentionMap": "interp.maps.attention_map",
    "HookedModel": "interp.models.hooked",
    "Run": "interp.capture.run",
    "available_models": "interp.models.available",
    "explore": "interp.widgets.views.explore",
    "load": "interp.models.load",
    "scan": "interp.batch.scan",
    "tiny": "interp.models.toy",
    "wrap": "interp.models.hooked",
}
_MODULES = frozenset(
    {"calibration", "circuits", "entropy", "explain", "heads", "interventions", "saes", "sinks", "stats", "tasks"}
)


def __getattr__(name: str) -> object:
    """Load a public name from its module the first time it is asked for."""
    value: object
    if name in _NAMES:
        value = getattr(import_module(_NAMES[name]), name)
    elif name in _MODULES:
        value = import_module(f"interp.{name}")
    elif name == "__version__":
        value = metadata.version("interp")
    else:
        raise AttributeError(f"module 'interp' has no attribute {name!r}; its public names are: {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
