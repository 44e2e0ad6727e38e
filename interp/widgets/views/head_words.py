"""What numbers of heads are called: titles, units and formulas of statistics and of the scores of a report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from interp.results import Result
from interp.stats.catalogue import STATISTICS, find
from interp.widgets.atlas import WORDS
from interp.widgets.views.head_table import HeadTable, head_table

OF_A_REPORT = ("labels", "", "number of labels that the rules give the head")


def words_of(name: str) -> tuple[str, str, str]:
    """Title, unit and formula of a statistic or score; the name itself, and two empty words, where nobody declared it.

    >>> words_of("induction")[:2]
    ('induction', 'probability')
    """
    if name in STATISTICS:
        declared = find([name])[0]
        return declared.title, declared.unit, declared.formula
    return WORDS.get(name, (name.replace("_", " "), "", ""))


def scores_table(result: Result) -> HeadTable:
    """The numbers of an analysis of heads, under the names that the report gives them; query heads that share a key are grouped where it says so.

    Raises:
        OptionError: the result has no row per head.
    """
    table: Any = result.table
    kv_heads = int(table["kv_head"].max()) + 1 if "kv_head" in table.columns else None
    read = head_table(table.drop(columns="kv_head", errors="ignore"), kv_heads=kv_heads)
    method = result.kind.rpartition(".")[2]
    columns = {}
    for name, column in read.columns.items():
        title, unit, formula = (
            OF_A_REPORT if (method, name) == ("report", "score") else words_of(method if name == "score" else name)
        )
        columns[name] = replace(column, title=title, unit=unit, formula=formula)
    return replace(read, columns=columns)
