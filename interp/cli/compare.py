"""`interp compare`: two scans, or two results of one analysis, head by head; needs no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.console import print_json, print_table, say
from interp.cli.options import word_list
from interp.errors import OptionError


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="Folder of the scan or result that is compared with.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Folder of the other one.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the result.")] = None,
    statistics: Annotated[
        str | None,
        typer.Option(
            "--statistics", "-s", help="Statistics (analyses of a report of heads), with commas; all if left out."
        ),
    ] = None,
    confidence: Annotated[float, typer.Option("--confidence", help="Of the intervals.")] = 0.95,
    draws: Annotated[int, typer.Option("--draws", help="Redrawn pairs of means, for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws.")] = 0,
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="How many heads to print for each statistic.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print every row as a JSON line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No tables.")] = False,
) -> None:
    """Compare two scans, or two results of one analysis of heads (models, checkpoints or settings): the heads that differ most, their change of
    rank, and intervals for both where there are repeats."""
    from interp.batch.compare import compare as compare_scans
    from interp.batch.compare_results import compare_results, holds_result

    of_results = [holds_result(folder) for folder in (a, b)]
    if any(of_results) and not all(of_results):
        raise OptionError(f"{(a, b)[of_results.index(False)]} holds no result of an analysis, as the other does")
    run = compare_results if all(of_results) else compare_scans
    result = run(a, b, statistics=word_list(statistics), confidence=confidence, draws=draws, seed=seed)
    if out is not None:
        if out.resolve() in (a.resolve(), b.resolve()):
            raise OptionError(f"--out {out} is one of the two; choose another folder")
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
    methods = facts["settings"].get("methods") or dict.fromkeys(
        table["statistic"].unique(), facts["settings"]["method"]
    )
    for method in dict.fromkeys(methods.values()):
        names = [name for name in methods if methods[name] == method]
        rows = table[table["statistic"].isin(names) & table["low"].notna()]
        which = f"{', '.join(names)}: " if len(set(methods.values())) > 1 else ""
        if rows.empty:
            say(f"{which}{method}")
            continue
        apart, chance = int(((rows["low"] > 0) | (rows["high"] < 0)).sum()), (1 - confidence) * len(rows)
        say(
            f"{which}intervals: {method}{_repeats(facts, names)}, {confidence:.0%} each; "
            f"{apart} of {len(rows)} exclude 0, where about {chance:.0f} would by chance alone"
        )
    if out is not None:
        say(f"table, difference maps and manifest lie in {out}")


def _repeats(facts: Mapping[str, Any], names: Sequence[str]) -> str:
    """How many repeats the intervals are from, if that is the same for all of them."""
    if "shards" in facts:
        return f" ({facts['shards'][0]} and {facts['shards'][1]} shards)"
    counts = {tuple(facts["samples"][name]) for name in names}
    return f" ({' and '.join(map(str, counts.pop()))} samples)" if len(counts) == 1 else ""


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
                f"{row['score']:+.3g}{_interval(row['low'], row['high'], '+.3g')}",
                f"{row['rank_a']:g} -> {row['rank_b']:g}",
                f"{row['rank_change']:+g}{_interval(row['rank_low'], row['rank_high'], '+g')}",
            ]
        )
    columns = ("head", "A", "B", "B - A", "rank", "change of rank")
    print_table(f"{statistic}: heads that differ most", columns, shown, numbers=columns[1:])


def _interval(low: float, high: float, form: str) -> str:
    return "" if low != low else f" [{low:{form}}, {high:{form}}]"
