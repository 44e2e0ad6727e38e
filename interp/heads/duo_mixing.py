"""A model whose heads mix full and streaming attention by gates, as DuoAttention trains it (Xiao et al. 2024, arXiv 2410.10819, section 2.2).

Streaming attention of a call sees the first `sinks` keys and the last `window` keys, the row's own included; keys keep their positions, as
in the paper's training. One gate a per key-value head mixes the outputs of the query heads that share it, before W_O:

    O = a O_full + (1 - a) O_streaming

Nothing is N x N: both outputs come from the kernels, and gradients reach the gates through the kernels' own.
A layer whose own sliding window is shorter than the text streams already; it has nothing to mix and is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from interp.capture.call import AttentionCall, BackendChoice, Phase
from interp.capture.sites import Site
from interp.errors import EditError, OptionError, UnsupportedModelError
from interp.models.hooked import HookedModel

PREFILL: frozenset[Phase] = frozenset({"prefill"})


def check_sizes(sinks: int, window: int) -> None:
    """Raise OptionError unless there are no or some sinks and a window that holds the row's own key."""
    if sinks < 0 or window < 1:
        raise OptionError(f"wanted sinks >= 0 and window >= 1 (a row's own key), got {sinks} and {window}")


def is_local(call: AttentionCall) -> bool:
    """Whether the layer's own sliding window hides keys of this call."""
    return call.mask.window is not None and call.mask.window < call.keys


def streamed(call: AttentionCall, sinks: int, window: int) -> AttentionCall:
    """The same call with sink-and-window attention in every head.

    Raises:
        UnsupportedModelError: attention that sees later tokens, which has no recent keys.
        EditError: an intervention gave the call sinks and a window already.
    """
    if not call.mask.is_causal and not call.mask.is_dense:
        raise UnsupportedModelError("streaming attention is defined for causal attention; this model sees later tokens")
    if call.mask.head_windows is not None:
        raise EditError(
            f"layer {call.site.layer} has sinks and a window of an intervention; measure streaming without that intervention"
        )
    return replace(call, mask=call.mask.sink_window(sinks, window))


@dataclass(frozen=True, kw_only=True, eq=False)
class GateMix:
    """The intervention that mixes full and streaming outputs.

    Attributes:
        gates: float [layer, key-value head], 1 for full attention; a leaf with gradient when they are trained.
        sinks, window: of the streaming attention.
        full: layer -> full outputs [1, H, N, Dv] to mix in, of another pass over the same tokens; None takes the call's own.
        backend: which kernel backend to ask for.
        phases: prefill, where streaming is a mask and needs no cache.
    """

    gates: Tensor
    sinks: int
    window: int
    full: Mapping[int, Tensor] | None = None
    backend: BackendChoice = "auto"
    phases: frozenset[Phase] = PREFILL

    @property
    def name(self) -> str:
        """What it is, with its sizes."""
        return f"GateMix({self.sinks} sinks, window {self.window})"

    def check(self, *, layers: int, heads: int) -> None:
        """Raise EditError if the gates are not [layer, key-value head] of the model."""
        shape = tuple(self.gates.shape)
        if len(shape) != 2 or shape[0] != layers or not shape[1] or heads % shape[1]:
            raise EditError(
                f"GateMix: wanted gates [{layers}, key-value heads] where the heads divide {heads}, got shape {shape}"
            )

    def acts_on(self, site: Site) -> bool:
        """Every self-attention."""
        return site.kind == "self"

    def before(self, call: AttentionCall) -> AttentionCall:
        """With full outputs given, the call itself streams."""
        call = replace(call, backend=self.backend)
        return call if self.full is None or is_local(call) else streamed(call, self.sinks, self.window)

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """The mixture, in the dtype of the outputs."""
        if is_local(call):
            return out
        if self.full is None:
            full, stream = out, streamed(call, self.sinks, self.window).attend(None).out
        else:
            full, stream = self.full[call.site.layer], out
        gates = self.gates[call.site.layer]
        share = gates.repeat_interleave(call.heads // len(gates))[None, :, None, None]
        return (share * full + (1 - share) * stream).to(out.dtype)


def key_heads(model: HookedModel) -> int:
    """Key-value heads of each layer.

    Raises:
        UnsupportedModelError: layers differ.
    """
    found = sorted({call.k.shape[1] for call in _calls(model)})
    if len(found) != 1:
        raise UnsupportedModelError(f"gates need layers with equal numbers of key-value heads; this model has {found}")
    return found[0]


def own_windows(model: HookedModel) -> dict[int, int | None]:
    """The sliding window of each layer, None without one."""
    return {call.site.layer: call.mask.window for call in _calls(model)}


def _calls(model: HookedModel) -> list[AttentionCall]:
    """A call of each layer, on two tokens."""
    calls: list[AttentionCall] = []
    with torch.no_grad():
        model.probe([0, 0], lambda call, attended: calls.append(call))
    return calls


def teacher_states(model: HookedModel, ids: Sequence[int]) -> tuple[Tensor, dict[int, Tensor]]:
    """Final hidden states [N, d] (behind the last norm) of the model as it is, and the outputs of its attention by layer; no gradients."""
    states: list[Tensor] = []
    outputs: dict[int, Tensor] = {}
    hook = model.hf.base_model.register_forward_hook(
        lambda module, given, output: states.append(output.last_hidden_state[0])
    )
    try:
        with torch.no_grad():
            model.probe(list(ids), lambda call, attended: outputs.update({call.site.layer: attended.out}))
    finally:
        hook.remove()
    return states[0], outputs


def student_states(model: HookedModel, ids: Sequence[int], mix: GateMix, *, recompute: bool = False) -> Tensor:
    """Final hidden states [N, d] of the model under `mix`, with gradients to the gates alone.

    Args:
        model: its parameters must be frozen (`frozen`) until the gradients are taken.
        ids: tokens.
        mix: gates and sizes.
        recompute: keep only the states between blocks, and run each block again for its gradients: a third more time, far less memory.
    """
    blocks = recomputed(model.hf, lambda: model.edit(mix)) if recompute else nullcontext()
    tokens = torch.tensor([list(ids)], device=model.device)
    with model.edit(mix), blocks:
        return model.hf.base_model(input_ids=tokens, use_cache=False).last_hidden_state[0]


@contextmanager
def frozen(hf: nn.Module) -> Iterator[None]:
    """No parameter of the model asks for a gradient inside."""
    asked = [p for p in hf.parameters() if p.requires_grad]
    try:
        for p in asked:
            p.requires_grad_(False)
        yield
    finally:
        for p in asked:
            p.requires_grad_(True)


@contextmanager
def recomputed(hf: nn.Module, again: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """Forward passes inside keep only what goes from block to block; the backward pass runs each block once more, inside `again()`.

    transformers' own switch would also put the blocks into training mode, where some families drop out.

    Raises:
        UnsupportedModelError: the model has no blocks that transformers can recompute.
    """
    blocks: list[Any] = [m for m in hf.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not blocks:
        raise UnsupportedModelError(
            f"{type(hf).__name__} has no blocks that can be recomputed; keep all activations (memory='keep')"
        )
    try:
        for block in blocks:
            block.forward = partial(
                checkpoint, block.forward, use_reentrant=False, context_fn=lambda: (nullcontext(), again())
            )
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)
