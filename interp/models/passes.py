"""One forward pass: keyword arguments for the Hugging Face model from what the user gave, and its logits back as they were asked for."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from interp.capture.inputs import Spans, TextOrIds, TokenAxis, Tokens, is_single, is_text
from interp.capture.sites import Kind
from interp.errors import InputDataError
from interp.stats.labels import TokenLabels

Logits = Literal["all", "last", "none"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """What a pass is run on.

    Attributes:
        main: tokens of the decoder or only stack, None without tokens.
        encoder: tokens of the encoder, None without one or without tokens.
        kwargs: keyword arguments for the model.
        single: whether one text (or one item) was given, not a batch.
        from_text: whether we tokenised it, so that there was a choice of a first token.
        is_encoder_decoder: whether there are three kinds of attention.
    """

    main: TokenAxis | None
    encoder: TokenAxis | None
    kwargs: dict[str, Any]
    single: bool
    from_text: bool
    is_encoder_decoder: bool

    def labels(self) -> dict[Kind, tuple[TokenLabels | None, TokenLabels | None]]:
        """Labels of the query and key axis of each kind of attention."""
        main, encoder = (None if axis is None else axis.labels for axis in (self.main, self.encoder))
        if not self.is_encoder_decoder:
            return {"self": (main, main)}
        return {"self": (main, main), "encoder": (encoder, encoder), "cross": (main, encoder)}


def prepare(
    hf: PreTrainedModel,
    tokens: Tokens,
    inputs: TextOrIds,
    *,
    bos: bool | None,
    spans: Spans | None,
    target: TextOrIds | None,
) -> Given:
    """Tokenise and pad what was given, for any kind of model. Raises InputDataError if the model cannot read it."""
    device = next(hf.parameters()).device
    two_stacks = bool(getattr(hf.config, "is_encoder_decoder", False))
    name, text = hf.main_input_name, is_text(inputs)
    if name == "input_ids":
        axis = tokens.axis(inputs, bos=bos, spans=spans, device=device)
        kwargs = {"input_ids": axis.padded[0], "attention_mask": axis.padded[1].long()}
        batch, single, encoder = len(axis.ids), is_single(inputs), axis
    else:
        if not (isinstance(inputs, Tensor) and inputs.is_floating_point()):
            raise InputDataError(
                f"{type(hf).__name__} reads {name}, a float tensor with a batch axis; got {type(inputs).__name__}"
            )
        if spans or bos is not None:
            raise InputDataError(
                f"{type(hf).__name__} reads {name}, which holds no tokens; spans= and bos= are for models that read text"
            )
        kwargs = {name: inputs.to(device)}
        batch, single, encoder = inputs.shape[0], inputs.shape[0] == 1, None
    if not two_stacks:
        return Given(main=encoder, encoder=None, kwargs=kwargs, single=single, from_text=text, is_encoder_decoder=False)
    main = _decoder_axis(hf, tokens, target, batch, device)
    kwargs |= {"decoder_input_ids": main.padded[0], "decoder_attention_mask": main.padded[1].long()}
    accepted = inspect.signature(hf.forward).parameters
    kwargs = {k: v for k, v in kwargs.items() if k in accepted}
    return Given(main=main, encoder=encoder, kwargs=kwargs, single=single, from_text=text, is_encoder_decoder=True)


def forward(hf: PreTrainedModel, given: Given, logits: Logits) -> Tensor | None:
    """Run the model; its logits as asked, NaN at padding, with a leading batch axis."""
    base: nn.Module = hf.base_model
    if logits == "none" and base is not hf:
        base(**given.kwargs, **_no_cache(base))
        return None
    lengths = None if given.main is None else given.main.labels.lengths
    extra = _no_cache(hf)
    pick = None
    if logits == "last" and lengths is not None and "logits_to_keep" in inspect.signature(hf.forward).parameters:
        # Only the positions that end some text go through the head of the model.
        extra["logits_to_keep"], pick = (lengths - 1).unique(return_inverse=True)
    output = getattr(hf(**given.kwargs, **extra), "logits", None)
    if output is None or logits == "none":
        return None
    if output.ndim < 3 or lengths is None:
        return output
    if logits == "last":
        return output[torch.arange(output.shape[0], device=output.device), lengths - 1 if pick is None else pick]
    real = torch.arange(output.shape[1], device=output.device) < lengths[:, None]
    return output if bool(real.all()) else output.masked_fill(~real[..., None], torch.nan)


def _no_cache(module: nn.Module) -> dict[str, Any]:
    return {"use_cache": False} if "use_cache" in inspect.signature(module.forward).parameters else {}


def _decoder_axis(
    hf: PreTrainedModel, tokens: Tokens, target: TextOrIds | None, batch: int, device: torch.device
) -> TokenAxis:
    start = getattr(hf.config, "decoder_start_token_id", None)
    if target is None:
        if start is None:
            raise InputDataError(
                "this encoder-decoder names no decoder start token; give target= (decoder text or ids)"
            )
        target = [[int(start)]] * batch
    axis = tokens.axis(target, bos=None, spans=None, device=device)
    if len(axis.ids) != batch:
        raise InputDataError(f"target: wanted {batch} decoder texts, one for each input, got {len(axis.ids)}")
    return axis
