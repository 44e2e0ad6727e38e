"""Write a benchmark's table as data/results/README.md asks: NAME.csv and NAME.manifest.json."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

PACKAGES = ("interp", "torch", "transformers", "transformer-lens", "triton")


def started() -> str:
    """The time, UTC, to be taken before the first measurement."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write(out: Path, rows: Sequence[Mapping[str, Any]], since: str, **facts: object) -> None:
    """Write rows (one dict each) and how they were made; `facts` join the manifest."""
    manifest = {
        "command": " ".join(["python", *sys.argv]),
        "seed": None,
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len(_git("status", "--porcelain", "--untracked-files=no").splitlines()),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": {"processor": _processor(), "threads": torch.get_num_threads(), "accelerator": _accelerator()},
        "started": since,
        "finished": started(),
        **facts,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(out.with_suffix(".csv"), index=False, float_format="%.6g")
    out.with_suffix(".manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def _git(*words: str) -> str:
    run = subprocess.run(["git", *words], capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return run.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    named = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return named[0].split(":", 1)[1].strip() if named else platform.machine()


def _accelerator() -> str | None:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
