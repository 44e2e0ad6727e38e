"""The catalogue of statistics: the registry by name, in the order of tables and charts, and what runs take by default."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from interp.errors import OptionError
from interp.stats import outputs, placement, sinks, spread
from interp.stats.declaration import Statistic, span_mass

STATISTICS: dict[str, Statistic] = {
    s.name: s for s in (*spread.STATISTICS, *placement.STATISTICS, *sinks.STATISTICS, *outputs.STATISTICS)
}


def declare(statistic: Statistic) -> Statistic:
    """Enter a statistic of your own into the catalogue, for this process. Raises OptionError if the name is taken."""
    if statistic.name in STATISTICS:
        raise OptionError(f"statistic {statistic.name!r} is declared already; choose another name")
    STATISTICS[statistic.name] = statistic
    return statistic


def find(names: Iterable[str]) -> tuple[Statistic, ...]:
    """The statistics of the given names, in the given order, once each; `span:NAME` stands for the mass on a user-given span.

    Raises:
        OptionError: unknown names, with all known ones listed.
    """
    wanted = list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in STATISTICS and not name.startswith("span:")]
    if unknown:
        known = ", ".join(STATISTICS)
        raise OptionError(
            f"unknown statistic {', '.join(map(repr, unknown))}; known are: {known}, and span:NAME for spans you give"
        )
    return tuple(STATISTICS[name] if name in STATISTICS else span_mass(name) for name in wanted)


def names() -> tuple[str, ...]:
    """Every statistic in the catalogue."""
    return tuple(STATISTICS)


def forward_names() -> tuple[str, ...]:
    """The statistics that need no second sweep: what `model.run` measures by default."""
    return tuple(name for name, s in STATISTICS.items() if not s.needs.received)


def describe() -> pd.DataFrame:
    """One row per statistic: name, axis, unit, formula, where undefined, cost, merge rule, citation."""
    columns = ("name", "axis", "unit", "formula", "undefined", "cost", "merge", "citation")
    return pd.DataFrame([{c: getattr(s, c) for c in columns} for s in STATISTICS.values()])
