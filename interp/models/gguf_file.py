"""Reading a `.gguf` file (llama.cpp's format) into a Hugging Face model and tokenizer.

Quantised weights are unpacked to the asked dtype: exact statistics need plain tensors, and transformers would keep the packed
blocks wherever a matching kernel is installed.

A GGUF file names the rule by which its tokenizer splits text before merging (`tokenizer.ggml.pre`). transformers 5.23 knows
some of those names and applies GPT-2's rule for the others, which is not the model's own tokenizer where the rule also splits
digits: SmolLM2 makes of "a  42" the tokens `a`, two spaces as one token, `4`, `2`; without the repair it is two single spaces.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from gguf import GGUFReader
from tokenizers import pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from interp.errors import CorruptFileError, ModelNotFoundError, UnsupportedModelError

_SPLIT_DIGITS = {"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"}
"""Rules that are: every digit alone, then GPT-2's rule (llama.cpp, src/llama-vocab.cpp)."""
_GPT2_RULE = {"default", "gpt-2", "mpt", "olmo", "jais"}
"""Rules that are GPT-2's, which transformers takes by default."""

_log = logging.getLogger(__name__)


def _header(path: Path) -> tuple[str, str]:
    """Return the architecture and the name of the splitting rule, having checked that every tensor lies within the file."""
    if not path.is_file():
        raise ModelNotFoundError(f"there is no file {path}. Check the path.")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise CorruptFileError(
                f"{path} is not a GGUF file: it does not begin with the letters GGUF. Download it again."
            )
    try:
        fields = GGUFReader(path).fields
        architecture = fields["general.architecture"].contents()
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        size = path.stat().st_size
        raise CorruptFileError(
            f"{path} is damaged or cut short ({size:,} bytes; {error}). Download it again and compare its size or hash."
        ) from error
    rule = fields.get("tokenizer.ggml.pre")
    return str(architecture), str(rule.contents()) if rule is not None else "default"


def read_gguf(path: Path, *, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Read a causal language model and its tokenizer from a GGUF file, weights unpacked to `dtype`.

    Takes about 20 s for 135 million parameters: most of it is spent in Python, on the vocabulary and the blocks.

    Raises:
        ModelNotFoundError: no such file.
        CorruptFileError: not a GGUF file, or one that is damaged or cut short.
        UnsupportedModelError: an architecture that transformers cannot read from GGUF.
    """
    architecture, rule = _header(path)
    folder, name = str(path.parent), path.name
    try:
        hf = AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file=name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=dtype,
            local_files_only=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True)
    except (ValueError, NotImplementedError) as error:
        raise UnsupportedModelError(
            f"{path} holds a model of architecture {architecture!r}, which transformers cannot read from GGUF ({error}). "
            "Load the original model from the hub instead."
        ) from error
    _repair_split(tokenizer, rule, path)
    longest = getattr(hf.config, "max_position_embeddings", None)
    if longest is not None:
        tokenizer.model_max_length = longest
    return hf.eval(), tokenizer


def _repair_split(tokenizer: PreTrainedTokenizerBase, rule: str, path: Path) -> None:
    """Give the tokenizer the splitting rule that the file names, where transformers fell back to GPT-2's."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return
    core = tokenizer.backend_tokenizer
    if not isinstance(core.pre_tokenizer, pre_tokenizers.ByteLevel) or rule in _GPT2_RULE:
        return
    if rule in _SPLIT_DIGITS:
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        return
    _log.warning(
        "%s names the splitting rule %r, which is not known here: its tokenizer may split some texts otherwise than the "
        "original one. Pass the original tokenizer to interp.wrap where that matters.",
        path.name,
        rule,
    )
