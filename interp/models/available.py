"""`available_models`: what `interp models` lists: the names that `interp.load` takes on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from interp.errors import ModelNotFoundError, OptionError
from interp.models.embedded import EMBEDDED, EmbeddedModel, cached_at, is_unpacked
from interp.models.families import FAMILIES
from interp.models.hub import cached_models
from interp.models.load import TINY

STATES = ("ready", "needs unpacking", "not installed", "built on demand")
"""What there is to do before a model runs: nothing, half a minute once, an installation, nothing."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One model that `interp.load` takes by name.

    Attributes:
        name: what to pass to `interp.load`.
        kind: "embedded", "hub" (in the hub's cache on this machine) or "toy" (tiny, random weights).
        state: one of `STATES`.
        bytes: size on disk; None where there is nothing on disk.
        note: what it is, or what to do first.
    """

    name: str
    kind: str
    state: str
    bytes: int | None
    note: str

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise OptionError(f"state must be one of {', '.join(STATES)}; got {self.state!r}")


def available_models() -> list[ModelInfo]:
    """List the embedded models, those in the Hugging Face cache, and the tiny families; downloads and unpacks nothing."""
    hub = [
        ModelInfo(name=name, kind="hub", state="ready", bytes=size, note="in the Hugging Face cache on this machine")
        for name, size in cached_models()
    ]
    toys = [
        ModelInfo(
            name=f"{TINY}{row.name}",
            kind="toy",
            state="built on demand",
            bytes=None,
            note=f"random weights, {row.kind}: {row.notes}",
        )
        for row in FAMILIES.values()
    ]
    return [*map(_embedded, EMBEDDED.values()), *hub, *toys]


def _embedded(model: EmbeddedModel) -> ModelInfo:
    """Describe one embedded model."""
    try:
        folder = cached_at(model)
    except ModelNotFoundError:
        return ModelInfo(
            name=model.name, kind="embedded", state="not installed", bytes=None, note=f"install it: {model.install}"
        )
    if not is_unpacked(model):
        return ModelInfo(
            name=model.name, kind="embedded", state="needs unpacking", bytes=None, note=f"{model.title}, the default"
        )
    size = sum(path.stat().st_size for path in folder.iterdir())
    return ModelInfo(name=model.name, kind="embedded", state="ready", bytes=size, note=f"{model.title}, the default")
