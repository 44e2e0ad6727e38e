"""The part of an experiment's folder that is worth keeping: its tables, and of its first seed the losses and entropies that figures are drawn of.

The layout is that of `interp.entropy.experiments.sweep`, so what is drawn of the whole is drawn of the kept part. The command makes the rest again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from interp.entropy.experiments.sweep import finished, losses_of, read_experiment, readings_of
from interp.errors import CorruptFileError, OutputError

TABLES: Final = ("outcomes.csv", "sinks.csv")
DRAWN: Final = ("step", "layer", "head", "entropy")


def keep(folder: str | Path, target: str | Path, *, facts: Mapping[str, Any]) -> Path:
    """Copy what is worth keeping; float32, the entropies alone of what the monitor read.

    Args:
        folder: of an experiment whose runs are all finished.
        target: a new folder.
        facts: join the manifest under "kept": how the folder was made.

    Returns:
        The target.

    Raises:
        CorruptFileError: no experiment, or one that is not finished.
        OutputError: the target is there, or cannot be written.
    """
    folder, target = Path(folder), Path(target)
    experiment = read_experiment(folder)
    done, wanted = finished(experiment, folder), list(experiment.variants())
    if len(done) < len(wanted) or not (folder / TABLES[0]).exists():
        raise CorruptFileError(
            f"{folder.name} holds {len(done)} of {len(wanted)} runs of {experiment.name}; run the experiment to its end first"
        )
    try:
        (target / "runs").mkdir(parents=True)
        for name in TABLES:
            if (folder / name).exists():
                shutil.copyfile(folder / name, target / name)
        for run in (run for run in done if run.seed == experiment.seeds[0]):
            base = target / "runs" / run.name
            shutil.copyfile(folder / "runs" / f"{run.name}.json", f"{base}.json")
            losses = pd.DataFrame({"loss": losses_of(folder, run).astype(np.float32)})
            losses.to_parquet(f"{base}.losses.parquet", index=False)
            readings = readings_of(folder, run)
            small = (
                readings[list(DRAWN)].astype({"step": "int32", "layer": "int16", "head": "int16"})
                if len(readings)
                else readings
            )
            small.to_parquet(f"{base}.parquet", index=False)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        manifest["kept"] = {**facts, "runs_left_out": [run.name for run in done if run.seed != experiment.seeds[0]]}
        (target / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write to {target.name}: {error.strerror or error}; choose a new folder") from error
    return target
