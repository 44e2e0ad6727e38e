"""What a finished scan prints: the top heads of each statistic, and where the files lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.cli.console import print_table, say

if TYPE_CHECKING:
    from interp.batch.result import ScanResult

HEADS = 3


def heads_in_words(result: ScanResult, statistic: str, k: int) -> list[str]:
    """The top heads of a statistic, as "layer.head value"."""
    return [f"{row.layer}.{row.head}  {row.value:.4g}" for row in result.top(statistic, k)]


def print_summary(result: ScanResult) -> None:
    """Print the top heads of every statistic to standard output, and to standard error where the report lies."""
    manifest = result.manifest
    tokens = manifest["tokens"]
    title = f"{manifest['model']['name']}: top heads (layer.head, mean) over {tokens['tokens']:,} tokens, {tokens['contexts']} contexts"
    columns = ("statistic", "unit", *(f"no. {i + 1}" for i in range(HEADS)))
    rows = []
    for name in result.statistics:
        values = result.frame.loc[result.frame["statistic"] == name, "value"]
        same = values.nunique() == 1
        top = [f"{values.iloc[0]:.4g} for every head"] if same else heads_in_words(result, name, HEADS)
        rows.append([name, manifest["statistics"][name]["unit"], *top, *[""] * (HEADS - len(top))])
    print_table(title, columns, rows)
    say(f"measured at {manifest['tokens_per_second']:,} tokens/s; table, manifest and report lie in {result.folder}")
    say(f"report: {result.report}")
