"""Weights of a model's heads: values, outputs, norms, embedding and unembedding, read off the Hugging Face modules.

Everything is the model's own tensors (views where the layout allows), never a folded or centred copy; per-head shapes are those of the
literature: W_V [d, value], W_O [value, d], and a row vector x is multiplied from the left, x W_V W_O.

The effective embedding e(s) of a token s (Gould et al. 2023, arXiv 2312.09230) stands for what later layers see of it. Four variants,
because the literature uses several and they do not agree:

    embed            E[s], the token embedding (without position)
    mlp              MLP0(norm(E[s])), the paper's
    embed+mlp        E[s] + MLP0(norm(E[s]))
    embed+attn+mlp   what block 0 leaves if every head attends to the token itself: x = E[s] + Attn0(s), then x + MLP0(norm(x))
                     (E[s] + Attn0(s) + MLP0(norm(E[s])) where attention and MLP are parallel, as in Pythia)

Where the blocks are parallel the first three are exact parts of the stream; where they are sequential MLP0 never sees E[s] alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from interp.capture.sites import unwrapped
from interp.heads.layouts import Layout

Embedding = Literal["embed", "mlp", "embed+mlp", "embed+attn+mlp"]


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerHeads:
    """Weights of the heads of one layer, in the model's dtype. Query head h reads key-value head h // (heads / groups).

    Attributes:
        values: W_V [group, d, value]; `value_bias` [group, value] or None.
        value_bias: see `values`.
        outputs: W_O [head, value, d]; `output_bias` [d] (of the layer, not of a head) or None.
        output_bias: see `outputs`.
        norm: the norm before the attention.
        after: norm of the attention's output before it is added to the stream, None without.
    """

    values: Tensor
    value_bias: Tensor | None
    outputs: Tensor
    output_bias: Tensor | None
    norm: nn.Module
    after: nn.Module | None

    @property
    def groups(self) -> Tensor:
        """The key-value head of each query head, int64 [head]."""
        return torch.arange(self.outputs.shape[0]) // (self.outputs.shape[0] // self.values.shape[0])

    def read(self, x: Tensor) -> Tensor:
        """Values of streams that have been through the norm: [n, d] -> [group, n, value], biases included."""
        v = torch.einsum("nd,gde->gne", x, self.values.to(x.dtype))
        return v if self.value_bias is None else v + self.value_bias.to(x.dtype)[:, None]

    def write(self, z: Tensor) -> Tensor:
        """What the layer's heads write together: z [head, n, value] -> [n, d], bias included, before `after`."""
        out = torch.einsum("hne,hed->nd", z, self.outputs.to(z.dtype))
        return out if self.output_bias is None else out + self.output_bias.to(z.dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class Affine:
    """What is left of a norm when its division by a standard deviation (a positive number) is taken out.

    Attributes:
        gain: float64 [d].
        bias: float64 [d].
        centred: whether the mean is taken off first (LayerNorm; not RMSNorm).
    """

    gain: Tensor
    bias: Tensor
    centred: bool

    def direction(self, x: Tensor) -> Tensor:
        """x [..., d] through the linear part: centred if the norm centres, times the gain."""
        x = x - x.mean(-1, keepdim=True) if self.centred else x
        return x * self.gain.to(x)

    def transposed(self, u: Tensor) -> Tensor:
        """The u' [..., d] with x . u' = direction(x) . u for every x."""
        u = u * self.gain.to(u)
        return u - u.mean(-1, keepdim=True) if self.centred else u


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """Weights of a decoder, by layer and as a whole; see `interp.heads.weights.read_weights`.

    Attributes:
        layout: which row of `interp.heads.layouts.LAYOUTS` fits.
        hf: the Hugging Face model.
        parallel: whether MLP and attention read the same stream.
        blocks: the blocks, in order.
        heads: query heads per layer.
    """

    layout: Layout
    hf: Any
    parallel: bool
    blocks: tuple[nn.Module, ...]
    heads: int

    @property
    def final_norm(self) -> nn.Module:
        """The norm before the unembedding."""
        return inner(self.hf, self.layout.final_norm)

    @property
    def unembedding(self) -> Tensor:
        """W_U, [vocabulary, d]: row t is the direction that raises the logit of token t."""
        return self.hf.get_output_embeddings().weight

    def attention(self, layer: int) -> nn.Module:
        """The attention module of a layer."""
        return outer(self.blocks[layer], self.layout.attention)

    def layer(self, layer: int) -> LayerHeads:
        """The heads of one layer."""
        module, block, row = self.attention(layer), self.blocks[layer], self.layout
        output, values = inner(module, row.output), inner(module, row.values)
        outputs = _matrix(output).unflatten(0, (self.heads, -1))
        size = outputs.shape[1]
        return LayerHeads(
            values=row.cut(_matrix(values), self.heads, size).transpose(0, 1),
            value_bias=None if values.bias is None else row.cut(values.bias[None], self.heads, size)[0],
            outputs=outputs,
            output_bias=output.bias,
            norm=inner(block, row.attention_norm),
            after=None if row.after_attention is None else inner(block, row.after_attention),
        )

    @torch.no_grad()
    def embed(self, ids: Sequence[int] | Tensor) -> Tensor:
        """E[s] of token ids [n], with the model's own scaling and without positions: [n, d], in the model's dtype."""
        table = self.hf.get_input_embeddings()
        return table(torch.as_tensor(ids, device=table.weight.device))

    @torch.no_grad()
    def mlp(self, x: Tensor, layer: int = 0) -> Tensor:
        """What the MLP of a layer adds to the stream when it reads x [n, d], its norms included."""
        block, row = self.blocks[layer], self.layout
        x = inner(block, row.mlp_norm)(x[None])
        for path in row.mlp:
            x = inner(block, path)(x)
            x = x[0] if isinstance(x, tuple) else x  # experts also give their router's scores
        x = x if row.after_mlp is None else inner(block, row.after_mlp)(x)
        return x[0]

    @torch.no_grad()
    def attend_to_self(self, x: Tensor, layer: int = 0) -> Tensor:
        """What the attention of a layer adds to the stream x [n, d] if every head attends to the token itself with all its weight."""
        heads = self.layer(layer)
        out = heads.write(heads.read(heads.norm(x))[heads.groups])
        return out if heads.after is None else heads.after(out)

    @torch.no_grad()
    def effective_embedding(self, ids: Sequence[int] | Tensor, embedding: Embedding) -> Tensor:
        """e(s) of token ids [n] in one of the four variants (see the module): float32 [n, d]."""
        x = self.embed(ids)
        if embedding == "embed":
            return x.float()
        if embedding == "embed+attn+mlp":
            attended = x + self.attend_to_self(x)
            return (attended + self.mlp(x if self.parallel else attended)).float()
        added = self.mlp(x)
        return (added if embedding == "mlp" else x + added).float()


@torch.no_grad()
def affine(norm: nn.Module, size: int) -> Affine:
    """The linear part of a norm over `size` features, found by what it does to three vectors; LayerNorm and RMSNorm of any convention."""
    weight = next(norm.parameters(), torch.zeros(1))
    large = torch.full((1, size), 1e3, dtype=weight.dtype, device=weight.device)
    bias = norm(torch.zeros_like(large))[0].double()
    centred = bool((norm(large)[0].double() - bias).abs().max() < 1e-2)
    large[:, 1::2] *= -1
    x = large[0].double()
    x = x - x.mean() if centred else x
    gain = (norm(large)[0].double() - bias) * x.square().mean().sqrt() / x
    return Affine(gain=gain, bias=bias, centred=centred)


def outer(module: nn.Module, path: str) -> Any:
    """The submodule at a path as it is called, in what a TransformerLens bridge may have put around it."""
    for name in path.split("."):
        module = getattr(unwrapped(module), name)
    return module


def inner(module: nn.Module, path: str) -> Any:
    """The submodule at a path as transformers made it, without a bridge's hooks."""
    return unwrapped(outer(module, path))


def _matrix(module: nn.Module) -> Tensor:
    """The weight of a projection as [in, out]."""
    weight: Any = module.weight
    return weight if isinstance(module, Conv1D) else weight.T
