"""`interp entropy train CONFIG --out DIR`: small trainings that show entropy collapse and its prevention."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.console import print_json, print_table, say
from interp.cli.counting import counting_parts

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "learning_rate", "remedy", "attention", "weight_decay", "condition", "seed", "held_out_loss", "held_out_accuracy",
    "lowest_entropy", "first_alarm", "first_collapse", "departs", "behind", "lead_departs",
    "lead_behind",
)  # fmt: skip
SWEPT = COLUMNS[:6]
WORDS = ("remedy", "attention", "condition")


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file, as in data/tasks/entropy/.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of this experiment; finished runs in it are not repeated.")
    ],
    threads: Annotated[int | None, typer.Option("--threads", help="Threads of torch.")] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="Only the first so many seeds.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcomes as JSON lines.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
) -> None:
    """Train every variant of an experiment, watched by the monitor, and print what came of each; stopped, the same command goes on."""
    import logging
    from dataclasses import replace

    import torch

    from interp.batch.files import make_folder
    from interp.batch.lock import locked
    from interp.display import plot
    from interp.entropy.experiments.config import Experiment
    from interp.entropy.experiments.sweep import run_experiment

    experiment = Experiment.read(config)
    # Alarms are what these trainings are for: the table tells them, and lines between the bars would not help.
    logging.getLogger("interp.entropy.monitor").setLevel(logging.ERROR)
    if seeds is not None:
        experiment = replace(experiment, seeds=experiment.seeds[:seeds])
    if threads is not None:
        torch.set_num_threads(threads)
    make_folder(out)
    with locked(out), counting_parts(quiet=quiet) as progress:
        table = run_experiment(experiment, out, progress=progress)
    if "softmax" in experiment.attentions:  # the others have no entropy
        plot("entropy.training", out).write_html(out / "curves.html", include_plotlyjs=True)
    if experiment.sinks_every:
        plot("entropy.training_sinks", out).write_html(out / "sinks.html", include_plotlyjs=True)
    if as_json:
        for row in table.astype(object).where(table.notna(), None).to_dict("records"):
            print_json({str(name): value for name, value in row.items()})
    elif not quiet:
        _print(experiment.name, table)
        say(f"tables, curves and figures lie in {out}")


def _print(name: str, table: pd.DataFrame) -> None:
    """The outcomes, one row per run; of what was swept, the columns in which runs differ."""
    columns = [name for name in COLUMNS if name not in SWEPT or len(set(table[name])) > 1]
    chosen = table[columns]
    values: list[list[object]] = chosen.astype(object).where(chosen.notna(), None).to_numpy().tolist()
    rows = [["–" if v is None else f"{v:.4g}" if isinstance(v, float) else v for v in row] for row in values]
    print_table(f"{name}: outcomes", columns, rows, numbers=[c for c in columns if c not in WORDS])
