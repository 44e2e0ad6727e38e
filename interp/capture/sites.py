"""`Site`: which attention of which layer a Hugging Face module is, read off its place in the module tree."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torch import nn

Kind = Literal["self", "encoder", "cross"]
_CROSS = re.compile(
    r"(^|\.)(encoder_attn|EncDecAttention|crossattention|cross_attn|cross_attention|encoder_attention)(\.|$)"
)
_ENCODER = re.compile(r"(^|\.)encoder(\.|$)")


@dataclass(frozen=True, order=True)
class Site:
    """One attention of a model.

    Attributes:
        kind: "self" (the decoder's, or the only stack's), "encoder" (the encoder of an encoder-decoder), or "cross".
        layer: layer number within its stack.
    """

    kind: Kind
    layer: int


def attention_sites(model: nn.Module, *, encoder_decoder: bool) -> dict[int, Site]:
    """For every module that could be an attention, by `id`, the site it would be; only those that attend are ever looked up.

    The layer is the module's own `layer_idx`, else the first number in its path (``encoder.block.3.layer.0.SelfAttention``).
    """
    sites = {}
    for path, module in model.named_modules():
        numbers = re.findall(r"(?<=\.)\d+(?=\.|$)", "." + path)
        own = getattr(module, "layer_idx", None)
        if not isinstance(own, int) and not numbers:
            continue
        kind: Kind = "self"
        if encoder_decoder:
            kind = "cross" if _CROSS.search(path) else "encoder" if _ENCODER.search(path) else "self"
        sites[id(module)] = Site(
            kind, own if isinstance(own, int) and kind == "self" else int(numbers[0]) if numbers else int(own or 0)
        )
    return sites


def unwrapped(module: nn.Module) -> nn.Module:
    """A module as transformers made it, without what a TransformerLens bridge may have put around it."""
    while getattr(module, "original_component", None) is not None:
        module = module.original_component  # pyright: ignore[reportAssignmentType]
    return module
