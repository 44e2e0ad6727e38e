"""The direct path of a head: from the stream at a token it attends to, through W_V and W_O, straight to the unembedding.

    logit of t raised by head h at a token whose stream is x:   norm(x) W_V W_O . u_t
    norms = "model"   norm is the norm before the layer's attention, and u_t the unembedding of t pulled back through the linear part of
                      every norm that stands after the head (the model's own computation up to one positive factor per token)
    norms = "none"    norm is the identity and u_t the bare row of W_U

Under grouped queries, W_V is that of the head's key-value head. What the norm and the value bias add is part of "model" only.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from interp.heads.parts import Weights, affine

Norms = Literal["model", "none"]


class DirectPath:
    """The direct paths of every head of a model; computed in float32.

    Args:
        weights: the model's weights.
        norms: see the module.
    """

    def __init__(self, weights: Weights, norms: Norms) -> None:
        self.weights = weights
        self.norms = norms
        self._final = affine(weights.final_norm, weights.unembedding.shape[1])

    @torch.no_grad()
    def values(self, layer: int, x: Tensor) -> Tensor:
        """Value vectors of streams x [n, d] at a layer: float32 [head, n, value]."""
        heads = self.weights.layer(layer)
        if self.norms == "none":
            return torch.einsum("nd,gde->gne", x.float(), heads.values.float())[heads.groups]
        return heads.read(heads.norm(x.to(heads.values.dtype))).float()[heads.groups]

    @torch.no_grad()
    def unembedding(self, ids: Tensor | None = None) -> Tensor:
        """The directions u_t of tokens [t] (None: of the whole vocabulary), as they stand after the last block: float32 [t, d]."""
        rows = self.weights.unembedding if ids is None else self.weights.unembedding[ids]
        return rows.float() if self.norms == "none" else self._final.transposed(rows.float())

    @torch.no_grad()
    def outputs(self, layer: int) -> Tensor:
        """W_O of a layer, with the gain of the norm after its attention where it has one: float32 [head, value, d]."""
        heads = self.weights.layer(layer)
        if self.norms == "none" or heads.after is None:
            return heads.outputs.float()
        return affine(heads.after, heads.outputs.shape[2]).direction(heads.outputs.float())
