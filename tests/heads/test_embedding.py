"""The embedding of heads: known groups are found, the control is lower, features are standardised, unusable ones are named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from interp.errors import OptionError
from interp.heads.embedding import embedding
from interp.results import Result

SIZES = (17, 11, 7)
NAMES = ["normalised_entropy", "mean_distance", "induction", "copying"]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """35 heads of three kinds in four features, and columns that say nothing."""
    draw = np.random.default_rng(0)
    centres = 8.0 * np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]])
    x = np.concatenate([c + draw.normal(size=(n, 4)) for c, n in zip(centres, SIZES, strict=True)])
    x = x[draw.permutation(len(x))]
    frame = pd.DataFrame(x * [1.0, 100.0, 0.01, 1.0] + 5.0, columns=NAMES)
    frame.insert(0, "head", np.tile(np.arange(5), 7))
    frame.insert(0, "layer", np.repeat(np.arange(7), 5))
    return frame.assign(retrieval=0.25, successor=np.nan, labels="", score=0.0, spread=0.0, control=0.0)


def test_known_groups_are_found(table: pd.DataFrame) -> None:
    result = embedding(table, seed=3)
    assert result.manifest["settings"]["features"] == NAMES
    assert result.manifest["settings"]["left_out"] == ["retrieval", "successor"]
    assert result.table["cluster"].value_counts().to_dict() == dict(enumerate(SIZES))
    assert len(result.manifest["silhouette"]) == 9
    assert max(result.manifest["silhouette"], key=result.manifest["silhouette"].get) == "3"
    # A group is one in which entropy, distance, induction and copying are high or low together, as they were made.
    high = (result.arrays["z"] > 0.5).astype(int)
    for cluster, pattern in enumerate([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]):
        rows = high[(result.table["cluster"] == cluster).to_numpy()]
        assert (rows.mean(0).round() == pattern).all()
    assert result.table["control"].iloc[0] < 0.5 * result.table["score"].mean()


def test_features_are_standardised_and_pca_is_that_of_numpy(table: pd.DataFrame) -> None:
    result = embedding(table, seed=3)
    x = table[NAMES].to_numpy()
    z = (x - x.mean(0)) / x.std(0)
    np.testing.assert_allclose(result.arrays["z"], z, atol=1e-5)
    _, sizes, basis = np.linalg.svd(z, full_matrices=False)
    np.testing.assert_allclose(np.abs(result.table[["pca_1", "pca_2"]]), np.abs(z @ basis[:2].T), atol=1e-4)
    np.testing.assert_allclose(result.manifest["explained_variance"], (sizes**2 / (sizes**2).sum())[:2], atol=1e-6)


def test_the_seed_decides(table: pd.DataFrame) -> None:
    columns = ["tsne_1", "tsne_2", "cluster", "score"]
    assert embedding(table, seed=3).table[columns].equals(embedding(table, seed=3).table[columns])


def test_a_result_and_a_choice_of_features(table: pd.DataFrame) -> None:
    result = Result(kind="heads.report", table=table, manifest={"model": {"name": "m"}})
    found = embedding(result, features=["copying", "induction"], clusters=(4,))
    assert found.manifest["model"] == {"name": "m"}
    assert found.table["cluster"].nunique() == 4
    assert found.arrays["z"].shape == (35, 2)


def test_refusals(table: pd.DataFrame) -> None:
    with pytest.raises(OptionError, match="entropi"):
        embedding(table, features=["entropi"])
    with pytest.raises(OptionError, match="at least two features"):
        embedding(table, features=["copying", "retrieval"])
    with pytest.raises(OptionError, match="number of heads"):
        embedding(table, clusters=(40,))
