"""`FeatureTable`: features of an autoencoder: an index of all, and everything about one when it is asked for. What SAEFeature shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd

from interp.errors import OptionError
from interp.results import Result
from interp.saes.dashboard import FeatureSource, feature_index, feature_record
from interp.widgets.views.protocol import Reply, answer, finite, readable

FEATURES: Final = 200
"""Features of the index, unless they are named."""
KEPT: Final = 64
"""Records that are kept for a second look."""
COLUMNS: Final = (
    "feature",
    "layer",
    "head",
    "head_share",
    "density",
    "firings",
    "max",
    "sink_share",
    "family",
    "tokens",
)
"""What an index may have, in the order of its table."""

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureTable:
    """Features.

    Attributes:
        index: a row per feature: feature, and of `COLUMNS` what is known.
        record: everything about one feature, in the form of `interp.saes.dashboard.feature_record`; parts that are not known are left out.
        made: what the numbers were measured on, in a few words.
    """

    index: tuple[Record, ...]
    record: Callable[[int], Record]
    made: str = ""
    _seen: dict[int, Record] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that there is a feature."""
        if not self.index:
            raise OptionError("there is nothing to show: no feature was given, and none fires on this text")

    @property
    def features(self) -> list[int]:
        """Numbers of the features, in the order of the index."""
        return [int(row["feature"]) for row in self.index]

    def of(self, feature: int) -> Record:
        """The record of one feature of the index. Raises OptionError for others."""
        if feature not in self.features:
            raise OptionError(
                f"feature {feature} is not in this index of {len(self.index)}; name it in features= to have it here"
            )
        if feature not in self._seen:
            self._seen[feature] = self.record(feature)
            if len(self._seen) > KEPT:
                del self._seen[next(iter(self._seen))]
        return self._seen[feature]

    def table(self) -> pd.DataFrame:
        """The index as a table."""
        return pd.DataFrame([{name: row[name] for name in COLUMNS if name in row} for row in self.index])


def feature_table(source: object, features: Sequence[int] | None = None) -> FeatureTable:
    """Features from what there is.

    Args:
        source: a `FeatureSource` (model and text at hand: everything), or the result of `interp.saes.feature_attribution` (shares of heads and
            traits, no contexts; needs no model).
        features: which; None for those that write most (of a `FeatureSource`) or all rows with the most firings first (of a result).

    Raises:
        OptionError: something else, or no features.
    """
    if isinstance(source, FeatureTable):
        return source
    if isinstance(source, FeatureSource):
        chosen = source.most_active(FEATURES) if features is None else list(features)
        rows = [row | {"layer": source.layer} for row in feature_index(source, chosen)]
        return FeatureTable(
            index=tuple(rows),
            record=lambda f: feature_record(source, f),
            made=f"{source.activity.tokens:,} tokens, layer {source.layer}",
        )
    if isinstance(source, Result) and source.kind == "saes.attribution":
        return _of_result(source, features)
    kind = source.kind if isinstance(source, Result) else type(source).__name__
    raise OptionError(
        f"no features in {kind!r}: give a FeatureSource (interp.saes.dashboard.feature_source) or a saes.attribution result"
    )


def _of_result(result: Result, features: Sequence[int] | None) -> FeatureTable:
    table: Any = result.table.sort_values(["firings", "feature"], ascending=[False, True])
    if features is not None:
        table = table[table["feature"].isin(list(features))]
    rows = [
        {
            "feature": int(r["feature"]),
            "layer": int(r["layer"]),
            "head": int(r["head"]),
            "head_share": float(r["score"]),
        }
        | {"firings": int(r["firings"]), "sink_share": float(r["sink_share"]), "family": str(r.get("family", ""))}
        for r in table.to_dict("records")
    ]
    shares = {"weights": "weight_share", "dfa": "dfa_share", "dfa_without_sink": "dfa_share_without_sinks"}
    by_feature = {row["feature"]: row for row in rows}

    def record(feature: int) -> Record:
        heads = {name: result.arrays[array][feature].tolist() for name, array in shares.items()}
        return {**by_feature[feature], "heads": heads}

    settings = result.manifest.get("settings", {})
    return FeatureTable(
        index=tuple(rows),
        record=record,
        made=f"{settings.get('tokens', '?')} tokens, layer {result.manifest.get('layer', '?')}",
    )


# ------------------------------------------------------------------ the page's requests
def _index(source: FeatureTable, message: Mapping[str, Any]) -> Reply:
    rows = [{name: _said(row[name]) for name in COLUMNS if name in row} for row in source.index]
    return {"rows": rows}, []


def _feature(source: FeatureTable, message: Mapping[str, Any]) -> Reply:
    feature = message.get("feature")
    if isinstance(feature, bool) or not isinstance(feature, int):
        raise OptionError(f"feature must be a whole number; got {feature!r}")
    found = dict(source.of(feature))
    numbers: list[np.ndarray] = []
    found["groups"] = [_group(group, numbers) for group in found.get("groups", ())]
    return {"record": _said(found)}, [np.concatenate(numbers).tobytes() if numbers else b""]


def _group(group: Record, numbers: list[np.ndarray]) -> dict[str, Any]:
    """A group of contexts without its lists of numbers, which go to the buffer: values of all tokens, then DFA up to the chosen one."""
    examples = []
    for example in group["examples"]:
        numbers += [np.asarray(example[name], "<f4") for name in ("values", "dfa")]
        kept = ("tokens", "position", "source", "sink_share", "context")
        examples.append({name: example[name] for name in kept if name in example} | {"sources": len(example["dfa"])})
    return {**group, "examples": examples}


def _said(x: Any) -> Any:
    """A value as a message carries it."""
    if isinstance(x, str):
        return readable(x)
    if isinstance(x, float):
        return finite(x)
    if isinstance(x, Mapping):
        return {key: _said(y) for key, y in x.items()}
    return [_said(y) for y in x] if isinstance(x, list | tuple) else x


OPERATIONS: Final = {"index": _index, "feature": _feature}


def serve(source: FeatureTable, message: object) -> Reply:
    """Answer SAEFeature's page: the `index`, or one `feature`: its record, with values and DFA of each context's tokens as float32, in order."""
    return answer(OPERATIONS, source, message)
