"""SAEFeature without a browser: index and records through the comm, features fetched one by one, a saved attribution, a real autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from feature_cases import FEATURES, NASTY, index, record
from view_cases import Wire

from interp.errors import OptionError
from interp.results import Result


def view(asked: list[int] | None = None, **options: Any) -> Any:
    from interp.widgets.views.sae_feature import SAEFeature
    from interp.widgets.views.sae_source import FeatureTable

    def made(feature: int) -> dict[str, Any]:
        if asked is not None:
            asked.append(feature)
        return record(feature)

    return SAEFeature(FeatureTable(index=index(), record=made, made="97 tokens"), **options)


def attribution() -> Result:
    """Two features of a layer of three heads."""
    rows = [
        {
            "layer": 5,
            "head": 2,
            "score": 0.75,
            "spread": 0.1,
            "control": 0.3,
            "feature": 4,
            "firings": 11,
            "sink_share": 0.5,
            "family": "local",
        },
        {
            "layer": 5,
            "head": 0,
            "score": 0.5,
            "spread": 0.1,
            "control": 0.3,
            "feature": 1,
            "firings": 29,
            "sink_share": 0.25,
            "family": "other",
        },
    ]
    shares = np.full((7, 3), np.nan, np.float32)
    shares[4], shares[1] = (0.125, 0.125, 0.75), (0.5, 0.25, 0.25)
    arrays = {"weight_share": np.nan_to_num(shares), "dfa_share": shares, "dfa_share_without_sinks": shares}
    return Result(
        kind="saes.attribution",
        table=pd.DataFrame(rows),
        manifest={"layer": 5, "settings": {"tokens": 97}},
        arrays=arrays,
    )


def test_the_index_comes_first_and_a_record_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    wire = Wire(view(asked), monkeypatch)
    reply, _ = wire.ask(op="index", id=1)
    assert [row["feature"] for row in reply["rows"]] == list(FEATURES)
    assert asked == []
    for _ in range(2):
        wire.ask(op="feature", feature=3, id=2)
    assert asked == [3], "a record is made once"


def test_a_record_has_its_numbers_in_the_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    reply, (buffer,) = Wire(view(), monkeypatch).ask(op="feature", feature=7, id=1)
    numbers = np.frombuffer(buffer, "<f4")
    np.testing.assert_array_equal(
        numbers, [0, 0.25, 0.5, 0.75, 1, 1, -0.5, 0.25, -0.125, 0.0625, 0, 0.25, 0.5, 0.75, 1, 1, -0.5, 0.25]
    )
    first = reply["record"]["groups"][0]["examples"][0]
    assert first["sources"] == 5
    assert first["tokens"] == [t.replace("\ud800", "?") for t in NASTY], "a comm cannot carry a lone surrogate"
    assert "values" not in first


BAD = [
    ({"feature": 99}, "not in this index of 3"),
    ({"feature": "7"}, "whole"),
    ({"feature": True}, "whole"),
    ({}, "whole"),
]


@pytest.mark.parametrize(("message", "said"), BAD)
def test_bad_requests_are_answered_with_words(
    monkeypatch: pytest.MonkeyPatch, message: dict[str, Any], said: str
) -> None:
    assert said in Wire(view(), monkeypatch).ask(op="feature", id=1, **message)[0]["error"]


def test_what_the_page_opens_is_known_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    made = view()
    assert made.feature == 7
    Wire(made, monkeypatch).set(picks=[[11]])
    assert made.feature == 11
    made.pick(3)
    assert made.picks == [[3]]
    with pytest.raises(OptionError, match="feature 5 is not in this index"):
        made.pick(5)


def test_a_saved_attribution_opens_without_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: Any = Result.load(attribution().save(tmp_path / "saved")).view()
    wire = Wire(opened, monkeypatch)
    rows = wire.ask(op="index", id=1)[0]["rows"]
    assert [(r["feature"], r["head"], r["family"]) for r in rows] == [(1, 0, "other"), (4, 2, "local")]
    said = wire.ask(op="feature", feature=4, id=2)[0]["record"]
    assert said["heads"]["dfa"] == [0.125, 0.125, 0.75]
    assert said["groups"] == []
    assert opened.picture().width > 0


def test_what_is_no_feature_is_refused() -> None:
    from interp.widgets.views.sae_feature import SAEFeature

    with pytest.raises(OptionError, match="no features in 'int'"):
        SAEFeature(3)
    with pytest.raises(OptionError, match="nothing to show"):
        SAEFeature(attribution(), features=[77])


def test_table_picture_and_page(tmp_path: Path) -> None:
    from PIL import Image

    made = view()
    assert made.data()["feature"].tolist() == list(FEATURES)
    assert Image.open(made.png(tmp_path / "x.png")).width == 2 * 760
    page = made.html(tmp_path / "x.html").read_text()
    assert page.count("<img") == 0


def test_a_real_autoencoder_opens() -> None:
    import interp
    from interp.saes.architectures import shapes
    from interp.saes.config import SAEConfig
    from interp.saes.core import SAE
    from interp.saes.dashboard import feature_source
    from interp.widgets.views.sae_feature import SAEFeature

    model = interp.tiny("llama")
    width = model.heads * model.head_outputs([1, 2, 3], layers=[1])[1].shape[-1]
    config = SAEConfig(architecture="topk", d_in=width, d_sae=31, k=3)
    draw = torch.Generator().manual_seed(2)
    sae = SAE(config, {name: torch.randn(shape, generator=draw) for name, shape in shapes(config).items()})
    contexts = [torch.randint(10, 200, (13,), generator=draw).tolist() for _ in range(5)]
    made = feature_source(sae, model, 1, contexts).view()
    assert isinstance(made, SAEFeature)
    reply, (buffer,) = made.serve(made.source, {"op": "feature", "feature": made.feature, "id": 1})
    groups = reply["record"]["groups"]
    sizes = [len(e["tokens"]) + e["sources"] for g in groups for e in g["examples"]]
    assert len(buffer) == 4 * sum(sizes) > 0
    numbers = np.frombuffer(buffer, "<f4")
    first = groups[0]["examples"][0]
    assert numbers[first["position"]] == pytest.approx(reply["record"]["max"], rel=1e-3), (
        "the first context holds the largest value"
    )
