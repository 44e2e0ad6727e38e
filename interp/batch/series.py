"""Several models or checkpoints over the same texts: one folder with a scan each, laid out so that tables read as one data set.

    OUT/models.json                      which models, in the order given (that of the steps, for checkpoints)
    OUT/model=LABEL/stats.parquet        a scan's folder as `scan` writes it, and its shards under parts/
    OUT/report.html                      heads over the models (`interp report OUT`)

`model=LABEL` is how Parquet readers name a partition: pandas and DuckDB take the label for a column. One model is in memory at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from interp.batch.endings import IncompleteJobError, JobFailedError
from interp.batch.files import make_folder, read_json, write_json
from interp.batch.result import MANIFEST, MODELS_FILE, ScanResult, model_folder, model_labels, open_scan
from interp.batch.task import ModelChoice
from interp.batch.worker import load_choice
from interp.display import plot as draw
from interp.display import view as open_view
from interp.errors import InterpError, OptionError, OutputError
from interp.models.hooked import HookedModel


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelsResult:
    """Scans of several models.

    Attributes:
        folder: of all of them.
        scans: label -> scan, in the order of the models.
    """

    folder: Path
    scans: Mapping[str, ScanResult]

    @property
    def frame(self) -> pd.DataFrame:
        """The scans' tables below each other, with the columns model (its label) and order (its place, from 0) in front."""
        parts = [scan.frame.assign(model=label, order=place) for place, (label, scan) in enumerate(self.scans.items())]
        table: Any = pd.concat(parts, ignore_index=True)
        return table[["model", "order", *table.columns.drop(["model", "order"])]]

    def plot(self, **options: object) -> Any:
        """Draw heads over the models as a plotly figure (`statistic=` chooses what is shown first)."""
        return draw("batch.models", self, **options)

    def view(self, **options: object) -> Any:
        """Open heads over the models in a notebook widget."""
        return open_view("batch.models", self, **options)


def parse_model(text: str) -> tuple[str, str | None]:
    """Name and revision of "NAME@REVISION"; a path that exists is a name as it is.

    >>> parse_model("EleutherAI/pythia-70m@step1000")
    ('EleutherAI/pythia-70m', 'step1000')
    """
    name, at, revision = text.rpartition("@")
    return (name, revision) if at and name and revision and not Path(text).exists() else (text, None)


def labels(choices: Sequence[ModelChoice]) -> list[str]:
    """A short label for each model, good as a folder's name: the last part of its name, and its revision.

    Raises:
        OptionError: two models get the same one.
    """
    found = [
        re.sub(r"[^A-Za-z0-9._@-]", "-", Path(choice.name).name + (f"@{choice.revision}" if choice.revision else ""))
        for choice in choices
    ]
    twice = next((label for label in found if found.count(label) > 1), None)
    if twice is not None:
        raise OptionError(f"two models would both be called {twice!r}; name each model and revision once")
    return found


def scan_models(
    choices: Sequence[ModelChoice],
    out: str | Path,
    run: Callable[[ModelChoice, HookedModel, Path], ScanResult],
    *,
    tell: Callable[[str, InterpError], None] | None = None,
) -> ModelsResult:
    """Scan several models one after the other, each in its own folder. Called again, it goes on where it stopped.

    A model that cannot be loaded or scanned, or only in part, does not keep the others from being scanned.

    Args:
        choices: the models, in the order in which they are to be shown.
        out: folder of all scans.
        run: scans a loaded model into a folder, as in ``lambda choice, model, folder: scan(model, texts, out=folder)``.
        tell: called with a model's label and its error, when it happens.

    Raises:
        OptionError: no model, or one twice.
        OutputError: the folder holds scans of other models.
        IncompleteJobError: shards of some models are missing; all models were scanned.
        JobFailedError: some models could not be scanned at all; the others were. An error of another kind if all of those had that kind.
    """
    out = Path(out)
    names = labels(choices)
    if not names:
        raise OptionError("there is no model to scan; name at least one")
    _claim(out, choices, names)
    scans: dict[str, ScanResult] = {}
    # Words and not errors: an error's traceback would keep the model in memory.
    missing: list[str] = []
    failed: list[tuple[type[InterpError], str]] = []
    for choice, label in zip(choices, names, strict=True):
        try:
            scans[label] = _scan_one(choice, model_folder(out, label), run)
        except InterpError as error:
            if tell is not None:
                tell(label, error)
            if isinstance(error, IncompleteJobError):
                scans[label] = error.result
                missing.append(f"{label}: {error}")
            else:
                failed.append((type(error), f"{label}: {error}"))
    result = ModelsResult(folder=out, scans=scans)
    if failed:
        kinds = {kind for kind, _ in failed}
        raise (kinds.pop() if len(kinds) == 1 else JobFailedError)("; ".join([x for _, x in failed] + missing))
    if missing:
        raise IncompleteJobError("; ".join(missing), result)
    return result


def _scan_one(
    choice: ModelChoice, folder: Path, run: Callable[[ModelChoice, HookedModel, Path], ScanResult]
) -> ScanResult:
    model = load_choice(choice)
    try:
        return run(choice, model, folder)
    finally:
        model.release()


def open_models(folder: str | Path) -> ModelsResult:
    """Open the folder of scans of several models; those that are not finished are left out.

    Raises:
        OutputError: there is none, or none of its scans is finished.
        CorruptFileError: a file is damaged.
    """
    folder = Path(folder)
    if not (folder / MODELS_FILE).exists():
        raise OutputError(f"{folder} holds no scans of several models ({MODELS_FILE} is missing)")
    done = [name for name in model_labels(folder) if (model_folder(folder, name) / MANIFEST).exists()]
    if not done:
        raise OutputError(f"none of the scans in {folder} is finished; run the same command again")
    return ModelsResult(folder=folder, scans={name: open_scan(model_folder(folder, name)) for name in done})


def _claim(out: Path, choices: Sequence[ModelChoice], names: Sequence[str]) -> None:
    """Write down the models, in order; a folder may be given more models later."""
    make_folder(out)
    path = out / MODELS_FILE
    models = [
        {
            "label": label,
            "name": Path(choice.name).name if Path(choice.name).exists() else choice.name,
            "revision": choice.revision,
        }
        for choice, label in zip(choices, names, strict=True)
    ]
    if path.exists():
        there = [model.get("label") for model in read_json(path).get("models", [])]
        lost = [label for label in there if label not in names]
        if lost:
            raise OutputError(
                f"{out} holds scans of other models, too ({', '.join(map(str, lost))}); name them as well, or choose another folder"
            )
    elif (out / "manifest.json").exists():
        raise OutputError(f"{out} holds something else already; choose another folder for several models")
    write_json(path, {"kind": "scans", "models": models})
