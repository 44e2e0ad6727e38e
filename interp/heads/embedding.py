"""All heads of a model in one picture: placed by how they attend, so that heads of one kind lie together.

Li et al. 2023, "How Does Attention Work in Vision Transformers? A Visual Analytics Attempt" (arXiv 2303.13731) lay out the heads of a ViT by
features of their attention maps (there learnt by an autoencoder) and name the patterns that appear. Here the features are measured: the scores
of a report and the pattern statistics in it (entropy, reach, masses), each standardised to mean 0 and variance 1 over heads. Two views of the
same points: PCA, which is linear and keeps large distances, and t-SNE, which keeps neighbours (distances between its islands mean nothing).
Clusters are k-means in the standardised features, k by the largest mean silhouette (Rousseeuw 1987). The control is the same with every
feature shuffled over heads on its own: what clusters chance finds in features that go together in no head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_samples

from interp.errors import OptionError
from interp.heads.features import FEATURES
from interp.results import Result

SCORES = (
    "previous_token",
    "duplicate_token",
    "induction",
    "copying",
    "ov_eigenvalues",
    "retrieval",
    "successor",
    "streaming_mass",
    "streaming_output",
)
"""Columns of a report that are used beside `FEATURES`, as far as they are there."""
STARTS = 10
"""Starts of k-means, of which the best is kept."""


def embedding(
    table: Result | pd.DataFrame,
    *,
    features: Sequence[str] | None = None,
    clusters: Sequence[int] = range(2, 11),
    perplexity: float = 15.0,
    seed: int = 0,
) -> Result:
    """Place all heads by their features, and cluster them.

    Args:
        table: a report (`interp.heads.report`), `interp.heads.features`, or a table with columns layer, head and the features.
        features: columns to use, None for those of `FEATURES` and `SCORES` that the table has. Columns that are NaN for a head or the same
            for every head are left out, and named in the manifest.
        clusters: numbers of clusters to choose from.
        perplexity: of t-SNE, about the number of neighbours that count; lowered to a third of the heads where there are few.
        seed: of k-means, t-SNE and the control.

    Returns:
        Result "heads.embedding": pca_1, pca_2, tsne_1, tsne_2, cluster (0 is the largest), labels where the table has them; score, the head's
        silhouette in [-1, 1] (how much nearer its own cluster is than the next); control, the mean silhouette of the shuffled features;
        spread, NaN. Manifest: mean silhouette by k and of the control, share of variance of the two components, features. Arrays: z
        [head, feature], the standardised features; components [2, feature].

    Raises:
        OptionError: fewer than two usable features, or fewer heads than clusters.
    """
    frame: Any = table.table if isinstance(table, Result) else table
    wanted = [name for name in (*FEATURES, *SCORES) if name in frame.columns] if features is None else list(features)
    if missing := [name for name in wanted if name not in frame.columns]:
        raise OptionError(f"the table has no columns {', '.join(missing)}; it has {', '.join(frame.columns)}")
    values: NDArray[np.float64] = frame[wanted].to_numpy(np.float64)
    usable = np.isfinite(values).all(0) & (values.std(0) > 1e-12)
    names = [name for name, fits in zip(wanted, usable, strict=True) if fits]
    counts = sorted({k for k in clusters if 2 <= k < len(frame)})
    if len(names) < 2 or not counts or len(frame) < 4:
        raise OptionError(
            f"wanted at least two features that differ between heads, and 2 <= k < number of heads; got {names} and {len(frame)} heads"
        )
    values = values[:, usable]
    z: NDArray[np.float64] = (values - values.mean(0)) / values.std(0)
    by_count = {k: _cluster(z, k, seed) for k in counts}
    means = {k: float(silhouettes.mean()) for k, (_, silhouettes) in by_count.items()}
    best = max(counts, key=lambda k: (means[k], -k))
    labels, silhouettes = by_count[best]
    draw = np.random.default_rng(seed)
    dealt: Any = np.stack([draw.permutation(x) for x in z.T], axis=1)
    control = float(_cluster(dealt, best, seed)[1].mean())
    pca: Any = PCA(n_components=2, random_state=seed).fit(z)
    flat = pca.transform(z)
    near: Any = TSNE(perplexity=min(perplexity, (len(z) - 1) / 3), init="pca", random_state=seed).fit_transform(z)
    found = pd.DataFrame(
        {
            "layer": frame["layer"].to_numpy(),
            "head": frame["head"].to_numpy(),
            "score": silhouettes,
            "spread": np.nan,
            "control": control,
            "pca_1": flat[:, 0],
            "pca_2": flat[:, 1],
            "tsne_1": near[:, 0],
            "tsne_2": near[:, 1],
            "cluster": labels,
        }
    )
    if "labels" in frame.columns:
        found["labels"] = frame["labels"].to_numpy()
    manifest = {
        "method": "embedding",
        "source": "Li et al. 2023 (arXiv 2303.13731); here measured features, PCA, t-SNE and k-means",
        "model": table.manifest.get("model", {}) if isinstance(table, Result) else {},
        "settings": {
            "features": names,
            "left_out": [name for name in wanted if name not in names],
            "clusters": best,
            "perplexity": min(perplexity, (len(z) - 1) / 3),
        },
        "seed": seed,
        "silhouette": {str(k): mean for k, mean in means.items()},
        "silhouette_control": control,
        "explained_variance": pca.explained_variance_ratio_.tolist(),
        "cluster_means": {
            str(c): dict(zip(names, z[labels == c].mean(0).round(3).tolist(), strict=True)) for c in range(best)
        },
    }
    arrays = {"z": z.astype(np.float32), "components": pca.components_.astype(np.float32)}
    return Result(kind="heads.embedding", table=found, manifest=manifest, arrays=arrays)


def _cluster(z: NDArray[np.float64], k: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Clusters [head], the largest first, and the silhouette of each head."""
    raw = KMeans(n_clusters=k, n_init=STARTS, random_state=seed).fit_predict(z)  # pyright: ignore[reportArgumentType]
    order = np.argsort(-np.bincount(raw, minlength=k), kind="stable")
    labels = np.argsort(order)[raw].astype(np.int64)
    return labels, np.asarray(silhouette_samples(z, labels), dtype=np.float64)
