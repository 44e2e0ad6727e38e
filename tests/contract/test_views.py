"""Everything that can be drawn can be opened: each kind with a plot has a view, each kind that an analysis makes has both or a reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "interp").rglob("*.py"))


def class_methods() -> Iterator[tuple[str, set[str]]]:
    """Name of every public class, and the names of its own methods."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, {item.name for item in node.body if isinstance(item, ast.FunctionDef)}


def result_kinds() -> set[str]:
    """Kinds that `Result(kind=...)` is called with: words, constants of the file, and patterns with a star for what is filled in."""
    found: set[str] = set()
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Result"):
                continue
            kind = next((k.value for k in node.keywords if k.arg == "kind"), None)
            if isinstance(kind, ast.Constant):
                found.add(str(kind.value))
            elif isinstance(kind, ast.Name) and kind.id in constants:
                found.add(str(constants[kind.id]))
            elif isinstance(kind, ast.JoinedStr):
                found.add("".join(str(p.value) if isinstance(p, ast.Constant) else "*" for p in kind.values))
    return found


def test_every_kind_with_a_plot_has_a_view() -> None:
    from interp.widgets import PLOTS
    from interp.widgets.views import VIEWS

    assert sorted(set(PLOTS) - set(VIEWS)) == []


def test_every_kind_of_result_has_a_view() -> None:
    from interp.widgets.views import VIEWS

    kinds = result_kinds()
    assert len(kinds) > 30, "the search finds them"
    assert [k for k in sorted(kinds) if not any(fnmatchcase(name, k) for name in VIEWS)] == []


def test_what_can_be_plotted_can_be_viewed() -> None:
    drawn = [(name, "view" in has) for name, has in class_methods() if "plot" in has]
    assert {"Result", "Run", "Evaluation", "ModelsResult"} <= {name for name, _ in drawn}
    assert [name for name, viewed in drawn if not viewed] == []


@pytest.mark.parametrize("name", ["AttentionMap", "FeatureSource", "Monitor", "ScanResult", "Store"])
def test_what_holds_measurements_can_be_viewed(name: str) -> None:
    assert any("view" in has for found, has in class_methods() if found == name)
