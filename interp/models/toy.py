"""Tiny random-weight models of every family in `FAMILIES`, built in well under a second and without network.

The weights are drawn so that mistakes show: every bias and norm weight is random, attention is far from uniform (its logits
spread over several units, a Gaussian draw leaves them near zero) and outputs depend on the input. One seed gives the same
weights on every machine, and the global random state of torch is left as it was.

The tokenizer is bytes: one token per UTF-8 byte plus seven special tokens, so any text can be encoded and decoded exactly.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

import torch
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.pytorch_utils import Conv1D

from interp.errors import OptionError
from interp.models.families import FAMILIES, SPECIALS, FamilyToy, Template
from interp.models.hooked import HookedModel, wrap
from interp.models.source import LoadedParts, ModelSource

SHARPNESS = 1.7
"""Factor on the query and on the key projections: attention logits then have a standard deviation near its square."""
NOISE = 0.1
"""Standard deviation of the biases, and of the norm weights around their initial value (1, or 0 where 1 is added later)."""


def _sharpen_gpt2(weight: Tensor) -> None:
    """Scale the query and key columns of a fused [hidden, 3 * hidden] projection (or of its bias)."""
    weight[..., : 2 * weight.shape[-1] // 3] *= SHARPNESS


def _sharpen_neox(heads: int) -> Callable[[Tensor], None]:
    """Return the scaling of a [heads * 3 * size, hidden] projection (or of its bias) whose heads are interleaved."""

    def scale(weight: Tensor) -> None:
        weight.view(heads, 3, -1)[:, :2] *= SHARPNESS

    return scale


def _sharpen_plain(weight: Tensor) -> None:
    """Scale a projection to queries or to keys, or the norm after it where the weight itself is the factor."""
    weight *= SHARPNESS


def _sharpen_offset(weight: Tensor) -> None:
    """Scale a norm that multiplies by 1 + weight."""
    weight.copy_((1.0 + weight) * SHARPNESS - 1.0)


def _sharpeners(hf: PreTrainedModel) -> dict[str, Callable[[Tensor], None]]:
    """Return the scaling by the last part of a module's name."""
    offset = hf.config.model_type == "gemma3_text"
    norm = _sharpen_offset if offset else _sharpen_plain
    rules = dict.fromkeys(("q_proj", "k_proj", "query", "key"), _sharpen_plain)
    return rules | {
        "q_norm": norm,
        "k_norm": norm,
        "c_attn": _sharpen_gpt2,
        "query_key_value": _sharpen_neox(getattr(hf.config, "num_attention_heads", 1)),
    }


def _fan_in(module: nn.Module, name: str, weight: Tensor) -> int:
    """Return how many inputs one output sums over; 1 for tables (embeddings, positions, class tokens)."""
    if isinstance(module, Conv1D):
        return weight.shape[0]
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
        return weight[0].numel()
    if name.endswith("_proj"):
        return weight.shape[-2]
    return weight.shape[-1] if name == "weight" and not isinstance(module, nn.Embedding) else 1


@torch.no_grad()
def _fill(hf: PreTrainedModel, generator: torch.Generator) -> None:
    """Draw every trainable parameter of `hf`, tied ones once."""
    rules = _sharpeners(hf)
    done: set[int] = set()
    for path, module in hf.named_modules():
        for name, weight in module.named_parameters(recurse=False):
            if id(weight) in done or not weight.requires_grad:
                continue
            done.add(id(weight))
            noise = torch.randn(weight.shape, generator=generator)
            if name == "sinks":
                weight.copy_(noise)
            elif weight.ndim == 1 or name.endswith("bias"):
                weight.copy_(weight.flatten()[0] + NOISE * noise)
            else:
                weight.copy_(noise * _fan_in(module, name, weight) ** -0.5)
            rule = rules.get(path.rsplit(".", 1)[-1])
            if rule is not None:
                rule(weight)


def byte_tokenizer(template: Template = "plain", *, longest: int = 509) -> PreTrainedTokenizerFast:
    """Return a tokenizer of one token per UTF-8 byte (ids 7 .. 262) and the special tokens of `SPECIALS` (ids 0 .. 6).

    Args:
        template: special tokens put around a text: "plain" (none), "bos", "cls-sep" or "eos".
        longest: `model_max_length`, in tokens.
    """
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate((*SPECIALS, *symbols))}
    core = Tokenizer(BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    core.decoder = decoders.ByteLevel()
    around = {"bos": "<bos> $A", "cls-sep": "<cls> $A <sep>", "eos": "$A <eos>"}
    if template != "plain":
        core.post_processor = processors.TemplateProcessing(
            single=around[template], special_tokens=[(token, i) for i, token in enumerate(SPECIALS)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=longest,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        mask_token="<mask>",
        cls_token="<cls>",
        sep_token="<sep>",
        clean_up_tokenization_spaces=False,
    )


def _family(name: str) -> FamilyToy:
    """Return the family called `name`, or say which there are."""
    if name in FAMILIES:
        return FAMILIES[name]
    close = difflib.get_close_matches(name, FAMILIES, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise OptionError(f"there is no tiny model of family {name!r}.{hint} Families: {', '.join(FAMILIES)}")


def tiny_parts(family: str, *, seed: int = 0) -> LoadedParts:
    """Build the tiny model of a family and its tokenizer (None for images), without attaching anything.

    Args:
        family: a key of `FAMILIES`.
        seed: of the weights.

    Raises:
        OptionError: no such family; the message lists them.
    """
    row = _family(family)
    with torch.random.fork_rng(devices=[]):
        hf = getattr(transformers, row.model_class)(row.config())
    _fill(hf, torch.Generator().manual_seed(seed))
    hf.eval()
    tokenizer = None if row.kind == "vision" else byte_tokenizer(row.template)
    return LoadedParts(hf=hf, tokenizer=tokenizer, source=ModelSource(name=f"tiny/{family}-{seed}", kind="toy"))


def tiny(family: str, *, seed: int = 0) -> HookedModel:
    """Build a small random-weight model of a family, hooked and ready to run; no network, no files.

    Args:
        family: a key of `FAMILIES`: "gpt2", "llama", "gemma2", "bert", "vit", "whisper" ...
        seed: of the weights.

    Raises:
        OptionError: no such family; the message lists them.
    """
    parts = tiny_parts(family, seed=seed)
    return wrap(parts.hf, parts.tokenizer, source=parts.source)


def tiny_inputs(family: str, *, batch: int = 2, length: int = 29, seed: int = 0) -> dict[str, Tensor]:
    """Draw inputs that the tiny model of a family accepts: `hf(**tiny_inputs(family))`.

    Args:
        family: a key of `FAMILIES`.
        batch: number of examples.
        length: text length in tokens (the decoder's for Whisper; for T5 the encoder's, its decoder gets `length // 2`).
            Images have the one size that the model takes, sounds the one duration.
        seed: of the draw; token ids are bytes, never special tokens.

    Returns:
        int64 ids [batch, length], float32 pixels [batch, channels, height, width], float32 features [batch, mel, frames].
    """
    config = _family(family).config()
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> Tensor:
        return torch.randint(len(SPECIALS), config.vocab_size, (batch, count), generator=generator)

    def noise(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator)

    if family == "vit":
        return {"pixel_values": noise(config.num_channels, config.image_size, config.image_size)}
    if family == "whisper":
        features = noise(config.num_mel_bins, 2 * config.max_source_positions)
        return {"input_features": features, "decoder_input_ids": ids(length)}
    if family == "t5":
        return {"input_ids": ids(length), "decoder_input_ids": ids(length // 2)}
    return {"input_ids": ids(length)}
