"""`interp stats`: the catalogue of statistics."""

from __future__ import annotations

from typing import Annotated

import typer

from interp.cli.console import print_json, print_table


def stats(
    as_json: Annotated[bool, typer.Option("--json", help="Print one statistic per line as JSON.")] = False,
) -> None:
    """List the statistics of attention heads: name, formula, unit, where undefined, source."""
    from interp.stats.catalogue import describe

    frame = describe()
    if as_json:
        for record in frame.to_dict("records"):
            print_json({str(name): value for name, value in record.items()})
        return
    columns = ("name", "axis", "unit", "formula", "undefined", "citation")
    print_table("Statistics", columns, frame[list(columns)].itertuples(index=False))
