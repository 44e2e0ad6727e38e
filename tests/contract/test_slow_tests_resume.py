"""`make test-slow` leaves out what has passed on the same sources, and only that: tried on a small project of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
TESTS = """
import pathlib, pytest
@pytest.mark.slow
def test_passes(): pass
@pytest.mark.slow
def test_waits_for_a_file(): assert (pathlib.Path(__file__).parent / "there.log").exists()
def test_fast(): pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with this one's conftest and three tests, one of which fails until a file is there."""
    (tmp_path / "interp").mkdir()
    (tmp_path / "interp" / "code.py").write_text("x = 1\n")
    (tmp_path / "tests").mkdir()
    shutil.copy(CONFTEST, tmp_path / "tests")
    (tmp_path / "tests" / "test_few.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  slow: x\n  browser: x\n  gpu: x\n")
    return tmp_path


def closing_line(project: Path) -> str:
    """Run the slow tests as the Makefile does; give what pytest counted."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "slow", "--skip-passed", "-p", "no:jaxtyping"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    return done.stdout.splitlines()[-1].rsplit(" in ", 1)[0]


@pytest.mark.medium
def test_only_tests_that_passed_on_these_sources_are_left_out(project: Path) -> None:
    assert closing_line(project) == "1 failed, 1 passed, 1 deselected"
    assert closing_line(project) == "1 failed, 1 skipped, 1 deselected"
    (project / "tests" / "there.log").touch()  # a new file under tests/ is a new source: everything runs again
    assert closing_line(project) == "2 passed, 1 deselected"
    assert closing_line(project) == "2 skipped, 1 deselected"
    (project / "interp" / "code.py").write_text("x = 2\n")
    assert closing_line(project) == "2 passed, 1 deselected"
