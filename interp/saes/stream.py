"""`Stream`: how the heads of a decoder read from the residual stream and write to it, found by comparing tensors in a short run.

No name of a module is needed: the output projection of a layer is the module that is given exactly z; the norm in front of an attention is the one
that gives exactly what the attention is given; the last norm gives what the unembedding reads. With the division of a norm held at the value
it has ("frozen LayerNorm"), all of these are linear, so what a head writes can be followed to a logit or to a later head's values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from interp.capture.sites import unwrapped
from interp.errors import UnsupportedModelError
from interp.interventions.readout import Readout
from interp.models.blocks import decoder_blocks
from interp.models.hooked import HookedModel

TOKENS = 5
"""Tokens of the short run."""
SAME = 1e-5
"""Relative difference (Frobenius norm) below which two tensors of that run are the same."""
CANCELLED = 1e-2
"""The same for a difference of streams, relative to itself, because it loses digits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """A norm as the linear map that it is while its division is held: x -> ratio (x, centred or not) + bias.

    Attributes:
        ratio: what each feature is multiplied by, [..., d].
        bias: what is added, [d].
        centred: whether the mean is taken off first (LayerNorm; not RMSNorm).
    """

    ratio: Tensor
    bias: Tensor
    centred: bool

    def pulled(self, direction: Tensor) -> Tensor:
        """The direction [..., d] in front of the norm that a direction behind it reads."""
        g = direction * self.ratio
        return g - g.mean(-1, keepdim=True) if self.centred else g


@torch.no_grad()
def held(norm: nn.Module, x: Tensor) -> Held:
    """A norm held at its input x [..., d]."""
    norm, zero = unwrapped(norm), torch.zeros_like(x[..., :1, :])
    bias = norm(zero)
    centred = bool(torch.allclose(norm(zero + 1.0), bias, atol=1e-4))
    given = x - x.mean(-1, keepdim=True) if centred else x
    # A feature that is exactly 0 has no factor, and adds nothing.
    ratio = ((norm(x) - bias) / given).nan_to_num(0.0, 0.0, 0.0)
    return Held(ratio=ratio, bias=bias.flatten(0, -2)[0], centred=centred)


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerParts:
    """Modules of one layer.

    Attributes:
        block: its input and output are the stream.
        attention: the attention module.
        norm: gives what the attention reads.
        output: the output projection W_O.
        mlp: gives what else the block adds to the stream; None if no one module does.
    """

    block: nn.Module
    attention: nn.Module
    norm: nn.Module
    output: nn.Module
    mlp: nn.Module | None

    def written(self, heads: int) -> Tensor:
        """W_O by head, [head, d_head, d]."""
        weight: Any = self.output.weight
        return (weight if isinstance(self.output, Conv1D) else weight.T).detach().unflatten(0, (heads, -1))

    @property
    def bias(self) -> Tensor | None:
        """What the output projection adds, [d]; None without."""
        found: Any = getattr(self.output, "bias", None)
        return None if found is None else found.detach()


class Stream:
    """The parts of a decoder that heads read and write through. Building one runs the model on a few tokens.

    Args:
        model: a decoder whose blocks add attention and MLP to the stream, each behind a norm of its own or a shared one.

    Attributes:
        layers: parts of each layer.
        final_norm: the norm in front of the unembedding.
        unembedding: W_U, [vocabulary, d].

    Raises:
        UnsupportedModelError: a part is not found, or the attention's output passes another norm before it is added (Gemma 2).
    """

    def __init__(self, model: HookedModel) -> None:
        self.model = model
        self.readout = Readout(model)
        self.unembedding: Tensor = self.readout.head.weight.detach()
        blocks = list(decoder_blocks(model))
        vocabulary = len(self.unembedding)
        ids = [(1 + k) * vocabulary // (TOKENS + 2) for k in range(TOKENS)]
        zs: dict[int, Tensor] = {}
        with torch.no_grad(), _watched(unwrapped(model.hf)) as seen:
            model.probe(
                [ids], lambda call, attended: zs.update({call.site.layer: attended.out.transpose(1, 2).flatten(2)})
            )
            states = self.readout.states(torch.tensor([ids]))
        inside = {id(m) for block in blocks for m in block.modules()}
        ends = [m for m, (_, out) in seen.items() if id(m) not in inside and _is_norm(m) and _same(out, states)]
        if not ends:
            raise self._unknown("the norm in front of the unembedding")
        self.final_norm = ends[-1]
        self.layers = tuple(self._parts(block, zs[n], seen) for n, block in enumerate(blocks))

    def lens(self, layer: int, z: Tensor) -> Tensor:
        """What directions of z [n, head x d_head] raise, in logits per unit before the last norm's division: [n, vocabulary].

        The last norm is represented by its gain alone (its division depends on the token), so ranks mean something and sizes do not.
        """
        written = z.to(self.unembedding) @ self.layers[layer].written(self.model.heads).flatten(0, 1)
        ones = torch.ones(1, written.shape[1], dtype=written.dtype)
        ones[:, ::2] = -1.0  # mean 0 and mean square 1: the norm multiplies it by its gain
        gain = held(self.final_norm, ones)
        return (
            (written - written.mean(-1, keepdim=True) if gain.centred else written) * gain.ratio
        ) @ self.unembedding.T

    def _parts(self, block: nn.Module, z: Tensor, seen: dict[nn.Module, tuple[Tensor, Tensor]]) -> LayerParts:
        mine = [m for m in block.modules() if m in seen]
        outputs = [m for m in mine if _matrix(m) and _same(seen[m][0], z)]
        if not outputs:
            raise self._unknown("the output projection of an attention")
        output = outputs[-1]
        written = seen[output][1]
        around = [m for m in mine if output in set(m.modules()) and m is not output and m is not block]
        attention = next((m for m in around if _same(seen[m][1], written)), None)
        if attention is None:
            raise self._unknown("the attention around its output projection")
        norms = [m for m in mine if _is_norm(m)]
        before = next((m for m in norms if _same(seen[m][1], seen[attention][0])), None)
        if before is None:
            raise self._unknown("the norm in front of an attention")
        if any(_same(seen[m][0], written) for m in norms):
            raise self._unknown("an attention that is added to the stream as it is (there is a norm behind it)")
        given, left = seen[block]
        added = (left - given - written).flatten(0, 1)  # OPT's MLP gives [tokens of all texts, d]
        errors = {m: _error(seen[m][1].flatten(0, -2), added) for m in mine if m is not attention and m is not block}
        mlp = min(errors, key=lambda m: errors[m])  # the first of several: the MLP rather than a part of it
        allowed = CANCELLED * float(added.norm()) + SAME * float(left.norm())
        mlp = mlp if errors[mlp] <= allowed else None
        return LayerParts(block=block, attention=attention, norm=before, output=output, mlp=mlp)

    def _unknown(self, what: str) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"{type(self.model.hf).__name__}: {what} was not found, so what its heads write cannot be followed"
        )


@contextmanager
def _watched(root: nn.Module) -> Iterator[dict[nn.Module, tuple[Tensor, Tensor]]]:
    """First input and output of every module that is called, the last call's."""
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = args[0] if args else kwargs.get("hidden_states")
        out = output[0] if isinstance(output, tuple) else output
        if isinstance(given, Tensor) and isinstance(out, Tensor):
            seen[module] = (given, out)

    handles = [m.register_forward_hook(hook, with_kwargs=True) for m in root.modules()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _same(a: Tensor, b: Tensor) -> bool:
    """The same numbers, up to the rounding of a bridge that computes a norm in an order of its own."""
    return _error(a, b) <= SAME * float(b.norm())


def _error(a: Tensor, b: Tensor) -> float:
    """Frobenius norm of the difference, infinite between tensors of other shapes."""
    return float((a - b).norm()) if a.shape == b.shape else float("inf")


def _matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return unwrapped(module) is module and isinstance(weight, Tensor) and weight.ndim == 2


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(unwrapped(module), "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 1
