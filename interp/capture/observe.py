"""Watch the attention of any torch model while it runs, without changing what it computes: `observing(model, hear)`.

Three doors are watched: torch's ``scaled_dot_product_attention`` and ``nn.MultiheadAttention`` by a `TorchFunctionMode` (nothing is assigned into
torch), and transformers' attention interface for models whose implementation is not one of these ("eager", flash attention, ours). The
module's fast path for evaluation leaves torch's Python and would be invisible, so it is off inside the context; compiled parts run eagerly.

`hear` gets each call as the kernels take it, detached, before dropout. What attends by hand, or in a form that the kernels do not know, is
not missed silently: `Observer.unseen` names each module with the reason. A measurement that fails is such a reason; the model runs on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from interp.capture.call import AttentionCall, BackendChoice, phase_of
from interp.capture.interface import redirected
from interp.capture.masks import with_padding
from interp.capture.sites import Site
from interp.capture.torch_module import heads_of_module
from interp.errors import CaptureError
from interp_kernels import Mask

# A measurement that fails (a mask that no kernel takes, memory) must not end a training.
FAILURES = (CaptureError, ValueError, RuntimeError)
BY_HAND = "it attends by hand; use scaled_dot_product_attention in it, or transformers' attention interface"


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """One attention call.

    Attributes:
        path: of the innermost watched module that made the call, as in `model.named_modules()`.
        call: as the kernels take it; its site's layer is the number of the path in the order of first calls.
    """

    path: str
    call: AttentionCall

    def narrow(self, sequences: int) -> Seen:
        """The same call of the first items of the batch."""
        call = self.call
        if sequences >= call.q.shape[0]:
            return self
        q, k, v = (x[:sequences] for x in (call.q, call.k, call.v))
        mask = call.mask.narrow(slice(0, sequences), slice(0, call.heads))
        return replace(self, call=replace(call, q=q, k=k, v=v, mask=mask))


Hear = Callable[[Seen], None]


@dataclass(eq=False)
class Observer:
    """What `observing` gives: the calls heard so far and what could not be seen.

    Attributes:
        hear: gets every call.
        backend: which kernel backend the calls ask for.
        layers: path -> layer number, in the order of the first calls; keeps numbers from one context to the next when handed on.
        unseen: path -> why the attention of that module was not heard.
        heard: number of calls heard.
        inside: paths of the modules that run now, the outermost first.
    """

    hear: Hear
    backend: BackendChoice = "auto"
    layers: dict[str, int] = field(default_factory=dict[str, int])
    unseen: dict[str, str] = field(default_factory=dict[str, str])
    heard: int = 0
    inside: list[str] = field(default_factory=lambda: [""])

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
        """Hand on one call: q [B, H, Nq, D], k and v [B, Hkv, Nk, D]."""
        path = self.inside[-1]
        crosses = not mask.is_causal and q.shape[2] != k.shape[2]
        site = Site("cross" if crosses else "self", self.layers.setdefault(path, len(self.layers)))
        with torch.no_grad(), torch.autocast(q.device.type, enabled=False):
            # Autocast may leave keys of another precision than queries (norms run in float32).
            call = AttentionCall(
                site=site, phase=phase_of(site, q, k, mask), q=q.detach(), k=k.detach().to(q.dtype), v=v.detach().to(q.dtype),
                mask=mask, scale=scale, softcap=softcap, sink_logits=None if sink_logits is None else sink_logits.detach(),
                backend=self.backend,
            )  # fmt: skip
            self.hear(Seen(path=path, call=call))
        self.heard += 1

    def miss(self, why: str) -> None:
        """Note that the module that runs now attends where we do not see it."""
        self.unseen[self.inside[-1]] = why


@contextmanager
def observing(
    model: nn.Module,
    hear: Hear,
    *,
    backend: BackendChoice = "auto",
    layers: dict[str, int] | None = None,
) -> Iterator[Observer]:
    """Hear every attention call that the model makes in this thread while the context is open.

    Args:
        model: any module; it computes what it always computes, dropout and random numbers included.
        hear: gets each call, under no_grad. Let it keep no tensors of the call: they hold the layer's activations.
        backend: which kernel backend the calls shall ask for.
        layers: layer numbers of an earlier context, so that they stay the same; changed in place.

    Yields:
        The observer; its `unseen` is complete when the context has closed.
    """
    observer = Observer(hear, backend, {} if layers is None else layers)
    with ExitStack() as stack:
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        for handle in _follow(model, observer):
            stack.callback(handle.remove)
        stack.enter_context(redirected(model, observer))
        stack.enter_context(_Watch(observer))
        yield observer


class _Watch(TorchFunctionMode):
    """Sees the calls of torch's attention functions; every function runs as it would."""

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self.observer = observer

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            self._note(_sdpa, args, given)
        elif func is F.multi_head_attention_forward:
            self._note(heads_of_module, args, given)
        return func(*args, **given)

    def _note(self, read: Callable[..., tuple[Tensor, Tensor, Tensor, Mask, float | None]], *call: Any) -> None:
        args, kwargs = call
        try:
            with torch.no_grad():
                q, k, v, mask, scale = read(*args, **kwargs)
            self.observer.tell(q, k, v, mask, scale=scale)
        except FAILURES as error:
            self.observer.miss(str(error))


def _sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Mask, float | None]:
    """The arguments of torch's function (its signature) as the kernels take them."""
    if any(x.is_nested for x in (query, key, value)):
        raise CaptureError("its tensors are nested (ragged); pad them to see its attention")
    q, k, v = (_four_axes(x) for x in (query, key, value))
    if attn_mask is not None:
        return q, k, v, mask_of(attn_mask, queries=q.shape[2], keys=k.shape[2]), scale
    # torch puts row 0 at key 0, also where there are more keys than rows.
    return q, k, v, Mask.causal(offset=0) if is_causal else Mask.full(), scale


def mask_of(given: Tensor, *, queries: int, keys: int) -> Mask:
    """A dense mask as torch takes it (bool, True = visible, or additive; it broadcasts), as structure where only keys are hidden.

    Raises:
        CaptureError: more axes than [batch, head, query, key].
    """
    if given.ndim > 4:
        raise CaptureError(f"its mask has the shape {tuple(given.shape)}; wanted [batch, head, query, key] at most")
    mask = given.detach()[(None,) * (4 - given.ndim)]
    over_keys = mask.shape[2] == 1 or mask.stride(2) == 0
    if mask.dtype == torch.bool and over_keys and mask.shape[1] == 1 and queries == keys:
        return with_padding(Mask.full(), mask[:, 0, 0].expand(-1, keys), queries)
    return Mask.dense(mask.expand(-1, -1, queries, keys))


def _four_axes(x: Tensor) -> Tensor:
    """[..., N, D] as [B, H, N, D]: without an axis of heads one head, leading axes joined."""
    if x.ndim == 2:
        return x[None, None]
    return x[:, None] if x.ndim == 3 else x.flatten(0, x.ndim - 4)


def _follow(model: nn.Module, observer: Observer) -> Iterator[Any]:
    """Hooks that keep the path of the module that runs, and notice an attention module that ran without a call."""
    for path, module in model.named_modules():
        # Activation, linear and other layers of torch make no attention call; the root has no path.
        own = type(module).__module__.startswith("torch.nn.modules") and not any(True for _ in module.children())
        if not path or own:
            continue
        attends = "attention" in type(module).__name__.lower()
        starts: list[tuple[int, int]] = []

        def enter(module: nn.Module, args: object, *, path: str = path, starts: list[tuple[int, int]] = starts) -> None:
            starts.append((observer.heard, len(observer.unseen)))
            observer.inside.append(path)

        def leave(
            module: nn.Module,
            args: object,
            out: object,
            *,
            attends: bool = attends,
            starts: list[tuple[int, int]] = starts,
        ) -> None:
            if not starts:  # hooked while it ran
                return
            silent = starts.pop() == (observer.heard, len(observer.unseen))
            if attends and silent and out is not None:  # None: it raised
                observer.miss(BY_HAND)
            observer.inside.pop()

        yield module.register_forward_pre_hook(enter)
        yield module.register_forward_hook(leave, always_call=True)
