"""What a manifest says of the software and machine that made a result: versions, commit, processor; never a path or a name of a machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from interp.models.hooked import HookedModel

VERSIONED = ("numpy", "pandas", "pyarrow", "tokenizers")
GIT_SECONDS = 10


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that `HookedModel.manifest` does not name."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in VERSIONED}}


def machine() -> dict[str, Any]:
    """The kind of machine, as far as it can change the last bits of a result or its speed."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def commit() -> dict[str, Any] | None:
    """The git commit of the checkout that interp runs from, and whether files in it were changed; None outside a checkout."""
    folder = Path(__file__).resolve().parent
    if not (folder.parents[1] / ".git").exists():
        return None
    head, changed = (_git(folder, *words) for words in (("rev-parse", "HEAD"), ("status", "--porcelain")))
    return None if head is None else {"commit": head, "changed": changed != ""}


def model_record(model: HookedModel) -> dict[str, Any]:
    """The model's record for a plan; a model that the caller loaded is known by a hash of its weights.

    Returns:
        name, kind, revision, sha256 (of the source's files) and class, and `weights_sha256` where the source has no hash of its own.
    """
    record = dict(model.manifest()["model"])
    if record["kind"] == "wrapped":
        record["weights_sha256"] = _weights_sha256(model)
    return record


def _weights_sha256(model: HookedModel) -> str:
    digest = hashlib.sha256()
    modules = dict(model.hf.named_modules())
    for name, weight in sorted(model.hf.named_parameters()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\0".encode())
        owner, _, last = name.rpartition(".")
        with _fetched(modules[owner], weight):
            content = getattr(modules[owner], last).detach()
            digest.update(content.contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _fetched(module: torch.nn.Module, weight: torch.Tensor) -> AbstractContextManager[None]:
    """Have a module's weights in memory inside, where accelerate keeps them elsewhere (then they are of device "meta")."""
    if weight.device.type != "meta":
        return nullcontext()
    from accelerate.utils import align_module_device

    return align_module_device(module, execution_device=torch.device("cpu"))


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
