"""`write_report` makes the page from a scan's folder alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_cases import STATISTICS, frame, manifest, thumbnails

from interp import display
from interp.errors import CorruptFileError, OutputError
from interp.maps.thumbnail import thumbnails_to_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished scan's folder without its report."""
    frame().rename(columns={"value": "mean"}).to_parquet(tmp_path / "stats.parquet")
    (tmp_path / "manifest.json").write_text(json.dumps(manifest()), encoding="utf-8")
    (tmp_path / "parts").mkdir()
    weights, index = thumbnails_to_bytes(thumbnails())
    (tmp_path / "parts" / "maps.safetensors").write_bytes(weights)
    (tmp_path / "parts" / "maps.json").write_bytes(index)
    return tmp_path


def data_of(page: str) -> dict[str, object]:
    """The page's block of data."""
    block = page.split('<script id="data" type="application/json">')[1].split("</script>")[0]
    return json.loads(block)


def test_a_folder_gets_its_report(folder: Path) -> None:
    path = display.write_report(folder)
    assert path == folder / "report.html"
    page = path.read_text(encoding="utf-8")
    data = data_of(page)
    assert [s["name"] for s in data["statistics"]] == list(STATISTICS)
    assert len(data["maps"]) == 3
    assert data["manifest"] == json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert str(folder) not in page, "no path of this machine"
    assert display.write_report(folder).read_text(encoding="utf-8") == page


def test_a_report_without_pictures(folder: Path) -> None:
    (folder / "parts" / "maps.json").unlink()
    assert data_of(display.write_report(folder).read_text(encoding="utf-8"))["maps"] == []


def test_what_is_missing_or_damaged_is_said(folder: Path, tmp_path: Path) -> None:
    (folder / "parts" / "maps.safetensors").write_bytes(b"no")
    with pytest.raises(CorruptFileError, match="maps"):
        display.write_report(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(OutputError, match=r"manifest\.json is missing"):
        display.write_report(folder)
    assert not (folder / "report.html").exists()
