"""Every public name resolves, is listed in order, and is documented and annotated."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"interp": ROOT / "interp", "interp_kernels": ROOT / "kernels" / "interp_kernels"}
INITS = [
    ".".join([name, *path.parent.relative_to(folder).parts])
    for name, folder in PACKAGES.items()
    for path in sorted(folder.rglob("__init__.py"))
]
FILES = [path for folder in PACKAGES.values() for path in sorted(folder.rglob("*.py"))]

Function = ast.FunctionDef | ast.AsyncFunctionDef


def in_order(names: list[str]) -> list[str]:
    """CONSTANTS, then Classes, then functions, each by name: the order that ruff (RUF022) keeps."""
    return sorted(names, key=lambda n: (0 if n.isupper() else 1 if n[0].isupper() else 2, n))


@pytest.mark.parametrize("name", INITS)
def test_all_is_sorted_and_resolves(name: str) -> None:
    module = importlib.import_module(name)
    if not hasattr(module, "__all__"):  # a folder whose modules are imported one by one
        tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
        assert [ast.unparse(node) for node in tree.body[1:]] == [], "a package that exports something has an __all__"
        return
    names = list(module.__all__)
    assert names == in_order(names)
    assert len(set(names)) == len(names)
    missing = [n for n in names if not hasattr(module, n)]
    assert not missing


def test_the_front_door_offers_exactly_what_it_lists() -> None:
    import interp

    assert set(interp._NAMES) | interp._MODULES | {"__version__"} == set(interp.__all__)
    assert dir(interp) == sorted(interp.__all__)
    tree = ast.parse((ROOT / "interp" / "__init__.py").read_text(encoding="utf-8"))
    for_checkers = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert for_checkers == interp._NAMES | {module: "interp" for module in interp._MODULES}


def test_an_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    import interp

    with pytest.raises(AttributeError, match=r"'lode'.*AttentionMap.*load"):
        _ = interp.lode


def public_definitions(tree: ast.Module) -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Public functions and classes at the top of a file, and the public methods of those classes."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, Function) and not inner.name.startswith("_"):
                        yield f"{node.name}.{inner.name}", inner


def decorated(node: ast.ClassDef | Function, name: str) -> bool:
    return any(name in ast.unparse(decorator).split(".") for decorator in node.decorator_list)


def test_everything_public_has_a_docstring() -> None:
    bare = []
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        where = path.relative_to(ROOT)
        if not ast.get_docstring(tree):
            bare.append(f"{where}: module")
        bare += [
            f"{where}:{node.lineno} {name}"
            for name, node in public_definitions(tree)
            if not ast.get_docstring(node)
            and not any(decorated(node, d) for d in ("overload", "override", "setter", "jit"))
        ]
    assert not bare, "\n".join(bare)


def test_everything_says_what_it_returns() -> None:
    # Triton's kernels return nothing and take pointers: their arguments have no Python types.
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, Function) and node.returns is None and not decorated(node, "jit")
    ]
    assert not silent, "\n".join(silent)
