"""Which backend serves a call. Each operation names its implementations; each implementation says whether it can (and why not).

An implementation is a module with ``supports(call) -> (bool, reason)``; an explicit backend never falls back, `auto` takes the first that can
and logs once a reason for each one passed over. `launches` counts what really ran, by (operation, backend).
"""

from __future__ import annotations

import importlib
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, get_args

import torch

Backend = Literal["reference", "portable", "cpu", "triton"]
BackendChoice = Literal["auto", "reference", "portable", "cpu", "triton"]

logger = logging.getLogger(__name__)
launches: Counter[tuple[str, str]] = Counter()
_told: set[tuple[str, str, str]] = set()


class BackendError(RuntimeError):
    """The backend asked for cannot serve the call; the message says why and what else there is."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one backend says of a call."""

    backend: str
    ok: bool
    reason: str


def auto_order(device: torch.device) -> tuple[str, ...]:
    """Backends that `auto` tries on a device, fastest first."""
    return {"cpu": ("cpu", "portable"), "cuda": ("triton", "portable")}.get(device.type, ("portable",))


def verdicts(implementations: Mapping[str, str], call: object) -> list[Verdict]:
    """Ask every implementation of an operation about a call, in the order named."""
    return [
        Verdict(backend=name, ok=ok, reason=why)
        for name, (ok, why) in ((n, _ask(m, call)) for n, m in implementations.items())
    ]


def choose(
    operation: str, implementations: Mapping[str, str], backend: str, call: object, device: torch.device
) -> tuple[str, ModuleType]:
    """The (name, module) that serves `call`. Raises BackendError for an explicit backend that cannot, ValueError for an unknown one."""
    if backend not in get_args(BackendChoice):
        raise ValueError(f"backend: got {backend!r}; valid are {', '.join(get_args(BackendChoice))}")
    candidates = auto_order(device) if backend == "auto" else (backend,)
    refusals: list[str] = []
    for name in candidates:
        if name not in implementations:
            refusals.append(f"{name}: has no {operation}")
            continue
        ok, why = _ask(implementations[name], call)
        if ok:
            launches[operation, name] += 1
            _tell_once(operation, name, refusals)
            return name, importlib.import_module(implementations[name])
        refusals.append(f"{name}: {why}")
    raise BackendError(
        f"{operation}: no backend can serve this call ({'; '.join(refusals)}); try backend='portable' or 'auto'"
    )


def _ask(module: str, call: object) -> tuple[bool, str]:
    return importlib.import_module(module).supports(call)


def _tell_once(operation: str, name: str, refusals: list[str]) -> None:
    for refusal in refusals:
        key = (operation, name, refusal)
        if key not in _told:
            _told.add(key)
            logger.warning("%s runs on backend %s because %s", operation, name, refusal)
