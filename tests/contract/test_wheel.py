"""The wheel works outside the checkout: both packages, their data files and the command, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"interp": ROOT / "interp", "interp_kernels": ROOT / "kernels" / "interp_kernels"}

pytestmark = pytest.mark.medium

LOOK = """
import json, sys
from importlib.util import find_spec
sys.path.insert(0, sys.argv[1])
import interp, interp_kernels
print(json.dumps({
    "places": [interp.__file__, interp_kernels.__file__],
    "stats": sorted(interp.stats.STATISTICS)[:1],
    "attention": callable(interp_kernels.attention),
    "kernels": find_spec("kernels") is not None,
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built without network by the build backend that the set-up installed."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True, capture_output=True, text=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_every_file_of_both_packages_and_no_others(wheel: Path) -> None:
    expected = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"interp/py.typed", "interp_kernels/py.typed"} <= expected
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = {name.split("/", 1)[1] for name in archive.namelist() if ".dist-info/" in name}
        (entry_points,) = (archive.read(n).decode() for n in archive.namelist() if n.endswith("entry_points.txt"))
    assert held == expected
    assert "licenses/LICENSE" in metadata
    assert entry_points.split("\n", 1)[1].strip() == "interp = interp.cli.main:main"


def test_the_installed_wheel_works_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True, text=True)
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(target)], cwd=elsewhere, capture_output=True, text=True, check=True
    )
    said = json.loads(done.stdout)
    assert [Path(place).is_relative_to(target) for place in said.pop("places")] == [True, True]
    assert said.pop("stats"), "the registry of statistics is empty"
    assert said == {"attention": True, "kernels": False}
    assert {path.name for path in target.iterdir() if path.suffix != ".dist-info"} == {*PACKAGES, "bin"}
