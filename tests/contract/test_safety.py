"""Nothing is unpickled or evaluated, and no remote code is run unless it is asked for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def dangers(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module]
        yield from (f"{node.lineno}: imports {m}" for m in modules if m.split(".")[0] in UNPICKLING)
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name in {"eval", "exec"}:
                yield f"{node.lineno}: {name}()"
            if name == "torch.load" and given.get("weights_only") != "True":
                yield f"{node.lineno}: torch.load without weights_only=True"
            if given.get("allow_pickle") == "True":
                yield f"{node.lineno}: allow_pickle=True"
            if given.get("trust_remote_code") == "True":
                yield f"{node.lineno}: trust_remote_code=True without being asked"


def test_the_packages_do_nothing_dangerous() -> None:
    files = [*(ROOT / "interp").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]
    found = [f"{path.relative_to(ROOT)}:{why}" for path in files for why in dangers(path.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "import torch\ntorch.load('x.pt')",
        "import torch\ntorch.load('x.pt', weights_only=False)",
        "np.load('x.npy', allow_pickle=True)",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
    ],
)
def test_a_danger_is_seen(source: str) -> None:
    assert len(list(dangers(source))) == 1


def test_the_safe_forms_pass() -> None:
    assert list(dangers("torch.load(p, weights_only=True)\nf(trust_remote_code=trust)\nmodel.eval()")) == []
