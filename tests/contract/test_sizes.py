"""Files stay small enough to be read in one sitting, and no folder becomes a package by accident."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = {".py", ".js", ".css", ".cpp", ".h", ".hpp", ".cu", ".cuh"}
LIMITS = {"interp": 400, "kernels": 600}


def test_no_file_is_too_long() -> None:
    too_long = []
    seen = 0
    for folder, limit in LIMITS.items():
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in CODE:
                seen += 1
                lines = len(path.read_text(encoding="utf-8").splitlines())
                if lines > limit:
                    too_long.append(f"{path.relative_to(ROOT)}: {lines} lines, limit {limit}")
    assert seen > 10, "the sources were not found"
    assert not too_long, "split by subject:\n" + "\n".join(too_long)


def test_no_init_file_turns_a_folder_into_a_package() -> None:
    # transformers looks for a package `kernels`, and pytest would make one of tests/kernels/__init__.py as well.
    found = [*(ROOT / "tests").rglob("__init__.py"), *(ROOT / "kernels").glob("__init__.py")]
    assert not found, found
    assert not (ROOT / "tests" / "kernels").exists(), "tests of the kernels live in tests/kernel_ops/"
