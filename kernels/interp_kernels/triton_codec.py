"""`Mask`, `Edit` and `Collect` as a list of tensors and a line of JSON, so that a custom operator can take them. Imports no Triton.

A custom operator takes tensors, numbers and strings; the JSON holds every field that is not a tensor, and the place
in the list of each one that is.
"""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any, cast

from torch import Tensor

from interp_kernels.spec.collect import Collect
from interp_kernels.spec.edit import Edit
from interp_kernels.spec.mask import Hidden, Mask
from interp_kernels.spec.problem import Problem

_RECORDS = {kind.__name__: kind for kind in (Mask, Hidden, Edit, Collect)}


def encode(problem: Problem, collect: Collect) -> tuple[list[Tensor], str]:
    """The tensors and the JSON of everything in a call but q, k, v and the sink logits."""
    tensors: list[Tensor] = []
    said = {
        "mask": _encoded(problem.mask, tensors),
        "edit": _encoded(problem.edit, tensors),
        "collect": _encoded(collect, tensors),
        "scale": problem.scale,
        "softcap": problem.softcap,
    }
    return tensors, json.dumps(said)


def decode_problem(q: Tensor, k: Tensor, sink_logits: Tensor | None, tensors: list[Tensor], spec: str) -> Problem:
    """The problem of `encode`."""
    said = json.loads(spec)
    return Problem(
        q=q,
        k=k,
        mask=_decoded(said["mask"], tensors),
        scale=said["scale"],
        softcap=said["softcap"],
        sink_logits=sink_logits,
        edit=_decoded(said["edit"], tensors),
    )


def decode_collect(tensors: list[Tensor], spec: str) -> Collect:
    """The wish of `encode`."""
    return _decoded(json.loads(spec)["collect"], tensors)


def _encoded(value: object, tensors: list[Tensor]) -> object:
    if isinstance(value, Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if isinstance(value, tuple):
        return {"tuple": [_encoded(x, tensors) for x in cast("tuple[object, ...]", value)]}
    if is_dataclass(value):
        body = {f.name: _encoded(getattr(value, f.name), tensors) for f in fields(value)}
        return {"record": type(value).__name__, "fields": body}
    return value


def _decoded(said: Any, tensors: list[Tensor]) -> Any:
    if not isinstance(said, dict):
        return said
    entry = cast("dict[str, Any]", said)
    if "tensor" in entry:
        return tensors[int(entry["tensor"])]
    if "tuple" in entry:
        return tuple(_decoded(x, tensors) for x in entry["tuple"])
    # Without __post_init__: it was checked when it was made, and looking at values would stop a GPU or a trace.
    record = object.__new__(_RECORDS[entry["record"]])
    for name, value in entry["fields"].items():
        object.__setattr__(record, name, _decoded(value, tensors))
    return record
