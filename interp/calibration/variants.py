"""One-head variants of a model: what a prompt's answer would be with one head calibrated, for many heads at little cost.

Three ways to the same number, the gain of a head (change of the right option's log-probability):

- screen, one backward for all heads: gain ~ <d logprob / d z_h, z'_h - z_h>, z' the outputs of the calibrated head on the queries, keys and values
  of the unchanged run. First order in the step z' - z: exact as it goes to 0, a ranking otherwise.
- batched variants, exact: the residual stream at the entrance of a layer is kept, and the model runs from there with the variants along the batch
  axis, each with z'_h in the place of z_h. Layers below are not run again; heads of one layer see the same queries, keys and values in all
  variants, so their z' come from one call.
- `model.edit` and a whole run, which both are tested against.

Cost for P prompts of N tokens: the screen keeps a graph of P N tokens; the variants keep [P, N, d] for each wanted layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from interp.calibration.methods import Method
from interp.capture.call import AttentionCall, Phase
from interp.capture.sites import Site
from interp.errors import CaptureError
from interp.interventions.readout import Readout
from interp.models.blocks import decoder_blocks
from interp.models.hooked import HookedModel
from interp.tasks.prompt import Prompt

OPTIONS = "options"
"""Name of the choices that a calibration task judges by."""
TOKENS = 4096
"""Tokens of one pass of variants, all variants together."""
SAME = 1e-3
"""Largest relative difference of last states between a whole run and one begun in the middle."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Base:
    """Prompts of one length, run once without a change.

    Attributes:
        ids: int64 [P, N].
        states: last state of each prompt, [P, d].
        entered: layer -> what the block below it gave out (its own structure around [P, N, d]), for layers from 1 on.
        outputs: layer -> head outputs z [P, H, N, Dv].
        calibrated: layer -> z' of every head by setting, [S, P, H, N, Dv].
    """

    ids: Tensor
    states: Tensor
    entered: dict[int, Any]
    outputs: dict[int, Tensor]
    calibrated: dict[int, Tensor]


def option_scores(readout: Readout, prompts: Sequence[Prompt], states: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of the right option among a prompt's options, and whether it has the largest logit: float and bool [P].

    Args:
        readout: of the model.
        prompts: with choices "options" that hold the answer's first token.
        states: last states [P, d], with gradients or without.
    """
    logits = readout.logits(states)
    logprob, correct = [], []
    for prompt, row in zip(prompts, logits, strict=True):
        options = prompt.choices[OPTIONS]
        among = row[list(options)].log_softmax(-1)
        right = options.index(prompt.answer[0])
        logprob.append(among[right])
        correct.append(among.argmax() == right)
    return torch.stack(logprob), torch.stack(correct)


def screen(
    readout: Readout, prompts: Sequence[Prompt], method: Method, layers: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """First-order gain of calibrating each head alone, by one backward pass.

    Args:
        readout: of the model.
        prompts: of one length.
        method: what calibrating means; all its settings.
        layers: where.

    Returns:
        gain, float32 [P, layer, head, setting], nats; log-probability and correctness of the right option as the model is, [P] each.
    """
    tap = _Tap(method, layers, with_gradients=True)
    with torch.enable_grad(), readout.model.edit(tap):
        states = readout.states(_ids(prompts))[:, -1]
        logprob, correct = option_scores(readout, prompts, states)
        # One number whose gradient keeps the prompts apart: none of them reads another.
        gradients = torch.autograd.grad(logprob.sum(), [tap.nudges[layer] for layer in layers])
    gains = [
        torch.einsum("phnd,sphnd->phs", g.float(), (tap.calibrated[layer] - tap.outputs[layer]).float())
        for layer, g in zip(layers, gradients, strict=True)
    ]
    return torch.stack(gains, 1), logprob.detach(), correct


@torch.no_grad()
def base_run(readout: Readout, prompts: Sequence[Prompt], method: Method, layers: Sequence[int]) -> Base:
    """Run prompts of one length, and keep what their variants in some layers start from."""
    blocks = decoder_blocks(readout.model)
    entered: dict[int, Any] = {}

    def keep(layer: int) -> Any:
        def hook(block: nn.Module, given: Any, output: Any) -> None:
            entered[layer] = _mapped(output, Tensor.clone)

        return hook

    handles = [blocks[layer - 1].register_forward_hook(keep(layer)) for layer in layers if layer]
    tap = _Tap(method, layers, with_gradients=False)
    ids = _ids(prompts)
    try:
        with readout.model.edit(tap):
            states = readout.states(ids)[:, -1]
    finally:
        for handle in handles:
            handle.remove()
    return Base(ids=ids, states=states.clone(), entered=entered, outputs=tap.outputs, calibrated=tap.calibrated)


@torch.no_grad()
def variant_states(readout: Readout, base: Base, layer: int, changes: Sequence[tuple[int, int] | None]) -> Tensor:
    """Last states of the prompts with one head changed: [V, P, d].

    Args:
        readout: of the model.
        base: from `base_run`, with this layer.
        layer: of the heads.
        changes: (head, number of the setting) of each variant; None changes nothing.
    """
    prompts, tokens = base.ids.shape
    room = max(1, TOKENS // (prompts * tokens))
    found = []
    for first in range(0, len(changes), room):
        some = changes[first : first + room]
        count = len(some)
        swap = _Swap(layer, base, some)
        entrance = _mapped(base.entered[layer], lambda x, n=count: x.repeat(n, *[1] * (x.ndim - 1))) if layer else None
        with _entering(readout.model, layer, entrance), readout.model.edit(swap):
            states = readout.states(base.ids.repeat(count, 1))[:, -1]
        found.append(states.reshape(count, prompts, -1))
    return torch.cat(found)


def check_entrance(readout: Readout, base: Base, layer: int) -> None:
    """See that a run begun at a layer's entrance ends where the whole run did.

    Raises:
        CaptureError: it does not, so this architecture cannot be searched from the middle.
    """
    again = variant_states(readout, base, layer, [None])[0].double()
    difference = float((again - base.states.double()).norm() / base.states.double().norm())
    if not difference < SAME:
        raise CaptureError(
            f"{type(readout.model.hf).__name__}: a run begun at layer {layer} ends elsewhere (relative difference {difference:.2g}): something but "
            "the residual stream passes between its layers, so variants of its heads cannot be searched"
        )


class _Tap:
    """An intervention that changes nothing: it keeps z of each layer, and z' of every head under every setting."""

    name = "tap"
    phases: frozenset[Phase] = frozenset({"prefill"})

    def __init__(self, method: Method, layers: Sequence[int], *, with_gradients: bool) -> None:
        self.method = method
        self.layers = frozenset(layers)
        self.with_gradients = with_gradients
        self.outputs: dict[int, Tensor] = {}
        self.calibrated: dict[int, Tensor] = {}
        self.nudges: dict[int, Tensor] = {}

    def check(self, *, layers: int, heads: int) -> None:
        """Nothing can be out of range that the search has not checked."""

    def acts_on(self, site: Site) -> bool:
        """Self-attention of the wanted layers."""
        return site.kind == "self" and site.layer in self.layers

    def before(self, call: AttentionCall) -> AttentionCall:
        """Take z' from the call as it is, changed by the method alone."""
        layer = call.site.layer
        heads = tuple((layer, h) for h in range(call.heads))
        with torch.no_grad():
            here = replace(call, q=call.q.detach(), k=call.k.detach(), v=call.v.detach())
            found = [_output(self.method.one(heads, setting), here) for setting in self.method.settings]
        self.calibrated[layer] = torch.stack(found)
        return call

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """Keep z; add a zero of which the gradient is that of z (z itself may have none, if no parameter wants one)."""
        layer = call.site.layer
        self.outputs[layer] = out.detach()
        if not self.with_gradients:
            return out
        self.nudges[layer] = torch.zeros_like(out, requires_grad=True)
        return out + self.nudges[layer]


def _output(edit: Any, call: AttentionCall) -> Tensor:
    """Head outputs of a call under one more intervention."""
    changed = edit.before(replace(call, memory={}))
    attended = changed.attend(None)
    return edit.after(replace(changed, lse=attended.lse), attended.out)


class _Swap:
    """An intervention that gives each variant on the batch axis one head's z' for z."""

    name = "swap"
    phases: frozenset[Phase] = frozenset({"prefill"})

    def __init__(self, layer: int, base: Base, changes: Sequence[tuple[int, int] | None]) -> None:
        self.layer = layer
        self.base = base
        self.changes = changes

    def check(self, *, layers: int, heads: int) -> None:
        """Nothing can be out of range that the search has not checked."""

    def acts_on(self, site: Site) -> bool:
        """Self-attention of the layer."""
        return site == Site("self", self.layer)

    def before(self, call: AttentionCall) -> AttentionCall:
        """Nothing on the way in."""
        return call

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """Put the z' in their places."""
        prompts = len(self.base.ids)
        swapped = self.base.outputs[self.layer].repeat(len(self.changes), 1, 1, 1)
        for number, change in enumerate(self.changes):
            if change is not None:
                head, setting = change
                mine = slice(number * prompts, (number + 1) * prompts)
                swapped[mine, head] = self.base.calibrated[self.layer][setting, :, head]
        return swapped


class _Passed(nn.Module):
    """Stands in for a block that is not run: gives out what is wanted at the entrance of a later one."""

    def __init__(self, block: nn.Module, output: Any) -> None:
        super().__init__()
        self.block = (block,)  # in a tuple, or it would be a submodule
        self.output = output

    def __getattr__(self, name: str) -> Any:
        """What the model's loop reads off its blocks is the block's own."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(vars(self)["block"][0], name)

    def forward(self, *given: Any, **options: Any) -> Any:
        """The output, whatever came in."""
        return self.output


@contextmanager
def _entering(model: HookedModel, layer: int, entrance: Any) -> Iterator[None]:
    """Let passes begin at a layer: the blocks below stand aside, and are back on exit and on error."""
    blocks = decoder_blocks(model)
    below = list(blocks[:layer])
    try:
        for number, block in enumerate(below):
            blocks[number] = _Passed(block, entrance)
        yield
    finally:
        for number, block in enumerate(below):
            blocks[number] = block


def _ids(prompts: Sequence[Prompt]) -> Tensor:
    return torch.tensor([prompt.ids for prompt in prompts])


def _mapped(output: Any, change: Any) -> Any:
    """A block's output, a tensor or a tuple of them and other things, with every tensor changed."""
    if isinstance(output, tuple):
        return tuple(_mapped(x, change) for x in output)
    return change(output) if isinstance(output, Tensor) else output
