"""Sizes of a model by the names that configs give them."""

from __future__ import annotations

from transformers import PreTrainedConfig

from interp.errors import UnsupportedModelError

LAYERS = ("num_decoder_layers", "decoder_layers", "num_hidden_layers")
HEADS = ("decoder_attention_heads", "num_attention_heads", "num_heads")


def is_encoder_decoder(config: PreTrainedConfig) -> bool:
    """Whether the model has an encoder and a decoder with cross-attention."""
    return bool(getattr(config, "is_encoder_decoder", False))


def layers(config: PreTrainedConfig) -> int:
    """Number of layers (of the decoder, for an encoder-decoder). Raises UnsupportedModelError if the config names none."""
    return _first(config, "number of layers", LAYERS)


def heads(config: PreTrainedConfig) -> int:
    """Query heads of each layer (of the decoder, for an encoder-decoder). Raises UnsupportedModelError if the config names none."""
    return _first(config, "number of heads", HEADS)


def _first(config: PreTrainedConfig, what: str, names: tuple[str, ...]) -> int:
    """The first of the attributes that is there; a composite config is asked for its text (decoder) part last."""
    owners = (
        (config, config.get_text_config(decoder=True)) if is_encoder_decoder(config) else (config.get_text_config(),)
    )
    for owner in owners:
        for name in names:
            if isinstance(getattr(owner, name, None), int):
                return getattr(owner, name)
    raise UnsupportedModelError(f"{type(config).__name__}: the config names no {what}")
