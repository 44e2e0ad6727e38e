"""Comparisons from results: what one result says about a change, and what differs between two measurements of one kind."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pandas as pd

from interp.errors import OptionError
from interp.interventions.effects import interval
from interp.results import Result
from interp.widgets.views.compare_source import Comparison, Effect
from interp.widgets.views.head_table import HeadColumn, HeadTable, head_table
from interp.widgets.views.protocol import finite, readable

AFTER: Final = ("edited", "calibrated", "ablated")
"""Columns that hold a metric under the change; `base` holds it without."""
LABELS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "calibration": ("metric", "against"),
        "circuits.activation_patching": ("site", "position", "layer"),
        "circuits.attribution_patching": ("site", "position", "layer"),
        "circuits.knockout_sweep": ("layer",),
        "circuits.overlap": ("k",),
        "circuits.path_patching": ("site", "position", "layer"),
        "explain.agreement": ("first", "second"),
        "explain.faithfulness": ("measure", "bin"),
        "explain.panel": ("check",),
        "explain.rollout": ("position", "token"),
        "heads.causal_retrieval": ("k", "kind", "metric"),
        "heads.confirm": ("label", "kind", "task", "metric"),
        "saes.ioi_features": ("feature",),
        "saes.ioi_position": ("version",),
        "saes.recursive_dfa": ("step", "part", "layer"),
    }
)
"""Kind of a result -> columns that name a row about no single head; `metric` for all others."""
BEFORE: Final = {name: f"{name} " for name in ("layer", "against", "position", "feature", "step")} | {"k": "k = "}
"""Words before a name that would say too little alone."""
RECIPE: Final = ("model", "dtype", "method", "source", "edits", "controls", "task", "settings", "seed", "versions")
"""What of a manifest says how the result was made."""
NO_EFFECTS: Final = ("verified", "selected", "setting", "p_family", "query", "source")
"""Columns of numbers of heads that are no effects."""
OVER_SAMPLES: Final = frozenset({"circuits.knockout_sweep", "saes.ioi_features", "saes.ioi_position"})
"""Kinds whose spread, in rows about no single head, is that of the score and not of the control."""


def comparison(result: Result) -> Comparison:
    """What one result says about a change: its rows about no single head as metrics, those about heads as a map.

    Args:
        result: of `interventions.*_effects`, `calibration.*`, `circuits.*`, `explain.*`, or any other with the columns of `Result`.

    Raises:
        OptionError: it has no rows.
    """
    if result.kind == "batch.compare":
        return _of_scans(result)
    table: Any = result.table
    of_heads = table[table["head"] >= 0]
    if result.kind == "calibration":
        of_heads = pd.DataFrame(result.manifest.get("heads", ()))
    of_heads = of_heads.drop(columns=[c for c in NO_EFFECTS if c in of_heads.columns])
    if "step" in of_heads.columns:  # a map of heads for each step
        of_heads = of_heads.assign(step=[f"step {step}" for step in of_heads["step"]])
    return Comparison(
        effects=tuple(_effect(result.kind, row) for row in table[table["head"] < 0].to_dict("records")),
        heads=head_table(of_heads) if len(of_heads) else None,
        control=_control_words(result),
        interval="95 % interval" if "low" in table.columns else "",
        recipe=recipe(result.manifest, kind=result.kind),
    )


def difference(before: object, after: object) -> Comparison:
    """What differs between two measurements of one kind: two runs, scans, tables of heads, or results.

    Args:
        before, after: things with a row per head (a `Run`, a scan, a `Result`, a table, a `HeadTable`), or two results about no single head.

    Returns:
        Changes are after less before. Of heads: every number that both have, and its mean over heads with a bootstrap interval over heads;
        the control's change where both have controls.

    Raises:
        OptionError: results of two kinds, or nothing that both have.
    """
    if isinstance(before, Result) and isinstance(after, Result):
        if before.kind != after.kind:
            raise OptionError(
                f"a {before.kind} result and a {after.kind} result measure different things; give two of one kind"
            )
        if not any(_has_heads(x) for x in (before, after)):
            return _metric_difference(before, after)
    one, other = head_numbers(before), head_numbers(after)
    shared = [name for name in one.columns if name in other.columns]
    if not shared or one.heads != other.heads or one.layers != other.layers:
        raise OptionError(
            f"these cannot be compared head by head: {_words(one)} and {_words(other)}, {len(shared)} numbers in common; "
            "give two measurements of the same layers and heads"
        )
    columns, sides, effects = {}, {}, []
    for name in shared:
        a, b = one.columns[name], other.columns[name]
        none = np.full_like(a.values, np.nan)
        columns[name] = HeadColumn(
            name=name,
            title=a.title,
            unit=a.unit,
            formula=a.formula,
            values=b.values - a.values,
            spread=none,
            control=b.control - a.control,
        )
        sides[name] = (a.values, b.values)
        effects.append(_mean_effect(a, b))
    said = {"before": _made(before), "after": _made(after)}
    return Comparison(
        effects=tuple(effects),
        heads=HeadTable(layers=one.layers, heads=one.heads, group=one.group, columns=columns),
        sides=sides,
        control="the control's own change",
        interval="95 % bootstrap over heads",
        recipe=_json(said),
    )


def _of_scans(result: Result) -> Comparison:
    """Two scans or results head by head: the mean of each side, the difference with its spread over redrawn means, and its interval."""
    table: Any = result.table
    keys = ["statistic", "layer", "head"]
    sides = [head_table(table[keys].assign(value=table[side])) for side in ("a", "b")]
    both = difference(*sides)
    spread, low, high = (
        head_table(table[keys].assign(value=table[column])).columns for column in ("spread", "low", "high")
    )
    columns = {} if both.heads is None else both.heads.columns
    changed = {name: replace(column, spread=spread[name].values) for name, column in columns.items()}
    names = [str(side["folder"]) for side in result.manifest["compared"]]
    settings = result.manifest["settings"]
    methods = settings.get("methods", {})
    several = len(set(methods.values())) > 1
    how = "; ".join(f"{name}: {method}" for name, method in methods.items()) if several else settings["method"]
    made = {"kind": result.kind, "differences": result.manifest.get("differences"), "statistics": list(changed)}
    return replace(
        both,
        heads=None if both.heads is None else replace(both.heads, columns=changed),
        ranges={name: (low[name].values, high[name].values) for name in changed},
        ends=(f"A: {names[0]}", f"B: {names[1]}"),
        control="",
        recipe=recipe(result.manifest, compared=result.manifest["compared"], **made),
        interval="95 % bootstrap over heads",
        note=f"Intervals of single heads ({100 * settings['confidence']:g} %): {how}.",
    )


def head_numbers(thing: object) -> HeadTable:
    """The numbers of heads of a run, a scan, a result or a table. Raises OptionError where there are none."""
    if isinstance(thing, HeadTable):
        return thing
    found = thing if isinstance(thing, pd.DataFrame) else getattr(thing, "frame", None)
    if not isinstance(found, pd.DataFrame):
        raise OptionError(f"a {type(thing).__name__} has no numbers of heads; give a run, a scan, a result or a table")
    frame: Any = found
    return head_table(frame[frame["head"] >= 0] if "head" in found.columns else frame)


def recipe(manifest: Mapping[str, Any], **said: Any) -> str:
    """How a result was made, from its manifest, as JSON to copy."""
    return _json({**said, **{name: manifest[name] for name in RECIPE if manifest.get(name) is not None}})


# ------------------------------------------------------------------ rows
def _effect(kind: str, row: Mapping[Any, Any]) -> Effect:
    score, control, before = (_number(row.get(c)) for c in ("score", "control", "base"))
    after = next((_number(row[c]) for c in AFTER if c in row), math.nan)
    if kind == "heads.deployment":  # its scores are the metric under each policy, not changes of it
        after, score, control = score, score - before, control - before
    # Some analyses count what is lost as positive: here a change is always after less before.
    sign = -1.0 if (after - before) * score < 0 else 1.0
    ends = sorted(sign * _number(row.get(c)) for c in ("low", "high"))
    sd, control_sd = _spreads(kind, row)
    return Effect(
        name=_name(kind, row),
        before=before,
        after=after,
        change=sign * score,
        low=ends[0],
        high=ends[1],
        sd=sd,
        control=sign * control,
        control_sd=control_sd,
    )


def _name(kind: str, row: Mapping[Any, Any]) -> str:
    columns = [c for c in LABELS.get(kind, ("metric",)) if c in row and not pd.isna(row[c])]
    return ", ".join(f"{BEFORE.get(c, '')}{row[c]}" for c in columns) or kind


def _spreads(kind: str, row: Mapping[Any, Any]) -> tuple[float, float]:
    """Standard deviations of the score over samples and of the control over draws: `spread` is one or the other, by kind."""
    spread = _number(row["spread"])
    if kind in OVER_SAMPLES:
        return spread, _number(row.get("control_spread"))
    if row.get("check") in ("disagreement", "sink mass"):
        return spread, math.nan
    return math.nan, spread


def _metric_difference(before: Result, after: Result) -> Comparison:
    first = {_name(before.kind, row): row for row in before.table.to_dict("records")}
    second = {_name(after.kind, row): row for row in after.table.to_dict("records")}
    effects = [
        Effect(
            name=name,
            before=_number(row["score"]),
            after=_number(second[name]["score"]),
            change=_number(second[name]["score"]) - _number(row["score"]),
            control=_number(second[name]["control"]) - _number(row["control"]),
        )
        for name, row in first.items()
        if name in second
    ]
    if not effects:
        raise OptionError(f"these {before.kind} results have no metric in common")
    said = {"before": _made(before), "after": _made(after)}
    return Comparison(effects=tuple(effects), control="the control's own change", recipe=_json(said))


def _mean_effect(a: HeadColumn, b: HeadColumn) -> Effect:
    """The mean over the heads that both sides define."""
    known = np.isfinite(a.values) & np.isfinite(b.values)
    change = (b.values - a.values)[known].astype(np.float64)
    low, high = interval(change, np.arange(len(change)), seed=0) if len(change) else (math.nan, math.nan)
    controls = (b.control - a.control)[known & np.isfinite(a.control) & np.isfinite(b.control)]
    return Effect(
        name=f"{a.title}, mean over heads",
        before=float(a.values[known].mean()) if known.any() else math.nan,
        after=float(b.values[known].mean()) if known.any() else math.nan,
        change=float(change.mean()) if known.any() else math.nan,
        low=low,
        high=high,
        control=float(controls.mean()) if controls.size else math.nan,
    )


# ------------------------------------------------------------------ words and JSON
def _control_words(result: Result) -> str:
    said = result.manifest.get("controls")
    if isinstance(said, str):
        return said
    if isinstance(said, Mapping):
        return ", ".join(map(str, said))
    control: Any = result.table["control"]
    return "" if control.isna().all() else "the same number on the result's own control"


def _has_heads(result: Result) -> bool:
    heads: Any = result.table["head"]
    return bool((heads >= 0).any())


def _words(table: HeadTable) -> str:
    return f"{len(table.layers)} layers x {table.heads} heads"


def _made(thing: object) -> dict[str, Any]:
    manifest = getattr(thing, "manifest", None)
    if not isinstance(manifest, Mapping):
        return {"table": type(thing).__name__}
    kind = getattr(thing, "kind", type(thing).__name__.lower())
    return {"kind": kind, **{name: manifest[name] for name in RECIPE if manifest.get(name) is not None}}


def _json(values: Mapping[str, Any]) -> str:
    return readable(json.dumps(_plain(values), indent=1, ensure_ascii=False))


def _plain(x: Any) -> Any:
    """A value as JSON holds it: undefined numbers are null, what is no value of JSON is its text."""
    if isinstance(x, Mapping):
        return {str(key): _plain(y) for key, y in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(y) for y in x]
    if isinstance(x, np.generic):
        return _plain(x.item())
    if isinstance(x, float):
        return finite(x)
    return x if x is None or isinstance(x, bool | int | str) else str(x)


def _number(x: object) -> float:
    return float(x) if isinstance(x, int | float | np.number) else math.nan
