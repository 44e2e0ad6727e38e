"""The page of features: plain data, one string for each record, and files beside it."""

from __future__ import annotations

import json

import pytest
from sae_cases import FEATURES, NASTY, source

from interp.errors import OptionError, OutputError
from interp.saes.dashboard import feature_record
from interp.saes.neuronpedia import neuronpedia_json
from interp.widgets.feature_page import feature_page, page_data, write_dashboard


@pytest.fixture(scope="module")
def made():
    return source()


def test_a_dashboard_is_a_page_and_a_file_for_each_feature(made, tmp_path):
    seen = []
    page = write_dashboard(made, [5, 0], tmp_path / "out", progress=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 2), (2, 2)]
    assert page == tmp_path / "out" / "index.html"
    assert sorted(p.name for p in (tmp_path / "out" / "features").iterdir()) == ["0.json", "5.json"]
    kept = json.loads((tmp_path / "out" / "features" / "5.json").read_text(encoding="utf-8"))
    name = made.model.manifest()["model"]["name"]
    assert kept == neuronpedia_json(feature_record(made, 5), model=name, source="1-att-interp")
    assert write_dashboard(made, [3], tmp_path / "out") == page  # a dashboard's own files may be replaced


def test_the_data_are_those_of_the_records(made):
    records = [feature_record(made, 5), feature_record(made, 0)]
    data = page_data(made, records, text={"kind": "file"})
    assert [row["feature"] for row in data["index"]] == [5, 0]
    found = {n: json.loads(x) for n, x in data["records"].items()}
    assert found == {str(r["feature"]): json.loads(json.dumps(r)) for r in records}
    assert sum(data["density"]["counts"]) == FEATURES - data["dead"]
    assert data["manifest"]["text"] == {"kind": "file"}
    json.dumps(data, allow_nan=False)


def test_no_text_can_leave_the_data(made):
    record = feature_record(made, 5)
    for group in record["groups"]:
        for example in group["examples"]:
            example["tokens"] = [NASTY] * len(example["tokens"])
    page = feature_page(made, [record])
    assert page.count("</script>") == 2 and "<img" not in page
    assert "default-src 'none'" in page and "{{" not in page


def test_what_is_refused(made, tmp_path):
    with pytest.raises(OptionError, match="each once"):
        write_dashboard(made, [1, 1], tmp_path / "a")
    with pytest.raises(OptionError, match="does not exist"):
        write_dashboard(made, [FEATURES], tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.tex").write_text("dear", encoding="utf-8")
    with pytest.raises(OutputError, match="not a dashboard"):
        write_dashboard(made, [1], tmp_path / "c")
