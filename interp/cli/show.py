"""`interp show`: the table of a finished scan or of a saved result in the terminal; needs no model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interp.cli.analysis import print_records, print_rows, print_top
from interp.cli.console import print_json, print_table
from interp.cli.summary import print_summary

STRONGEST = 3
"""Cells listed for each pictured map."""


def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a finished scan, or of a result.")],
    statistic: Annotated[
        str | None,
        typer.Option("--statistic", "-s", help="Rank the heads by this statistic (or column of a result) alone."),
    ] = None,
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="How many heads.")] = 10,
    maps: Annotated[
        bool, typer.Option("--maps", help="List the strongest cells of the pictured maps, with their tokens.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print rows as JSON lines.")] = False,
) -> None:
    """Show the top heads of a scan, for each statistic or for one in detail; of a saved result, by a column of its table."""
    from interp.results import Result, saved_kind

    if saved_kind(folder) is not None:
        saved = Result.load(folder)
        if (
            not saved.table["layer"].ge(0).to_numpy().all()
            or saved.table.duplicated(["layer", "head"]).to_numpy().any()
        ):
            print_records(saved, saved.table, as_json=as_json)  # rows of something other than heads: all of them
        elif as_json:
            print_rows(saved, top, by=statistic or "score")
        else:
            print_top(saved, top, by=statistic or "score")
        return
    from interp.batch.result import open_scan

    result = open_scan(folder)
    if maps:
        _print_maps(folder)
        return
    if as_json:
        for name in (statistic,) if statistic else result.statistics:
            for head in result.top(name, top):
                print_json({"statistic": name, **head._asdict()})
        return
    if statistic is None:
        print_summary(result)
        return
    heads = result.top(statistic, top)
    frame = result.frame[result.frame["statistic"] == statistic].set_index(["layer", "head"])
    facts = result.manifest["statistics"][statistic]
    numbers = ("value", "std", "q05", "q50", "q95", "min", "max")
    rows = []
    for head in heads:
        found = frame.loc[(head.layer, head.head)]
        rows.append([head.layer, head.head, *(f"{found[n]:.4g}" for n in numbers), f"{found['count']:,}"])
    columns = ("layer", "head", *numbers, "count")
    print_table(f"{facts['title']} ({facts['unit']}): {facts['formula']}", columns, rows, numbers=columns)


def _print_maps(folder: Path) -> None:
    """The strongest cells of the exact crops, with the tokens at both ends."""
    import numpy as np

    from interp.batch.result import PARTS
    from interp.maps.thumbnail import load_thumbnails

    rows = []
    for picture in load_thumbnails(folder / PARTS / "maps"):
        if picture.pool != "exact":
            continue
        order = np.argsort(picture.weights, axis=None, kind="stable")[::-1][:STRONGEST]
        for i, j in zip(*np.unravel_index(order, picture.weights.shape), strict=True):
            query, key = picture.row_tokens[int(i)], picture.col_tokens[int(j)]
            place = f"{picture.rows[0] + int(i)} -> {picture.cols[0] + int(j)}"
            rows.append(
                [
                    f"{picture.layer}.{picture.head}",
                    picture.statistic,
                    place,
                    query,
                    key,
                    f"{picture.weights[i, j]:.3f}",
                ]
            )
    columns = ("head", "chosen by", "query -> key", "query token", "key token", "weight")
    print_table("Strongest cells of the pictured maps", columns, rows, numbers=("weight",))
