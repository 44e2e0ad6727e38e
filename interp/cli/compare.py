"""`interp compare`: two scans head by head; needs no model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.console import print_json, print_table, say
from interp.cli.options import word_list
from interp.errors import OptionError


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="Folder of the scan that is compared with.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Folder of the other scan.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the result.")] = None,
    statistics: Annotated[
        str | None, typer.Option("--statistics", "-s", help="Statistics, with commas; all that both have if left out.")
    ] = None,
    confidence: Annotated[float, typer.Option("--confidence", help="Of the intervals.")] = 0.95,
    draws: Annotated[int, typer.Option("--draws", help="Redrawn pairs of means, for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws.")] = 0,
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="How many heads to print for each statistic.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print every row as a JSON line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No tables.")] = False,
) -> None:
    """Compare two scans (models, checkpoints or settings): the heads that differ most, their change of rank, and intervals for both."""
    from interp.batch.compare import compare as run_compare

    result = run_compare(a, b, statistics=word_list(statistics), confidence=confidence, draws=draws, seed=seed)
    if out is not None:
        if out.resolve() in (a.resolve(), b.resolve()):
            raise OptionError(f"--out {out} is the folder of a scan; choose another folder")
        result.save(out)
    if as_json:
        for row in result.table.to_dict("records"):
            print_json({str(name): None if value != value else value for name, value in row.items()})
        return
    if quiet:
        return
    facts = result.manifest
    for name, rows in result.table.groupby("statistic", sort=False):
        _print(str(name), rows, top)
    changed = ", ".join(facts["differences"]) or "nothing"
    say(f"the plans differ in: {changed}")
    table: Any = result.table
    apart = int(((table["low"] > 0) | (table["high"] < 0)).sum())
    rows, chance = len(table), (1 - confidence) * len(table)
    say(
        f"intervals: {facts['settings']['method']} ({facts['shards'][0]} and {facts['shards'][1]} shards), {confidence:.0%} each; "
        f"{apart} of {rows} exclude 0, where about {chance:.0f} would by chance alone"
    )
    if out is not None:
        say(f"table, difference maps and manifest lie in {out}")


def _print(statistic: str, rows: Any, top: int) -> None:
    order = rows["score"].abs().sort_values(ascending=False, kind="stable").index[:top]
    shown = []
    for row in rows.loc[order].to_dict("records"):
        if row["score"] != row["score"]:
            continue
        shown.append(
            [
                f"{row['layer']}.{row['head']}",
                f"{row['a']:.4g}",
                f"{row['b']:.4g}",
                f"{row['score']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}]",
                f"{row['rank_a']:g} -> {row['rank_b']:g}",
                f"[{row['rank_low']:+g}, {row['rank_high']:+g}]",
            ]
        )
    columns = ("head", "A", "B", "B - A", "rank", "change of rank")
    print_table(f"{statistic}: heads that differ most", columns, shown, numbers=columns[1:])
