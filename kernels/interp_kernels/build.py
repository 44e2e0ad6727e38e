"""Compiles csrc on first use, with torch's own extension loader, into a user cache. Never at import.

The cache is $INTERP_CACHE, else $XDG_CACHE_HOME/interp, else ~/.cache/interp; under it kernels/<key>/ holds one shared
library, the key being a hash of everything that the result depends on. A build runs under a file lock in a folder of its
own and is then renamed, so that concurrent processes never see half a library. A failed build is remembered, with its
reason, for the life of the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

NAME = "interp_kernels_cpu"
SOURCES = ("attention.cpp", "backward.cpp", "columns.cpp", "gather.cpp", "half.cpp", "ops.cpp")
# No -ffast-math: infinities and NaN are part of the contract. Contraction (a * b + c in one rounding) is wanted.
FLAGS = (
    "-O3",
    "-march=native",
    "-std=c++20",
    "-fopenmp",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-g0",
)
LINK_FLAGS = ("-fopenmp",)

Progress = Callable[[str], None]


@dataclass
class _Process:
    """What this process knows: whether the library is loaded, or why it cannot be."""

    loaded: Path | None = None
    failure: str | None = None


_process = _Process()
_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """The compiler that builds: its command and first line of version, the architecture it builds for, the folder of sources."""

    command: str
    version: str
    machine: str
    sources: Path


def sources() -> Path:
    """Folder of the C++ sources."""
    return Path(__file__).parent / "csrc"


def cache_folder() -> Path:
    """Where built libraries live (may not exist yet)."""
    if base := os.environ.get("INTERP_CACHE"):
        return Path(base).expanduser() / "kernels"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "interp" / "kernels"


@cache
def toolchain() -> Toolchain | str:
    """The compiler, or the reason why there is none."""
    command = os.environ.get("CXX", "c++")
    path = shutil.which(command)
    if path is None:
        return f"no C++ compiler: {command!r} is not on the path (install g++ or clang++, or set CXX)"
    with _tools_on_path():
        if shutil.which("ninja") is None:
            return "no ninja, which torch's extension loader needs (pip install ninja)"
    run = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        return f"the C++ compiler {path} does not run: {run.stderr.strip()[:200]}"
    return Toolchain(command=path, version=run.stdout.splitlines()[0], machine=_machine(), sources=sources())


def key(tools: Toolchain) -> str:
    """Hash of the sources, flags, torch, compiler and processor: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(tools.sources.iterdir()):
        if path.suffix in (".cpp", ".h"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    for text in (*FLAGS, *LINK_FLAGS, *SOURCES, torch.__version__, tools.command, tools.version, tools.machine):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]


def library(tools: Toolchain) -> Path:
    """Path of the built library for this toolchain (may not exist yet)."""
    return cache_folder() / key(tools) / f"{NAME}.so"


def failure() -> str | None:
    """Why the build failed in this process, or None."""
    return _process.failure


def is_loaded() -> bool:
    """Whether the operators are registered in this process."""
    return _process.loaded is not None


def ready(progress: Progress | None = None) -> tuple[bool, str]:
    """Load the operators, building them first where the cache has none. Never raises for a missing or failing compiler: (False, reason)."""
    with _lock:
        if _process.loaded is None and _process.failure is None:
            try:
                _process.loaded = _load(progress or _to_stderr)
            except (OSError, RuntimeError, ImportError, subprocess.SubprocessError) as error:
                _process.failure = f"the C++ kernels could not be built: {_last_words(error)}"
        return _process.loaded is not None, _process.failure or ""


def _load(progress: Progress) -> Path:
    tools = toolchain()
    if isinstance(tools, str):
        raise RuntimeError(tools)
    target = library(tools)
    if not target.exists():
        target.parent.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent.with_suffix(".lock")):
            if not target.exists():
                _compile(tools, target, progress)
                return target
    torch.ops.load_library(target)  # pyright: ignore[reportUnknownMemberType]
    return target


def _compile(tools: Toolchain, target: Path, progress: Progress) -> None:
    from torch.utils import cpp_extension  # imports setuptools: only where something is built

    progress(f"interp: building the C++ kernels, once for this machine, in {target.parent} (about a minute)")
    workshop = target.parent.with_name(f"{target.parent.name}.building")
    shutil.rmtree(workshop, ignore_errors=True)
    workshop.mkdir(parents=True)
    with _tools_on_path():
        # Builds, and registers the operators in this process; the library stays loaded when its folder is renamed.
        cpp_extension.load(  # pyright: ignore[reportUnknownMemberType]
            name=NAME,
            sources=[str(tools.sources / name) for name in SOURCES],
            extra_cflags=list(FLAGS),
            extra_ldflags=list(LINK_FLAGS),
            build_directory=str(workshop),
            is_python_module=False,
        )
    shutil.rmtree(target.parent, ignore_errors=True)
    workshop.rename(target.parent)


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None, None, None]:
    # The kernel frees the lock when a process dies, so a killed build blocks nobody.
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _tools_on_path() -> Generator[None, None, None]:
    """The interpreter's own folder on the path (pip puts ninja there), also where its environment is not activated."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([before, str(Path(sys.executable).parent)])
    try:
        yield
    finally:
        os.environ["PATH"] = before


def _machine() -> str:
    """The architecture and its features: a cache shared by several machines must not mix what -march=native means."""
    info = Path("/proc/cpuinfo")
    words = [platform.machine(), platform.processor()]
    if info.exists():
        wanted = ("model name", "flags", "Features", "CPU part")
        lines = info.read_text().split("\n\n")[0].splitlines()
        words += [line for line in lines if line.split("\t")[0].strip() in wanted]
    return "\n".join(words)


def _last_words(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    # The loader's own line comes first and holds the whole command; what the compiler said is of use.
    errors = [line for line in lines if "error:" in line]
    return (errors or lines or [type(error).__name__])[0][:300]


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
