"""Interventions as JSON and back: `to_json`, `from_json`. By name from a table; nothing is unpickled, evaluated or imported by a file's words.

Form: ``{"interventions": [{"kind": NAME, "fields": {...}}, ...]}``, the order in which they act. Tuples are lists; what JSON lacks is an object
with one key: ``{"set": [...]}``, ``{"map": [[key, value], ...]}``, ``{"number": "-inf"}``, ``{"tensor": {"dtype", "shape", "values"}}`` and, inside a
`Schedule`, ``{"intervention": {...}}``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from interp.capture.edits import Intervention
from interp.errors import CorruptFileError, EditError
from interp.interventions.ablate import AblateHeads
from interp.interventions.act import ACT
from interp.interventions.bias import LogBias
from interp.interventions.gate import GateHeads, RouteHeads
from interp.interventions.knockout import DeleteEdges, KnockOut
from interp.interventions.patterns import FreezePattern, PatchPattern, ReplacePattern
from interp.interventions.schedule import Schedule
from interp.interventions.sinks import InjectSink, RemoveSinks
from interp.interventions.streaming import Streaming
from interp.interventions.target_entropy import TargetEntropy
from interp.interventions.temperature import Temperature
from interp.interventions.values import ScaleValues
from interp.interventions.var import VAR

KINDS: Final[Mapping[str, type]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            ACT,
            AblateHeads,
            DeleteEdges,
            FreezePattern,
            GateHeads,
            InjectSink,
            KnockOut,
            LogBias,
            PatchPattern,
            RemoveSinks,
            ReplacePattern,
            RouteHeads,
            ScaleValues,
            Schedule,
            Streaming,
            TargetEntropy,
            Temperature,
            VAR,
        )
    }
)
"""Every intervention that can be saved, by name."""
MAX_TENSOR = 2**20
"""Most numbers of one tensor in a JSON file."""
DTYPES: Final[Mapping[str, torch.dtype]] = MappingProxyType(
    {str(d).removeprefix("torch."): d for d in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
)


def to_json(interventions: Sequence[Intervention]) -> str:
    """The interventions as a JSON text.

    Raises:
        EditError: one of a foreign kind, or a tensor of over 2**20 numbers (keep the inputs that made it, and make it again).
    """
    return json.dumps({"interventions": [_packed(e) for e in interventions]}, indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> list[Intervention]:
    """The interventions of `to_json`, checked as if they were written by hand.

    Raises:
        CorruptFileError: no such JSON.
        EditError: an unknown kind or field, or values that the kind refuses.
    """
    try:
        rows = json.loads(text)["interventions"]
        return [_unpacked(row) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CorruptFileError(
            f"these are no saved interventions ({type(error).__name__}: {error}); write them with interp.interventions.to_json"
        ) from error


def _packed(intervention: Intervention) -> dict[str, Any]:
    kind = type(intervention)
    if KINDS.get(kind.__name__) is not kind:
        raise EditError(f"{kind.__name__} cannot be saved; kinds that can: {', '.join(KINDS)}")
    values = {f.name: getattr(intervention, f.name) for f in fields(intervention)}  # pyright: ignore[reportArgumentType]
    return {"kind": kind.__name__, "fields": {name: _encode(name, x) for name, x in values.items() if x is not None}}


def _unpacked(row: Mapping[str, Any]) -> Intervention:
    name = row["kind"]
    if name not in KINDS:
        raise EditError(f"saved intervention of kind {name!r} is unknown; kinds: {', '.join(KINDS)}")
    kind = KINDS[name]
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(row["fields"]) - known):
        raise EditError(f"saved {name} has fields {unknown}; it knows {', '.join(sorted(known))}")
    return kind(**{key: _decode(x) for key, x in row["fields"].items()})


def _encode(name: str, x: Any) -> Any:
    if x is None or isinstance(x, bool | int | str):
        return x
    if isinstance(x, float):
        return x if math.isfinite(x) else {"number": repr(x)}
    if isinstance(x, tuple):
        return [_encode(name, y) for y in x]
    if isinstance(x, frozenset):
        return {"set": sorted(x)}
    if isinstance(x, Mapping):
        return {"map": [[_encode(name, key), _encode(name, y)] for key, y in x.items()]}
    if isinstance(x, Tensor):
        if x.numel() > MAX_TENSOR:
            raise EditError(
                f"{name}: a tensor of {x.numel():,} numbers is too large for JSON (at most {MAX_TENSOR:,}); "
                "keep the inputs it was made from and make it again"
            )
        values = [_encode(name, float(y)) for y in x.detach().flatten().tolist()]
        return {"tensor": {"dtype": str(x.dtype).removeprefix("torch."), "shape": list(x.shape), "values": values}}
    if isinstance(x, Intervention):
        return {"intervention": _packed(x)}
    raise EditError(f"{name}: a {type(x).__name__} cannot be saved")


def _tensor(held: Mapping[str, Any]) -> Tensor:
    flat = torch.tensor([_decode(y) for y in held["values"]], dtype=DTYPES[held["dtype"]])
    return flat.reshape(held["shape"])


_TAGS: Final[Mapping[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        "set": frozenset,
        "map": lambda pairs: {_decode(key): _decode(y) for key, y in pairs},
        "number": {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}.__getitem__,
        "tensor": _tensor,
        "intervention": _unpacked,
    }
)


def _decode(x: Any) -> Any:
    if isinstance(x, list):
        return tuple(_decode(y) for y in x)
    if isinstance(x, dict):
        ((tag, held),) = x.items()
        return _TAGS[tag](held)
    return x
