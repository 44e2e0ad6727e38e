"""The transformer that the experiments train: small, plain, its attention in the one call that monitors see.

Pre-norm blocks of attention and a GELU feed-forward layer, or post-norm as in the first transformers; learned positions; no biases in
attention. Causal for text, bidirectional with a class token for images. `attention="sigmoid"` is the control without sinks: every key has
its own weight sigmoid(s + b), b = -log n for n visible keys, and nothing is normalised (Ramapuram et al. 2025; Gu et al. 2025, section 7).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

Attention = Literal["softmax", "sigmoid"]
Norm = Literal["pre", "post", "none"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a transformer.

    Attributes:
        width: of the residual stream.
        layers, heads: counts; heads divides width.
        tokens: longest input, the class token of images included.
        causal: whether rows see only keys up to their own.
        attention: "softmax" or "sigmoid" (without normalisation).
        norm: where layer norms stand: before each sub-layer, behind each residual sum, or nowhere but at the end.
        qk_norm: whether queries and keys are RMS-normalised per head, with learned gains (Dehghani et al. 2023).
        qk_gain: factor on the initial weights of queries and keys.
    """

    width: int
    layers: int
    heads: int
    tokens: int
    causal: bool
    attention: Attention = "softmax"
    norm: Norm = "pre"
    qk_norm: bool = False
    qk_gain: float = 1.0


class SelfAttention(nn.Module):
    """Multi-head self-attention. `first_share` is filled by the sigmoid form while `watched`: see `sigmoid_attention`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(shape.width, shape.width, bias=False) for _ in range(4)
        )
        size = shape.width // shape.heads
        self.q_norm = nn.RMSNorm(size) if shape.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(size) if shape.qk_norm else nn.Identity()
        with torch.no_grad():
            for proj in (self.q_proj, self.k_proj):
                proj.weight *= shape.qk_gain
        self.watched = False
        self.first_share: Tensor | None = None

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Attend."""
        q, k, v = (
            proj(x).unflatten(-1, (self.shape.heads, -1)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = self.q_norm(q), self.k_norm(k)
        if self.shape.attention == "sigmoid":
            z, share = sigmoid_attention(q, k, v, causal=self.shape.causal)
            if self.watched:
                self.first_share = share.detach()
        else:
            z = F.scaled_dot_product_attention(q, k, v, is_causal=self.shape.causal)
        return self.o_proj(z.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """One layer: attention and a feed-forward layer of four times the width, each added to the stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm = shape.norm
        self.attention = SelfAttention(shape)
        self.up, self.down = nn.Linear(shape.width, 4 * shape.width), nn.Linear(4 * shape.width, shape.width)
        self.norms = nn.ModuleList(
            nn.Identity() if shape.norm == "none" else nn.LayerNorm(shape.width) for _ in range(2)
        )

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Add what the layer has to say."""
        first, second = self.norms
        if self.norm == "post":
            x = first(x + self.attention(x))
            return second(x + self.down(F.gelu(self.up(x))))
        x = x + self.attention(first(x))
        return x + self.down(F.gelu(self.up(second(x))))


class Transformer(nn.Module):
    """Blocks between an embedding and a linear read-out.

    Args:
        shape: sizes.
        embed: turns a batch into [batch, token, width].
        outputs: number of logits.
        read: "each" position (text) or the "first" (the class token).
    """

    def __init__(self, shape: Shape, embed: nn.Module, *, outputs: int, read: Literal["each", "first"]) -> None:
        super().__init__()
        self.shape, self.embed, self.read = shape, embed, read
        self.positions = nn.Parameter(0.02 * torch.randn(shape.tokens, shape.width))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, outputs)

    def forward(self, x: Tensor) -> Float[Tensor, "batch ... outputs"]:
        """Logits: [batch, token, outputs] where each position is read, [batch, outputs] where the first is."""
        x = self.embed(x)
        x = x + self.positions[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x if self.read == "each" else x[:, 0])


class Patches(nn.Module):
    """Non-overlapping square patches of one-channel images, each a token, behind a class token."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.project = nn.Linear(patch * patch, width)
        self.class_token = nn.Parameter(0.02 * torch.randn(width))

    def forward(self, images: Float[Tensor, "batch height wide"]) -> Float[Tensor, "batch token width"]:
        """Cut and project."""
        p = self.patch
        cut = images.unfold(1, p, p).unfold(2, p, p).flatten(3).flatten(1, 2)
        return torch.cat([self.class_token.expand(len(images), 1, -1), self.project(cut)], dim=1)


def language_model(shape: Shape, vocabulary: int) -> Transformer:
    """A decoder over token ids."""
    embed = nn.Embedding(vocabulary, shape.width)
    nn.init.normal_(embed.weight, std=0.02)
    return Transformer(shape, embed, outputs=vocabulary, read="each")


def image_model(shape: Shape, *, patch: int, classes: int) -> Transformer:
    """A vision transformer."""
    return Transformer(shape, Patches(patch, shape.width), outputs=classes, read="first")


def sigmoid_attention(
    q: Float[Tensor, "batch head query size"],
    k: Float[Tensor, "batch head key size"],
    v: Float[Tensor, "batch head key size"],
    *,
    causal: bool,
) -> tuple[Float[Tensor, "batch head query size"], Float[Tensor, "batch head query"]]:
    """sum_j sigmoid(s_ij - log n_i) v_j over the n_i visible keys, and the first key's share |w_i0| / sum_j |w_ij| of each row.

    The share is the proxy of Gu et al. for attention that is not normalised. Dense: O(N^2) memory, for the experiments' short texts.
    """
    queries, keys = q.shape[2], k.shape[2]
    count = torch.arange(1, queries + 1, device=q.device) if causal else torch.full((queries,), keys, device=q.device)
    s = q @ k.mT * q.shape[-1] ** -0.5 - count.log()[:, None]
    w = torch.sigmoid(s)
    if causal:
        w = w.tril()
    return w @ v, w[..., 0] / w.sum(-1)


def token_loss(
    logits: Float[Tensor, "batch token vocabulary"], targets: Int[Tensor, "batch token"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats per token."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
