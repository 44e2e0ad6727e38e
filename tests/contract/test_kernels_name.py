"""Our folder `kernels/` never poses as Hugging Face's package `kernels`, which transformers looks for."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_kernels_is_no_regular_package_here() -> None:
    spec = importlib.util.find_spec("kernels")
    assert spec is None or spec.origin is None or "site-packages" in spec.origin


def test_kernels_and_tests_are_not_importable_from_elsewhere(tmp_path: Path) -> None:
    # An editable install that put the repository root on sys.path would leak all of its folders.
    code = (
        "from importlib.util import find_spec\n"
        "for name in ('kernels', 'tests', 'data', 'benchmarks'):\n"
        "    spec = find_spec(name)\n"
        "    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]\n"
        "    print(*[p for p in places if p], sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    places = [Path(line) for line in done.stdout.splitlines() if line]
    assert not [p for p in places if p.is_relative_to(ROOT) and "site-packages" not in p.parts], places


def test_no_distribution_or_command_is_called_kernels() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'name = "interp"' in text
    assert "\nkernels =" not in text
