"""A training of gates on its way, and its checkpoint: one safetensors file that is whole or absent, with the plan in its header."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from interp.errors import CorruptFileError, OutputError, PlanMismatchError


@dataclass(frozen=True, kw_only=True, eq=False)
class GateState:
    """A training behind `step` steps; the tensors and lists change in place.

    Attributes:
        gates: [layer, key-value head] float32, a leaf with gradient.
        moments: AdamW's first and second moments, shaped as the gates.
        path: gates behind every finished step.
        loss: distillation loss of every finished step, before its update.
    """

    gates: Tensor
    moments: tuple[Tensor, Tensor]
    path: list[Tensor]
    loss: list[float]

    @property
    def step(self) -> int:
        """Finished steps."""
        return len(self.path)


def begin(shape: tuple[int, int], device: torch.device) -> GateState:
    """All gates 1, no step done."""
    gates = torch.ones(shape, device=device, requires_grad=True)
    return GateState(gates=gates, moments=(torch.zeros_like(gates), torch.zeros_like(gates)), path=[], loss=[])


def write_state(path: Path, plan: Mapping[str, Any], state: GateState) -> None:
    """Write the checkpoint, whole or not at all.

    Args:
        path: of the file; its folder is made.
        plan: what the gates depend on, plain JSON values.
        state: with one finished step at least.

    Raises:
        OutputError: it cannot be written; what was there before is unchanged.
    """
    tensors = {
        "gates": state.gates.detach(),
        "first_moment": state.moments[0],
        "second_moment": state.moments[1],
        "path": torch.stack(state.path),
        "loss": torch.tensor(state.loss, dtype=torch.float64),
    }
    data = safetensors.torch.save({k: v.cpu().contiguous() for k, v in tensors.items()}, {"plan": json.dumps(plan)})
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path.name}: {error.strerror or error}; choose another folder") from error


def read_state(path: Path, plan: Mapping[str, Any], shape: tuple[int, int], device: torch.device) -> GateState:
    """Read the checkpoint of a plan.

    Raises:
        CorruptFileError: it is damaged or of another shape.
        PlanMismatchError: it belongs to another plan; the message names what differs.
    """
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            there = json.loads((file.metadata() or {})["plan"])
            gates, first, second, steps, loss = (
                file.get_tensor(name) for name in ("gates", "first_moment", "second_moment", "path", "loss")
            )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CorruptFileError(f"{path.name} is no checkpoint of gates ({error}); delete it and start again") from error
    differs = sorted(name for name in {*plan, *there} if plan.get(name) != there.get(name))
    if differs:
        said = "; ".join(f"{name} is {there.get(name)} there and {plan.get(name)} here" for name in differs)
        raise PlanMismatchError(f"{path.parent.name} holds another training ({said}); choose another folder")
    if not tuple(gates.shape) == tuple(first.shape) == tuple(second.shape) == shape or len(steps) != len(loss):
        raise CorruptFileError(f"{path.name}: wanted gates of shape {shape}, got {tuple(gates.shape)}; delete it")
    return GateState(gates=gates.requires_grad_(True), moments=(first, second), path=list(steps), loss=loss.tolist())
