"""`save_calibration`: the calibrated heads of a result as a small JSON file, which `interp.load(MODEL, calibration=FILE)` applies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.errors import OptionError
from interp.ledger import write_whole
from interp.models.calibration import VERSION, identity
from interp.models.hooked import HookedModel
from interp.results import Result


def save_calibration(result: Result, path: str | Path, *, model: HookedModel) -> Path:
    """Write the interventions that a calibration kept, with the model they are for and what they gain. Returns the path.

    Args:
        result: of `calibrate`.
        path: the file, replaced if it is there.
        model: the model that was calibrated; the file gets its identity.

    Raises:
        OptionError: the result is of another analysis or model, or no head was kept: there is nothing to apply.
        OutputError: it cannot be written.
    """
    manifest = result.manifest
    if result.kind != "calibration" or manifest["model"] != model.manifest()["model"]:
        raise OptionError(
            f"wanted the result of calibrate on {model.source.name}, got a {result.kind} result on {manifest.get('model', {}).get('name')}"
        )
    if manifest["edits"] is None:
        raise OptionError(
            "no head was kept, so there is nothing to apply; see the held-out table, or loosen selection="
        )
    columns = ["metric", "against", "base", "calibrated", "score", "low", "high", "control", "spread"]
    table: Any = result.table[columns]
    record = {
        "calibration": VERSION,
        "model": identity(model),
        "method": manifest["settings"]["calibration"],
        "task": manifest["task"],
        "numbers": table.astype(object).where(table.notna(), None).to_dict("records"),
        "edits": manifest["edits"],
    }
    write_whole(Path(path), record)
    return Path(path)
