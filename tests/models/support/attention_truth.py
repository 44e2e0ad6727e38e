"""The truth about attention that capture is tested against: dense float64 attention with the masks that transformers itself makes.

`probe` lets a second copy of a model, never hooked by interp, tell what its attention calls look like (mask tensor, soft-cap, sinks,
position bias, scale). `Ear` hears the hooked model's calls. `Spy` is an intervention that changes nothing and sees the calls inside `run`.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from interp.capture.attend import listening
from interp.capture.sites import attention_sites
from interp.models.families import FAMILIES
from interp.models.hooked import wrap
from interp.models.toy import tiny_inputs, tiny_parts

FOX = "The quick brown fox; the quick brown dog!"
TEXTS = (FOX, "a, b, a, b, a", "<bos>Zwölf Boxkämpfer jagen Viktor: 12 + 12 = 24? <eos> quer")
"""Three texts of unequal byte lengths with repeated bytes, punctuation, characters of several bytes and special tokens."""
TARGETS = ("le renard, le chien", "un, deux, un", "was?")


@dataclass(kw_only=True)
class Call:
    """One attention call: tensors [B, H, N, D], `allowed` bool and `bias` float [B or 1, H or 1, Nq, Nk] or None, out [B, H, Nq, Dv]."""

    q: Tensor
    k: Tensor
    v: Tensor
    allowed: Tensor
    bias: Tensor | None
    scale: float
    softcap: float | None
    sink: Tensor | None
    out: Tensor


@dataclass(kw_only=True)
class Dense:
    """Dense attention in float64, every tensor [B, H, Nq, Nk] but `out` [B, H, Nq, Dv] and `lse`, `sink_mass` [B, H, Nq]."""

    scores: Tensor
    allowed: Tensor
    weights: Tensor
    lse: Tensor
    sink_mass: Tensor | None
    out: Tensor


def dense(call: Call) -> Dense:
    """softmax(cap * tanh(scale q.k / cap) + bias) over the allowed keys, a sink's raw logit in the denominator; float64."""
    group = call.q.shape[1] // call.k.shape[1]
    k = call.k.double().repeat_interleave(group, 1)
    v = call.v.double().repeat_interleave(group, 1)
    scores = call.q.double() @ k.transpose(2, 3) * call.scale
    if call.softcap is not None:
        scores = call.softcap * torch.tanh(scores / call.softcap)
    if call.bias is not None:
        scores = scores + call.bias.double()
    allowed = call.allowed.expand_as(scores)
    columns = scores.masked_fill(~allowed, -torch.inf)
    if call.sink is not None:
        raw = call.sink.detach().double()[None, :, None, None].expand(*scores.shape[:3], 1)
        columns = torch.cat([columns, raw], -1)
    lse = columns.logsumexp(-1)
    weights = columns.softmax(-1).nan_to_num()
    sink_mass = None
    if call.sink is not None:
        weights, sink_mass = weights[..., :-1], weights[..., -1]
    return Dense(scores=scores, allowed=allowed, weights=weights, lse=lse, sink_mass=sink_mass, out=weights @ v)


def _probe_attention(module, query, key, value, attention_mask, dropout=0.0, scaling=None, is_causal=None, **kwargs):
    queries, keys = query.shape[2], key.shape[2]
    if attention_mask is None:
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        allowed = torch.ones(queries, keys, dtype=torch.bool)[None, None]
        allowed = allowed.tril() if causal and queries > 1 else allowed
    else:
        allowed = attention_mask[..., :keys] > torch.finfo(attention_mask.dtype).min / 2
    call = Call(
        q=query,
        k=key,
        v=value,
        allowed=allowed,
        bias=kwargs.get("position_bias"),
        scale=query.shape[3] ** -0.5 if scaling is None else float(scaling),
        softcap=kwargs.get("softcap"),
        sink=kwargs.get("s_aux"),
        out=query,
    )
    call.out = dense(call).out.to(query.dtype)
    _probed.append(call)
    return call.out.transpose(1, 2).contiguous(), None


_probed: list[Call] = []
AttentionInterface.register("test-probe", _probe_attention)
AttentionMaskInterface.register("test-probe", eager_mask)


@torch.no_grad()
def probe(hf: Any, inputs: dict[str, Tensor]) -> list[Call]:
    """Every attention call of an unhooked model on `inputs`, in the order of the calls."""
    before = hf.config._attn_implementation
    hf.set_attn_implementation("test-probe")
    _probed.clear()
    try:
        hf(**inputs)
        return list(_probed)
    finally:
        hf.set_attn_implementation(before)
        _probed.clear()


@dataclass
class Ear:
    """A listener that collects nothing and keeps every call with its result."""

    sites: dict[int, Any]
    backend: str = "auto"
    heard: list[tuple[Any, Any]] = field(default_factory=list)

    def wish(self, call):
        return None

    def hear(self, call, attended):
        self.heard.append((call, attended))


@torch.no_grad()
def hear(model: Any, inputs: dict[str, Tensor]) -> list[tuple[Any, Any]]:
    """(call, attended) of every attention call of a hooked model on `inputs`."""
    ear = Ear(attention_sites(model.hf, encoder_decoder=model.is_encoder_decoder), model.backend)
    with listening(ear):
        model.hf(**inputs)
    return ear.heard


@dataclass(eq=False)
class Spy:
    """An intervention that changes nothing and keeps what goes in and what comes out."""

    name: str = "spy"
    phases: frozenset = frozenset({"prefill", "decode"})
    calls: list[Any] = field(default_factory=list)
    outs: list[Tensor] = field(default_factory=list)

    def check(self, *, layers, heads):
        pass

    def acts_on(self, site):
        return True

    def before(self, call):
        self.calls.append(call)
        return call

    def after(self, call, out):
        self.outs.append(out)
        return out


@contextmanager
def spying(model: Any):
    """The calls that the hooked model makes inside."""
    spy = Spy()
    with model.edit(spy):
        yield spy


def eager_twin(family: str) -> Any:
    """The same tiny model (same seed, so same weights), never hooked, with transformers' eager attention."""
    hf = tiny_parts(family).hf
    hf.set_attn_implementation("eager")
    return hf


def hooked(family: str) -> Any:
    """The tiny model of a family, hooked."""
    parts = tiny_parts(family)
    return wrap(parts.hf, parts.tokenizer, source=parts.source)


def padded_inputs(family: str, side: str) -> tuple[dict[str, Tensor], Tensor]:
    """A batch of three examples of 29, 17 and 5 tokens padded on `side`, and where the logits are those of real tokens, bool [B, N]."""
    inputs = tiny_inputs(family, batch=3)
    kind = FAMILIES[family].kind
    if kind == "vision":
        return inputs, torch.ones(3, dtype=torch.bool)
    if kind == "encoder-decoder":
        if "input_ids" in inputs:
            inputs["attention_mask"] = _real((29, 17, 5), inputs["input_ids"].shape[1], side)
        real = _real((14, 11, 3), inputs["decoder_input_ids"].shape[1], side)
        inputs["decoder_attention_mask"] = real
    else:
        real = _real((29, 17, 5), inputs["input_ids"].shape[1], side)
        inputs["attention_mask"] = real
    return inputs, real.bool()


def _real(lengths: tuple[int, ...], longest: int, side: str) -> Tensor:
    real = torch.zeros(len(lengths), longest, dtype=torch.long)
    for row, n in zip(real, lengths, strict=True):
        row[slice(0, n) if side == "right" else slice(longest - n, None)] = 1
    return real


def run_kwargs(family: str, count: int = 3) -> dict[str, Any]:
    """Arguments of `HookedModel.run` for a batch of `count` unequal examples of a family (as many as it can take of unequal length)."""
    kind = FAMILIES[family].kind
    if kind == "vision":
        return {"inputs": tiny_inputs(family, batch=count)["pixel_values"]}
    if family == "whisper":
        return {"inputs": tiny_inputs(family, batch=count)["input_features"], "target": list(TEXTS[:count])}
    if kind == "encoder-decoder":
        return {"inputs": list(TEXTS[:count]), "target": list(TARGETS[:count])}
    return {"inputs": list(TEXTS[:count])}


def forward_kwargs(family: str, tokenizer: Any, kwargs: dict[str, Any], b: int) -> dict[str, Tensor]:
    """The same example as keyword arguments of the Hugging Face model, unpadded, tokenised by its own tokenizer."""
    read = {name: x[b : b + 1] if isinstance(x, Tensor) else torch.tensor([tokenizer(x[b])["input_ids"]])
            for name, x in kwargs.items()}  # fmt: skip
    first = {"vit": "pixel_values", "whisper": "input_features"}.get(family, "input_ids")
    return {{"inputs": first, "target": "decoder_input_ids"}[name]: x for name, x in read.items()}


def item_kwargs(kwargs: dict[str, Any], b: int) -> dict[str, Any]:
    """The arguments for one example of `run_kwargs`, as a run of one."""
    one = {}
    for name, value in kwargs.items():
        one[name] = value[b : b + 1] if isinstance(value, Tensor) else value[b]
    if isinstance(one["inputs"], Tensor) and isinstance(one.get("target"), str):
        one["target"] = [one["target"]]
    return one
