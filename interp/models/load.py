"""`load` and `read`: a model by name, from wherever it is: embedded in a package, the hub, a folder, a `.gguf` file.

`read` gives the plain Hugging Face model, its tokenizer and where they came from; `load` makes a `HookedModel` of them. The
model class follows the configuration, weights are loaded as they are (nothing folded or centred) and the attention
implementation is left as transformers chooses it.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import torch

from interp.errors import ModelNotFoundError, OptionError
from interp.models.cache import file_sha256
from interp.models.calibration import apply_calibration
from interp.models.embedded import EMBEDDED, unpacked, weights_file
from interp.models.families import FAMILIES
from interp.models.folder import folder_place, read_place, weights_sha256
from interp.models.gguf_file import read_gguf
from interp.models.hooked import HookedModel, wrap
from interp.models.hub import Place, find_on_hub
from interp.models.source import LoadedParts, ModelSource
from interp.models.toy import tiny_parts

TINY = "tiny/"
"""Prefix of the names of the tiny random models: "tiny/llama"."""


def load(
    name: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    trust_remote_code: bool = False,
    offline: bool = False,
    task: str | None = None,
    calibration: str | os.PathLike[str] | None = None,
) -> HookedModel:
    """Load a model and attach interp to it.

    Args:
        name: "smollm2-135m" (weights from an installed package), a hub id ("openai-community/gpt2"), a folder that
            `save_pretrained` wrote, a `.gguf` file, or "tiny/<family>" (small random weights, for trying things out).
        dtype: of the weights; quantised GGUF weights are unpacked to it.
        device: where the model goes.
        revision: branch, tag or commit of a hub id.
        trust_remote_code: run the Python code that a hub repository or folder brings with it. It can do anything that you
            can; read it first.
        offline: take a hub id from the cache on this machine, ask nobody.
        task: "causal-lm", "seq2seq-lm", "speech-seq2seq", "masked-lm" or "image-classification", where the configuration
            does not say or says otherwise.
        calibration: file of `interp calibrate`, whose interventions are in force until `model.release()`.

    Raises:
        EditError: the calibration was made for another model.
        ModelNotFoundError: no such file, folder, package or hub id.
        OfflineError: the model has to come from the hub, which cannot be reached.
        CorruptFileError: a file is damaged or cut short.
        InputDataError: there is no such calibration file.
        UnsupportedModelError: transformers has no class for it.
    """
    parts = read(
        name,
        dtype=dtype,
        device=device,
        revision=revision,
        trust_remote_code=trust_remote_code,
        offline=offline,
        task=task,
    )
    model = wrap(parts.hf, parts.tokenizer, source=parts.source)
    if calibration is not None:
        apply_calibration(model, calibration)
    return model


def read(
    name: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    trust_remote_code: bool = False,
    offline: bool = False,
    task: str | None = None,
) -> LoadedParts:
    """Read a model, its tokenizer and its source without attaching anything. Arguments and errors are those of `load`."""
    text = os.fspath(name)
    place = torch.device(device)
    if place.type == "cuda" and not torch.cuda.is_available():
        raise OptionError(f"device={str(device)!r}, but this torch sees no CUDA device. Pass device='cpu'.")
    if text in EMBEDDED:
        _only_hub(text, revision)
        parts = _read_embedded(text, dtype)
    elif text.startswith(TINY):
        _only_hub(text, revision)
        parts = tiny_parts(text.removeprefix(TINY))
        parts.hf.to(dtype=dtype)  # pyright: ignore[reportCallIssue]  (transformers' decorator hides self)
    elif text.endswith(".gguf"):
        _only_hub(text, revision)
        parts = _read_gguf_file(Path(text).expanduser(), dtype)
    elif Path(text).expanduser().is_dir():
        _only_hub(text, revision)
        parts = _read_folder(Path(text).expanduser(), dtype, trust_remote_code, task)
    else:
        _refuse_path_or_typo(text)
        found = find_on_hub(text, revision=revision, offline=offline)
        hf, tokenizer = read_place(found, dtype=dtype, trust_remote_code=trust_remote_code, task=task)
        parts = LoadedParts(
            hf=hf, tokenizer=tokenizer, source=ModelSource(name=text, kind="hub", revision=found.revision)
        )
    parts.hf.to(device=place)  # pyright: ignore[reportCallIssue]
    return parts


def _read_embedded(name: str, dtype: torch.dtype) -> LoadedParts:
    """Read an embedded model from its verified cache folder."""
    folder = unpacked(EMBEDDED[name])
    found = Place(where=str(folder), revision=None, files=frozenset(path.name for path in folder.iterdir()), local=True)
    hf, tokenizer = read_place(found, dtype=dtype, trust_remote_code=False, task="causal-lm")
    source = ModelSource(name=name, kind="embedded", sha256=file_sha256(weights_file(EMBEDDED[name])))
    return LoadedParts(hf=hf, tokenizer=tokenizer, source=source)


def _read_gguf_file(path: Path, dtype: torch.dtype) -> LoadedParts:
    """Read a GGUF file that the user has."""
    hf, tokenizer = read_gguf(path, dtype=dtype)
    return LoadedParts(
        hf=hf, tokenizer=tokenizer, source=ModelSource(name=path.name, kind="gguf", sha256=file_sha256(path))
    )


def _read_folder(folder: Path, dtype: torch.dtype, trust_remote_code: bool, task: str | None) -> LoadedParts:
    """Read a folder that the user has."""
    hf, tokenizer = read_place(folder_place(folder), dtype=dtype, trust_remote_code=trust_remote_code, task=task)
    source = ModelSource(name=folder.resolve().name, kind="folder", sha256=weights_sha256(folder))
    return LoadedParts(hf=hf, tokenizer=tokenizer, source=source)


def _only_hub(name: str, revision: str | None) -> None:
    """Refuse a revision for what has none."""
    if revision is not None:
        raise OptionError(f"revision={revision!r} is meant for hub ids, and {name!r} is not one. Leave it out.")


def _refuse_path_or_typo(name: str) -> None:
    """Raise for what can be no hub id: a path that does not exist, a file of another kind, a misspelt known name."""
    path = Path(name).expanduser()
    if path.is_file():
        raise ModelNotFoundError(f"{name} is a file but not a .gguf file. Give the folder that it lies in.")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise ModelNotFoundError(f"there is no folder {name}. Check the path; a hub id has the form owner/name.")
    known = [*EMBEDDED, *(f"{TINY}{family}" for family in FAMILIES)]
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.8)
    if close and "/" not in name:
        raise ModelNotFoundError(f"there is no model {name!r}. Did you mean {close[0]!r}? `interp models` lists them.")
