"""The attention interface of transformers, watched: a model's implementation is called through one that tells the observer first.

Needed where the implementation does not end in torch's own attention functions: "eager", flash attention, flex attention, and ours.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from interp.capture.attend import as_mask
from interp.errors import CaptureError
from interp_kernels import Mask

PREFIX = "interp_observed_"
SEEN_BY_TORCH = "sdpa"
PACKED = ("cu_seq_lens_q", "cu_seqlens")


@runtime_checkable
class Teller(Protocol):
    """Where observed calls go; see `interp.capture.observe.Observer`."""

    def tell(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Mask,
        *,
        scale: float | None = None,
        softcap: float | None = None,
        sink_logits: Tensor | None = None,
    ) -> None:
        """Take one call."""
        ...

    def miss(self, why: str) -> None:
        """Note a call that cannot be taken."""
        ...


_teller: ContextVar[Teller | None] = ContextVar("interp_teller", default=None)


@contextmanager
def redirected(model: nn.Module, teller: Teller) -> Iterator[None]:
    """Let every transformers model within `model` tell its attention calls, and give the configs back as they were.

    Only the name of the implementation in the configs changes; a model that uses torch's own function is left alone.
    """
    configs = {id(m.config): m.config for m in model.modules() if isinstance(m, PreTrainedModel)}
    before = {key: config._attn_implementation for key, config in configs.items()}
    token = _teller.set(teller)
    try:
        for key, config in configs.items():
            name = before[key] or "eager"
            if name != SEEN_BY_TORCH and not name.startswith(PREFIX):
                config._attn_implementation_internal = _registered(name)
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = before[key]
        _teller.reset(token)


def _registered(name: str) -> str:
    """The name under which the watched form of an implementation is known to transformers, made known at first use."""
    watched = PREFIX + name
    if watched not in ALL_ATTENTION_FUNCTIONS:

        def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **given: Any) -> Any:
            original = _eager(module) if name == "eager" else ALL_ATTENTION_FUNCTIONS[name]
            _tell(module, query, key, value, mask, eager=name == "eager", **given)
            return original(module, query, key, value, mask, **given)

        AttentionInterface.register(watched, attend)
        if name in ALL_MASK_ATTENTION_FUNCTIONS:
            AttentionMaskInterface.register(watched, ALL_MASK_ATTENTION_FUNCTIONS[name])
    return watched


def _tell(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any,
    *,
    eager: bool,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    sliding_window: int | None = None,
    **rest: Any,
) -> None:
    """Tell the observer of a call in the interface's own arguments."""
    teller = _teller.get()
    if teller is None:
        return
    if any(rest.get(name) is not None for name in PACKED):
        teller.miss("its sequences are packed without padding, which is not watched; use sdpa or eager to see them")
        return
    if mask is not None and not isinstance(mask, Mask) and not (isinstance(mask, Tensor) and mask.ndim == 4):
        if not (isinstance(mask, Tensor) and mask.ndim == 2):
            teller.miss(f"its mask is a {type(mask).__name__}, which is not watched; use sdpa or eager to see it")
            return
        mask = mask[:, None, None].bool().expand(-1, -1, query.shape[2], -1)
    # Without a mask eager attention hides nothing; the others go by their causal flag.
    causal = False if eager else is_causal if is_causal is not None else getattr(module, "is_causal", True)
    structure = as_mask(mask, causal=causal, window=sliding_window, queries=query.shape[2], keys=key.shape[2])
    if position_bias is not None:
        structure = structure.biased(position_bias[:, :, -query.shape[2] :, : key.shape[2]].detach())
    try:
        teller.tell(query, key, value, structure, scale=scaling, softcap=softcap, sink_logits=s_aux)
    except (CaptureError, ValueError, RuntimeError) as error:
        teller.miss(str(error))


def _eager(module: nn.Module) -> Callable[..., Any]:
    """The eager attention function of the file that defines the module, which is what the interface falls back to."""
    found = vars(sys.modules[type(module).__module__]).get("eager_attention_forward")
    if found is None:
        raise CaptureError(
            f"{type(module).__name__} has no eager attention that can be called from outside; load the model with attn_implementation='sdpa'"
        )
    return found
