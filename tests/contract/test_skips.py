"""Every skip gives its reason and has a row in tests/SKIPS.md, so that nothing is silently left out."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
CALLS = {"skip", "skipif", "xfail", "importorskip"}


def skips(source: str) -> Iterator[tuple[int, str, bool]]:
    """Line, kind and whether there is a reason, of every skip in a test file."""
    tree = ast.parse(source)
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in CALLS
            and ast.unparse(node.value) in {"pytest", "pytest.mark"}
        ):
            call = called.get(id(node))
            words = {keyword.arg for keyword in call.keywords} if call else set()
            given = call is not None and ("reason" in words or (node.attr == "skip" and bool(call.args)))
            yield node.lineno, node.attr, given


def test_every_skip_has_a_reason_and_a_row() -> None:
    rows = (TESTS / "SKIPS.md").read_text(encoding="utf-8")
    problems = []
    for path in sorted(TESTS.rglob("*.py")):
        name = path.relative_to(TESTS).as_posix()
        for line, kind, given in skips(path.read_text(encoding="utf-8")):
            if not given:
                problems.append(f"{name}:{line}: {kind} without a reason")
            if f"`{name}`" not in rows:
                problems.append(f"{name}:{line}: {kind} without a row in SKIPS.md")
    assert not problems, "\n".join(problems)


def test_rows_name_files_that_exist() -> None:
    rows = [line for line in (TESTS / "SKIPS.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert rows
    gone = [row for row in rows if not (TESTS / row.split("`")[1]).is_file()]
    assert not gone, gone


def test_a_bare_skip_is_seen() -> None:
    source = "import pytest\n@pytest.mark.skip\ndef test_a(): pass\ndef test_b(): pytest.skip('why')\n"
    assert sorted(skips(source)) == [(2, "skip", False), (4, "skip", True)]
