"""`decoder_blocks`: the layers of a decoder as modules, found by what they are and not by a family's names."""

from __future__ import annotations

from torch import nn

from interp.capture.sites import unwrapped
from interp.errors import UnsupportedModelError
from interp.models.hooked import HookedModel


def decoder_blocks(model: HookedModel) -> nn.ModuleList:
    """The blocks of a decoder, in order: the one list of as many modules with parts as the model has layers.

    Raises:
        UnsupportedModelError: there is no one list of them, so a run cannot be changed or begun between layers.
    """
    lists = [m for m in unwrapped(model.hf.base_model).modules() if isinstance(m, nn.ModuleList)]
    fitting = [m for m in lists if len(m) == model.layers and any(True for _ in m[0].children())]
    if not fitting or model.is_encoder_decoder:
        raise UnsupportedModelError(f"{type(model.hf).__name__}: no list of {model.layers} blocks; a decoder is wanted")
    return fitting[0]
