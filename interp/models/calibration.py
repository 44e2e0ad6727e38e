"""A calibration file and its model: `interp.load(NAME, calibration=FILE)` puts saved interventions in force for the model's life.

The file is JSON: {"calibration": 1, "model": identity, "method", "task", "numbers", "edits"}, edits in the form of
`interp.interventions.to_json`; `interp.calibration.save_calibration` writes it. It fits one model: the identity is the hash of what the weights
were read from where that is known, else the hub's commit, else (toys, models that the caller built) a hash of the weights as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from interp.capture.edits import Intervention
from interp.errors import CorruptFileError, EditError, InputDataError
from interp.models.hooked import HookedModel

VERSION = 1
"""Of the file's form."""


def identity(model: HookedModel) -> dict[str, str]:
    """What tells this model's weights from others: name and class for people, and one of sha256, revision or weights to compare."""
    source = model.source
    said = {"name": source.name, "class": type(model.hf).__name__}
    if source.sha256 is not None:
        return said | {"sha256": source.sha256}
    if source.revision is not None:
        return said | {"revision": source.revision}
    return said | {"weights": weights_digest(model)}


def weights_digest(model: HookedModel) -> str:
    """sha256 of the weights as they are, in hexadecimal: of names, shapes and values in float32, by name."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.hf.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)}\0".encode())
        digest.update(weight.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def apply_calibration(model: HookedModel, path: str | os.PathLike[str]) -> None:
    """Put a file's interventions in force for everything that the model does, until `model.release()`.

    They act before those of any `model.edit`, and stand in every manifest: under "model", because it is another model, and by name in a run's
    settings.

    Raises:
        InputDataError: there is no such file.
        CorruptFileError: it is no calibration.
        EditError: it was made for another model, or the model has a calibration already.
    """
    file = Path(path).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputDataError(f"cannot read the calibration {file.name}: {error}; check the path") from error
    record = _record(text, file.name)
    made_for, here = record["model"], identity(model)
    key = next((k for k in ("sha256", "revision", "weights") if k in made_for), None)
    if key is None:
        raise CorruptFileError(f"the calibration {file.name} does not say which model it was made for; make it again")
    if made_for[key] != (here.get(key) or (weights_digest(model) if key == "weights" else None)):
        raise EditError(
            f"the calibration {file.name} was made for {made_for.get('name')} ({key} {str(made_for[key])[:12]}), and this model is {here['name']} "
            f"({', '.join(f'{k} {v[:12]}' for k, v in here.items() if k not in ('name', 'class'))}): heads of one model mean nothing in another; "
            "load the model that it was made for, or calibrate this one"
        )
    said = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "method": record["method"], "task": record["task"]}
    model.stand(_edits(record["edits"]), {"calibration": said})


def _record(text: str, name: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
        if record["calibration"] != VERSION:
            raise CorruptFileError(
                f"the calibration {name} has form {record['calibration']!r}, and {VERSION} is known; save it again with this version"
            )
        if not isinstance(record["model"], Mapping) or not {"edits", "method", "task"} <= record.keys():
            raise KeyError("model, edits, method or task")
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(
            f"{name} is no calibration ({type(error).__name__}: {error}); write one with `interp calibrate`"
        ) from error
    return record


def _edits(saved: Mapping[str, Any]) -> Sequence[Intervention]:
    """The interventions, rebuilt by the registry of their package: the one door from here to there, opened by calibrations alone."""
    return import_module("interp.interventions.saved").from_json(json.dumps(saved))
