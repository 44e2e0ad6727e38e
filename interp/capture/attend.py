"""The attention function that we register with transformers: every layer of a hooked model calls `attend`, which runs `interp_kernels`.

Alone it only attends. While a listener is set it hands each layer's tensors to it, which measures and keeps what was asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from interp.capture.call import AttentionCall, phase_of
from interp.capture.edits import current
from interp.capture.masks import structural_mask
from interp.capture.sites import Site
from interp.errors import CaptureError, UnsupportedModelError
from interp_kernels import Attended, Collect, Mask
from interp_kernels.dispatch import BackendChoice

IMPLEMENTATION = "interp"
"""Our name in transformers' attention and mask interfaces."""


@runtime_checkable
class Listener(Protocol):
    """What a capture session offers to `attend`."""

    backend: BackendChoice
    sites: Mapping[int, Site]

    def wish(self, call: AttentionCall) -> Collect | None:
        """What to collect of this call."""
        ...

    def hear(self, call: AttentionCall, attended: Attended) -> None:
        """Take the result; interventions have acted on the call and on the outputs."""
        ...


_listener: ContextVar[Listener | None] = ContextVar("interp_listener", default=None)


def register() -> None:
    """Make ourselves known to transformers (its public registries); a model uses us only if its config names us."""
    AttentionInterface.register(IMPLEMENTATION, attend)
    AttentionMaskInterface.register(IMPLEMENTATION, structural_mask)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Route every attention call of this context (thread, task) to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def is_listened() -> bool:
    """Whether a listener is set here: something that counts on every attention call coming through `attend`."""
    return _listener.get() is not None


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | Mask | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: q [B, H, Nq, D], k and v [B, Hkv, Nk, D], post-rotary; returns ([B, Nq, H, Dv], None).

    Raises:
        UnsupportedModelError: attention dropout in training, or an argument that would change the result and that we cannot honour.
    """
    if dropout:
        raise UnsupportedModelError(
            f"attention dropout {dropout} is active, which a fused measurement cannot honour; "
            "call model.hf.eval() or set the config's attention dropout to 0"
        )
    unknown = [name for name in ("cu_seq_lens_q", "cu_seqlens", "indices", "cache") if kwargs.get(name) is not None]
    if unknown:
        raise UnsupportedModelError(
            f"{type(module).__name__} passes {', '.join(unknown)} to attention, which interp does not know; please report it"
        )
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    mask = as_mask(attention_mask, causal=causal, window=sliding_window, queries=query.shape[2], keys=key.shape[2])
    if position_bias is not None:
        mask = mask.biased(position_bias[:, :, -query.shape[2] :, : key.shape[2]])
    listener = _listener.get()
    site = _site(module, listener)
    call = AttentionCall(
        site=site,
        phase=phase_of(site, query, key, mask),
        q=query,
        k=key,
        v=value,
        mask=mask,
        scale=scaling,
        softcap=softcap,
        sink_logits=s_aux,
        backend=_backend(listener, position_bias),
    )
    scopes = [scope for scope in current() if id(module) in scope.sites]
    for scope in scopes:
        call = scope.before(call)
    attended = call.attend(None if listener is None else listener.wish(call))
    for scope in scopes:
        attended = replace(attended, out=scope.after(replace(call, lse=attended.lse), attended.out))
    if listener is not None:
        listener.hear(call, attended)
    return attended.out.transpose(1, 2).contiguous(), None


def _backend(listener: Listener | None, position_bias: Tensor | None) -> BackendChoice:
    """The listener's choice; `reference` is the only one that gives gradients of a bias (T5 outside no_grad)."""
    wished = "auto" if listener is None else listener.backend
    return "reference" if wished == "auto" and position_bias is not None and position_bias.requires_grad else wished


def _site(module: nn.Module, listener: Listener | None) -> Site:
    """The site that the listener or an intervention knows this module by; a plain forward needs none."""
    for sites in ((listener.sites,) if listener is not None else ()) + tuple(scope.sites for scope in current()):
        if id(module) in sites:
            return sites[id(module)]
    if listener is not None:
        raise CaptureError(
            f"{type(module).__name__} attends, but interp does not know which layer it is; please report the model's architecture"
        )
    return Site("self", -1)


def as_mask(mask: Tensor | Mask | None, *, causal: bool, window: int | None, queries: int, keys: int) -> Mask:
    """What transformers gives as a mask: ours, a dense tensor of the user's, or None with its causal convention."""
    if isinstance(mask, Mask):
        return mask
    if mask is not None:
        return Mask.dense(mask[:, :, -queries:, :keys])
    # transformers' rule: without a mask a causal module is causal in prefill; one query alone sees every key.
    if causal and queries > 1:
        return Mask.causal(window=window)
    return Mask.full()
