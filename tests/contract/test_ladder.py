"""The packages form a ladder (design.md): a module imports only from rungs below its own, imports inside functions included.

The sources are parsed, never imported. `find_problems` is itself tested on small trees whose faults are known.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"interp": ROOT / "interp", "interp_kernels": ROOT / "kernels" / "interp_kernels"}

# Lowest first; names on one rung do not import each other. `errors` lies below the rest of rung 0, which raises them.
LADDER = (
    {"errors"},
    {"axes", "display"},
    {"results", "ledger"},
    {"stats"},
    {"maps"},
    {"capture"},
    {"models"},
    {"interventions", "tasks"},
    {"sinks", "entropy"},
    {"heads", "calibration", "saes", "circuits", "explain"},
    {"batch"},
    {"widgets"},
    {"cli"},
    {"__main__"},
)
RUNG = {name: height for height, names in enumerate(LADDER) for name in names}
MAY_USE_KERNELS = {"maps", "capture", "interventions", "cli"}
# The imports upwards: .view() and .plot() of a result load the widgets through a door, on first use, and a calibration file its interventions.
DOORS = {
    ("interp.display", "interp.widgets"),
    ("interp.display", "interp.widgets.views"),
    ("interp.models.calibration", "interp.interventions.saved"),
}

Sources = Mapping[str, tuple[str, bool]]  # module name -> its source, and whether it is a package's __init__


def read_sources() -> dict[str, tuple[str, bool]]:
    found: dict[str, tuple[str, bool]] = {}
    for name, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [name, *path.relative_to(folder).with_suffix("").parts]
            is_init = parts[-1] == "__init__"
            found[".".join(parts[:-1] if is_init else parts)] = (path.read_text(encoding="utf-8"), is_init)
    return found


def imported(source: str, known: Sources) -> Iterator[tuple[int, str]]:
    """Line and full name of every module of ours that a source imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            # `from package import module` imports the module, `from package import name` the package's __init__.
            names = [f"{base}.{a.name}" if f"{base}.{a.name}" in known else base for a in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"}:
                names = [str(node.args[0].value)]
        for name in names:
            if name.startswith(".") or name.split(".")[0] in PACKAGES:
                yield node.lineno, name


def complaint(module: str, is_init: bool, target: str, sources: Sources) -> str | None:
    """Why `module` may not import `target`, or None."""
    if target.startswith("."):
        return "a relative import"
    (top, *rest), (target_top, *target_rest) = module.split("."), target.split(".")
    if target not in sources:
        return f"{target} does not exist"
    if top == "interp_kernels" and target_top == "interp":
        return "interp_kernels imports nothing of interp"
    if top == "interp" and target_top == "interp_kernels":
        return None if rest and rest[0] in MAY_USE_KERNELS else f"only {sorted(MAY_USE_KERNELS)} import interp_kernels"
    if (module, target) in DOORS:
        return None
    if sources[target][1]:
        return f"{target} is a package: import the module in it that defines the name"
    if top == "interp_kernels":
        return None
    if target_rest[0] not in RUNG:
        return f"{target_rest[0]} is not on the ladder"
    own, other = RUNG[rest[0]], RUNG[target_rest[0]]
    if other > own:
        return f"{target_rest[0]} is on a higher rung"
    if other == own and rest[0] != target_rest[0]:
        return f"{target_rest[0]} is on the same rung"
    return None


def find_problems(sources: Sources) -> list[str]:
    problems: list[str] = []
    graph: dict[str, set[str]] = {}
    for module, (source, is_init) in sources.items():
        if module == "interp":  # the lazy front door stands outside the ladder; nothing imports it
            continue
        if module.startswith("interp.") and module.split(".")[1] not in RUNG:
            problems.append(f"{module}: {module.split('.')[1]} is not on the ladder")
            continue
        graph[module] = set()
        for line, target in sorted(set(imported(source, sources))):
            why = complaint(module, is_init, target, sources)
            if why:
                problems.append(f"{module}:{line} imports {target}: {why}")
            elif (module, target) not in DOORS:
                graph[module].add(target)
    return problems + [f"import cycle: {' -> '.join(cycle)}" for cycle in find_cycles(graph)]


def find_cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Cycles met by a depth-first walk, each from its first name on: none exactly when the graph has none."""
    cycles: list[list[str]] = []
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> None:
        if node in path:
            cycle = path[path.index(node) :]
            first = cycle.index(min(cycle))
            cycles.append([*cycle[first:], *cycle[:first], cycle[first]])
        elif node not in done:
            for target in sorted(graph.get(node, ())):
                walk(target, [*path, node])
            done.add(node)

    for node in sorted(graph):
        walk(node, [])
    return cycles


def test_every_import_goes_down_the_ladder() -> None:
    sources = read_sources()
    assert len(sources) > 10, "the sources were not found"
    problems = find_problems(sources)
    assert not problems, "\n".join(problems)


FRAME = {
    "interp": ("from interp.cli.main import main", True),
    "interp.errors": ("", False),
    "interp.axes": ("from interp.errors import OptionError", False),
    "interp.stats": ("from interp.stats import rows", True),
    "interp.stats.rows": ("import torch\nfrom interp.axes import AXES", False),
    "interp.stats.more": ("", False),
    "interp.maps.tiles": ("import interp_kernels\nfrom interp.stats.rows import entropy", False),
    "interp.tasks.needle": ("", False),
    "interp.interventions.ablate": ("", False),
    "interp_kernels": ("", True),
    "interp_kernels.spec.mask": ("", False),
}


def test_the_frame_is_sound() -> None:
    assert find_problems(FRAME) == []


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        ("interp.stats.rows", "from interp.maps.tiles import Tile", "higher rung"),
        ("interp.stats.rows", "def f():\n    from interp.maps import tiles", "higher rung"),
        ("interp.stats.rows", "import importlib\nimportlib.import_module('interp.maps.tiles')", "higher rung"),
        (
            "interp.stats.rows",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import interp.maps.tiles",
            "higher rung",
        ),
        ("interp.interventions.ablate", "from interp.tasks.needle import make", "same rung"),
        ("interp.maps.tiles", "from interp.stats import entropy", "is a package"),
        ("interp.stats.rows", "from interp.stats import entropy", "is a package"),
        ("interp.maps.tiles", "import interp", "is a package"),
        ("interp.maps.tiles", "from . import colours", "relative"),
        ("interp.stats.rows", "from interp_kernels import attention", "import interp_kernels"),
        ("interp_kernels.spec.mask", "from interp.axes import AXES", "nothing of interp"),
        ("interp.stats.more", "from interp.stats.gone import x", "does not exist"),
        ("interp.helpers", "", "not on the ladder"),
        ("interp.stats.rows", "from interp.stats.rows import entropy", "cycle"),
    ],
)
def test_a_fault_is_found(module: str, source: str, said: str) -> None:
    problems = find_problems({**FRAME, module: (source, False)})
    assert len(problems) == 1, problems
    assert said in problems[0]


def test_a_longer_cycle_is_found() -> None:
    tree = {
        **FRAME,
        "interp.stats.rows": ("from interp.stats.more import x", False),
        "interp.stats.more": ("def f():\n    from interp.stats.rows import y", False),
    }
    assert find_problems(tree) == ["import cycle: interp.stats.more -> interp.stats.rows -> interp.stats.more"]
