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
    "learning_rate", "remedy", "attention", "weight_decay", "seed", "held_out_loss", "held_out_accuracy", "lowest_entropy",
    "first_alarm", "departs", "behind", "lead",
)  # fmt: skip
WORDS = ("remedy", "attention")


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
    with counting_parts(quiet=quiet) as progress:
        table = run_experiment(experiment, out, progress=progress)
    if "softmax" in experiment.attentions:  # the others have no entropy
        plot("entropy.training", out).write_html(out / "curves.html", include_plotlyjs=True)
    if as_json:
        for row in table.astype(object).where(table.notna(), None).to_dict("records"):
            print_json({str(name): value for name, value in row.items()})
    elif not quiet:
        _print(experiment.name, table)
        say(f"readings, losses, outcomes and curves.html lie in {out}")


def _print(name: str, table: pd.DataFrame) -> None:
    """The outcomes, one row per run."""
    rows = [["–" if v is None else f"{v:.4g}" if isinstance(v, float) else v for v in row] for row in _cells(table)]
    print_table(f"{name}: outcomes", COLUMNS, rows, numbers=[c for c in COLUMNS if c not in WORDS])


def _cells(table: pd.DataFrame) -> list[list[object]]:
    chosen = table[list(COLUMNS)]
    return chosen.astype(object).where(chosen.notna(), None).to_numpy().tolist()
