"""Where a model came from, and the three things that reading one gives.

`ModelSource` is what manifests record about a model. It never holds a machine path: a model read from a folder is known by
the folder's last name and by a hash of its weights, so that two machines write the same manifest for the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from transformers import BaseImageProcessor, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from interp.errors import OptionError

SourceKind = Literal["embedded", "hub", "folder", "gguf", "toy", "wrapped"]
"""How a model was found; "wrapped" is one that the caller built."""

Preprocessor: TypeAlias = PreTrainedTokenizerBase | ProcessorMixin | BaseImageProcessor
"""What turns text, sound or images into a model's inputs."""


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Identity of a model, free of machine paths.

    Attributes:
        name: the name a person would type: "smollm2-135m", a hub id, the last part of a folder or file name, "tiny/llama".
        kind: how it was found.
        revision: hub commit, where one is known.
        sha256: lower-case hexadecimal hash of what the weights were read from (a GGUF file, a weight file, or the list of
            several weight files with their hashes), or None.
    """

    name: str
    kind: SourceKind
    revision: str | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(SourceKind):
            raise OptionError(f"kind must be one of {', '.join(get_args(SourceKind))}; got {self.kind!r}")
        if not self.name or self.name.startswith(("/", "~", ".")) or "\\" in self.name:
            raise OptionError(f"name must be a model's name, neither empty nor a path; got {self.name!r}")
        if self.sha256 is not None and (len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef")):
            raise OptionError(f"sha256 must be 64 lower-case hexadecimal digits; got {self.sha256!r}")

    def record(self) -> dict[str, str | None]:
        """Return the plain values that a manifest keeps; none of them is a path on this machine."""
        return {"name": self.name, "kind": self.kind, "revision": self.revision, "sha256": self.sha256}


@dataclass(frozen=True, kw_only=True)
class LoadedParts:
    """A Hugging Face model in evaluation mode, what turns text into its inputs (None where there is nothing), its source."""

    hf: PreTrainedModel
    tokenizer: Preprocessor | None
    source: ModelSource
