"""`Patterns`: how all heads of a model attend, side by side: places, clusters with names, profiles, and small maps: what PatternAtlas shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.capture.run import Run
from interp.errors import OptionError
from interp.heads.embedding import embedding
from interp.results import Result
from interp.widgets.atlas import places_of
from interp.widgets.views.head_words import words_of
from interp.widgets.views.protocol import Reply, answer, readable, whole

SIDE: Final = 24
"""Pixels of a small map, a side."""
ROWS: Final = 1024
"""Tokens that small maps cover at most, from the first."""
FAINT: Final = 1e-4
"""Weight that a small map draws in its lowest colour; smaller ones are drawn alike."""
FAR: Final = 0.8
"""Standard deviations from the mean of all heads beyond which a feature names a cluster."""
NAMES: Final = 2
"""Most features in a cluster's name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SmallMaps:
    """The attention map of every head, pooled.

    Attributes:
        codes: uint8 [head, SIDE, SIDE]: 0 where nothing is seen, else 1 to 255 by the logarithm of the mean weight of the cells under a pixel.
        tokens: that the maps cover, from the first.
        of: tokens of the text.
    """

    codes: NDArray[np.uint8]
    tokens: int
    of: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Patterns:
    """All heads, in the order of layer and head.

    Attributes:
        layer, head: int64 [head].
        places: "tsne" and "pca", float32 [head, 2] each.
        cluster: int64 [head], 0 is the largest.
        names: of the clusters.
        labels: of the heads, "" where none was given.
        silhouette: float64 [head], how much nearer its own cluster is than the next.
        control: mean silhouette of shuffled features.
        features: names of the profile's numbers.
        profile: float32 [head, feature], in standard deviations from the mean of all heads.
        maps: small maps, None where no run was at hand.
        embedded: what the places were made from, in words.

    Raises:
        OptionError: a head has no map.
    """

    layer: NDArray[np.int64]
    head: NDArray[np.int64]
    places: Mapping[str, NDArray[np.float32]]
    cluster: NDArray[np.int64]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    silhouette: NDArray[np.float64]
    control: float
    features: tuple[str, ...]
    profile: NDArray[np.float32]
    maps: SmallMaps | None
    embedded: str

    def __post_init__(self) -> None:
        """Check that maps and heads fit."""
        if self.maps is not None and len(self.maps.codes) != len(self.layer):
            raise OptionError(
                f"the run has {len(self.maps.codes)} heads and the result {len(self.layer)}; give the run of the same model"
            )

    @property
    def frame(self) -> pd.DataFrame:
        """One row per head: place, cluster, its name, silhouette, labels, and the profile."""
        columns: dict[str, Any] = {"layer": self.layer, "head": self.head}
        for view, at in self.places.items():
            columns |= {f"{view}_1": at[:, 0], f"{view}_2": at[:, 1]}
        columns |= {
            "cluster": self.cluster,
            "cluster_name": [self.names[c] for c in self.cluster],
            "silhouette": self.silhouette,
        }
        columns |= {"labels": self.labels, **{name: self.profile[:, n] for n, name in enumerate(self.features)}}
        return pd.DataFrame(columns)


def patterns_of(given: Result | Run, *, run: Run | None = None, seed: int = 0) -> Patterns:
    """Read or make the places of all heads.

    Args:
        given: of `interp.heads.embedding`; a report or features (embedded here); or a run of one text, whose small maps are embedded here.
        run: a run of the same model, for small maps beside a result.
        seed: of an embedding that is made here.

    Raises:
        OptionError: nothing to embed, or a run that does not fit.
        CaptureError: a run without queries and keys.
    """
    if isinstance(given, Run):
        return _of_run(given, seed)
    result = given if given.kind == "heads.embedding" else embedding(given, seed=seed)
    order = np.lexsort((result.table["head"], result.table["layer"]))
    features = tuple(str(x) for x in result.manifest["settings"]["features"])
    profile = result.arrays["z"][order].astype(np.float32)
    return _patterns(
        result,
        features,
        profile,
        maps=None if run is None else small_maps(run),
        embedded=f"{len(features)} features of each head",
    )


def small_maps(run: Run) -> SmallMaps:
    """Every head's map pooled to SIDE x SIDE pixels by the mean of exact cells.

    Raises:
        CaptureError: the run kept no queries and keys.
    """
    found = []
    for layer in run.layers:
        for head in range(run.heads):
            amap = run.attention[layer, head]
            tokens = min(ROWS, amap.shape[0])
            found.append(amap.tile((0, tokens), (0, min(ROWS, amap.shape[1])), SIDE, "mean").double().cpu().numpy())
    weights = np.stack(found)
    part = 1 - np.log(np.clip(weights, FAINT, 1.0)) / np.log(FAINT)
    codes = np.where(weights > 0, 1 + np.round(254 * part), 0).astype(np.uint8)
    return SmallMaps(codes=_square(codes), tokens=tokens, of=run.attention[run.layers[0], 0].shape[0])


def cluster_names(profile: NDArray[np.float32], cluster: NDArray[np.int64], features: Sequence[str]) -> tuple[str, ...]:
    """Clusters named by rule: up to `NAMES` features whose mean over the cluster lies `FAR` or more from the mean of all heads, farthest first."""
    names = []
    for c in range(int(cluster.max()) + 1):
        mean = profile[cluster == c].mean(0)
        far = [n for n in np.argsort(-np.abs(mean), kind="stable")[:NAMES] if abs(mean[n]) >= FAR]
        said = [f"{'high' if mean[n] > 0 else 'low'} {words_of(features[int(n)])[0].replace(': ', ' ')}" for n in far]
        names.append(readable(", ".join(said) or "near the mean of all heads"))
    return tuple(names)


def _of_run(run: Run, seed: int) -> Patterns:
    maps = small_maps(run)
    pixels = maps.codes.reshape(len(maps.codes), -1).astype(np.float64)
    columns = [f"pixel {n}" for n in range(pixels.shape[1])]
    heads = pd.MultiIndex.from_product([run.layers, range(run.heads)], names=["layer", "head"])
    table = pd.concat([heads.to_frame(index=False), pd.DataFrame(pixels, columns=columns)], axis=1)
    result = embedding(table, features=columns, seed=seed)
    numbers: Any = run.frame.pivot(index=["layer", "head"], columns="statistic", values="value").reindex(heads)
    values = numbers.to_numpy(np.float64)
    usable = np.isfinite(values).all(0) & (values.std(0) > 1e-12)
    features = tuple(str(name) for name, fits in zip(numbers.columns, usable, strict=True) if fits)
    profile = ((values - values.mean(0)) / np.where(usable, values.std(0), 1.0))[:, usable].astype(np.float32)
    return _patterns(result, features, profile, maps=maps, embedded=f"the small maps of {maps.tokens} tokens")


def _patterns(
    result: Result, features: tuple[str, ...], profile: NDArray[np.float32], *, maps: SmallMaps | None, embedded: str
) -> Patterns:
    table: Any = result.table.sort_values(["layer", "head"], ignore_index=True)
    placed = places_of(result)
    cluster = np.asarray(placed["cluster"], np.int64)
    return Patterns(
        layer=table["layer"].to_numpy(np.int64),
        head=table["head"].to_numpy(np.int64),
        places={view: np.asarray(xy, np.float32).T for view, xy in placed["views"].items()},
        cluster=cluster,
        names=cluster_names(profile, cluster, features),
        labels=tuple(readable(str(x)) for x in table["labels"]) if "labels" in table.columns else ("",) * len(table),
        silhouette=table["score"].to_numpy(np.float64),
        control=float(placed["control"]),
        features=features,
        profile=profile,
        maps=maps,
        embedded=embedded,
    )


def _square(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Maps of texts shorter than SIDE tokens, drawn larger: each pixel repeated."""
    rows, cols = (np.arange(SIDE) * n // SIDE for n in codes.shape[1:])
    return np.ascontiguousarray(codes[:, rows][:, :, cols])


def _packed(*arrays: NDArray[Any]) -> list[bytes]:
    return [np.ascontiguousarray(a, "<f4").tobytes() for a in arrays]


def _places(source: Patterns, message: Mapping[str, Any]) -> Reply:
    said = {"labels": list(source.labels), "views": list(source.places)}
    return said, _packed(
        source.layer, source.head, source.cluster, source.silhouette, *(at.T for at in source.places.values())
    )


def _profile(source: Patterns, message: Mapping[str, Any]) -> Reply:
    return {}, _packed(source.profile)


def _maps(source: Patterns, message: Mapping[str, Any]) -> Reply:
    if source.maps is None:
        raise OptionError("there are no maps here; open the atlas with run=, a run of the same model")
    layer = whole(message, "layer", 0, int(source.layer.max()) + 1)
    return {}, [source.maps.codes[source.layer == layer].tobytes()]


OPERATIONS = {"places": _places, "profile": _profile, "maps": _maps}


def serve(source: Patterns, message: object) -> Reply:
    """Answer PatternAtlas' page.

    `places`: labels, and as float32 layer, head, cluster, silhouette [head] and each view's coordinates [2, head]. `profile`: float32 [head,
    feature]. `maps` of a layer: uint8 [head, SIDE, SIDE].
    """
    return answer(OPERATIONS, source, message)
