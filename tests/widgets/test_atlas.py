"""The atlas and the pages of heads: what they are given, that text stays text, and that heads link to their pages."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from atlas_cases import HEADS, LAYERS, NASTY, confirmed, placed, wide

from interp.errors import OptionError, OutputError
from interp.heads.report import load_report, report
from interp.models.planted import planted
from interp.widgets.atlas import atlas_data, atlas_page, head_pages, write_atlas
from interp.widgets.head_page import page_inputs, write_head_pages


def payload(page: str) -> dict:
    return json.loads(re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[0])


def test_scores_stand_beside_their_controls() -> None:
    data = atlas_data(wide(), {}, pages=[(1, 3)], confirmed=confirmed(), placed=placed())
    assert (data["layers"], data["heads"]) == ([0, 1, 2], [0, 1, 2, 3, 4])
    by_name = {s["name"]: s for s in data["statistics"]}
    assert list(by_name) == ["induction", "retrieval"]  # the order of the atlas, columns that it does not know left out
    table = wide().table.sort_values(["layer", "head"])
    for column, key in (("induction", "mean"), ("induction_spread", "std"), ("induction_control", "control")):
        decoded = np.frombuffer(base64.b64decode(by_name["induction"][key]), dtype="<f4")
        np.testing.assert_allclose(decoded, table[column].to_numpy(np.float32))
    assert by_name["retrieval"]["control"] is None  # NaN for every head
    assert data["rules"]["induction"] == {"heads": ["2.4", "2.3"], "by_controls": 1}
    assert data["labels"][LAYERS * HEADS - 1] == "induction"
    assert data["pages"] == ["1.3"]
    assert data["parts"][1]["reason"] == NASTY
    assert len(data["placed"]["views"]["tsne"][0]) == LAYERS * HEADS


def test_a_page_holds_no_markup_of_others() -> None:
    page = atlas_page(wide(), {}, confirmed=confirmed(), placed=placed())
    assert payload(page)["title_text"] == NASTY
    assert "<img" not in page
    assert page.count("<script") == 2
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a planted model."""
    out = tmp_path_factory.mktemp("atlas") / "planted"
    model, _ = planted(seed=3)
    report(model, folder=out, tokens=128, samples=2, parts=("copying", "random tokens", "real text"))
    return out


def test_pages_of_heads_are_written_and_linked(folder: Path) -> None:
    model, places = planted(seed=3)
    steps = []
    paths = write_head_pages(model, folder, [places["retrieval"], places["sink"]], progress=lambda *x: steps.append(x))
    assert steps == [(1, 2), (2, 2)]
    assert write_atlas(folder) == folder / "atlas.html"
    assert sorted(head_pages(folder)) == sorted([places["retrieval"], places["sink"]])
    assert payload((folder / "atlas.html").read_text())["pages"] == [p.stem for p in sorted(paths)]
    layer, head = places["retrieval"]
    data = payload((folder / "heads" / f"{layer}.{head}.html").read_text())
    wide_table = load_report(folder)[0].table.set_index(["layer", "head"])
    shown = {s["title"]: s for s in data["scores"]}
    assert shown["induction"]["value"] == pytest.approx(wide_table.loc[(layer, head), "induction"])
    assert shown["induction"]["control"] == pytest.approx(wide_table.loc[(layer, head), "induction_control"])
    assert shown["induction"]["rank"] in (1, 2)
    # The planted tokenizer cannot write a needle; on repeated tokens the head looks at what followed its own token before.
    assert [i["name"] for i in data["inputs"]] == ["natural text", "repeated random tokens"]
    strongest = data["inputs"][1]["pairs"][0]
    assert strongest["weight"] > 0.9
    ids = page_inputs(model)[1].ids
    assert ids[strongest["from"] - 1] == ids[strongest["at"]]
    pools = [m["pool"] for m in data["inputs"][1]["maps"]]
    assert pools == ["max", "mean", "exact"]
    assert data["inputs"][1]["maps"][2]["rows"][0] >= 50
    source = data["circuits"]["written"][0]
    assert source["raised"][0][0] == source["source"]


def test_inputs_of_a_model_that_reads_little() -> None:
    model, _ = planted(seed=3)
    for one in page_inputs(model):
        assert len(one.ids) <= 1024
        assert 0 <= one.rows[0] < one.rows[1] <= len(one.ids)


def test_refusals(folder: Path, tmp_path: Path) -> None:
    model, _ = planted(seed=3)
    with pytest.raises(OptionError, match="layers"):
        write_head_pages(model, folder, [(9, 9)])
    with pytest.raises(OutputError, match="no finished report"):
        write_atlas(tmp_path)
