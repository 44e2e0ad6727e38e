"""Spectral norms of heads' query and key weights, by problems of the head's size.

With W_Q, W_K [d, size] of a head and their thin QR decompositions W = Q R, the Q factors are isometries, so

    ||W_Q W_K^T||_2 = ||R_Q R_K^T||_2        (size x size instead of d x d)

This is the sigma of the entropy bound of Zhai et al. (2023, theorem 3.1) for inputs of unit norm, before the softmax's scale. Rotary positions
put a rotation between the two, under which only the product ||W_Q||_2 ||W_K||_2 is a bound: both are given. Biases, and a norm on queries or
keys (QK-norm, which bounds the logits by itself), are not part of either. Cost: two QR decompositions of d x size per head, no forward pass.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def qk_spectral_norm(
    w_q: Float[Tensor, "*head width size"], w_k: Float[Tensor, "*head width size"]
) -> Float[Tensor, "*head"]:
    """||W_Q W_K^T||_2 of every head; float32 at least. Differentiable where the largest singular value is simple."""
    return torch.linalg.matrix_norm(_triangle(w_q) @ _triangle(w_k).mT, ord=2)


def qk_norm_product(
    w_q: Float[Tensor, "*head width size"], w_k: Float[Tensor, "*head width size"]
) -> Float[Tensor, "*head"]:
    """||W_Q||_2 ||W_K||_2 of every head: never below `qk_spectral_norm`, and a bound under any rotation between queries and keys."""
    return torch.linalg.matrix_norm(_triangle(w_q), ord=2) * torch.linalg.matrix_norm(_triangle(w_k), ord=2)


def _triangle(weight: Tensor) -> Tensor:
    """The R factor of the thin QR decomposition."""
    return torch.linalg.qr(weight.to(torch.promote_types(weight.dtype, torch.float32)), mode="r").R
