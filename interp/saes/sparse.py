"""Codes of which few are not 0, as sparse matrices: what makes a training step of the k kinds cheap on a CPU.

Only the encoder's product x W_enc is dense. With s active features per token, decoding is S W_dec, its gradients are Sᵀ g for the decoder
and the s products g · W_dec[i] that exist for the codes, and the encoder's gradient is S_gᵀ x: 2 s d_in operations each instead of
2 d_sae d_in. Measured on one thread for 1,024 x 576, d_sae 2,304, s 32: the dense products take about 85 ms each, these 2 to 12 ms.
S is in torch's compressed row layout; its products need the vendor's library, so `supported` says where they are taken.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def supported(x: Tensor) -> bool:
    """Whether the sparse products exist for tensors like this one."""
    return x.device.type == "cpu" and torch.backends.mkl.is_available() and x.dtype in (torch.float32, torch.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pattern:
    """Which features of which tokens are kept, rows in order and features ascending within each.

    Attributes:
        starts: where each token's features begin, int64 [token + 1].
        feature: number of each kept feature, int64 [kept].
        token: its token, int64 [kept].
        features: number of features there are.
        turned: the order by feature, int64 [kept].
        turned_starts: where each feature's tokens begin in that order, int64 [feature + 1].
    """

    starts: Tensor
    feature: Tensor
    token: Tensor
    features: int
    turned: Tensor
    turned_starts: Tensor

    @staticmethod
    def of(token: Tensor, feature: Tensor, *, tokens: int, features: int) -> Pattern:
        """The pattern of these pairs, sorted by token, then feature."""
        turned = feature.argsort(stable=True)
        return Pattern(
            starts=_starts(token, tokens),
            feature=feature,
            token=token,
            features=features,
            turned=turned,
            turned_starts=_starts(feature, features),
        )

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return len(self.starts) - 1

    def matrix(self, values: Tensor) -> Tensor:
        """[token, feature] with these values where something is kept."""
        return _csr(self.starts, self.feature, values, (self.tokens, self.features))

    def turned_matrix(self, values: Tensor) -> Tensor:
        """Its transpose, [feature, token]."""
        shape = (self.features, self.tokens)
        return _csr(self.turned_starts, self.token[self.turned], values[self.turned], shape)


def picked(x: Tensor, weights: tuple[Tensor, Tensor, Tensor], pre: Tensor, pattern: Pattern) -> Tensor:
    """The kept ones of the pre-activations `pre` = x W_enc + b_enc, [kept], with gradients for the weights.

    Args:
        x: what the encoder reads, b_dec taken off already, [token, d_in]; it gets no gradient of its own.
        weights: W_enc, b_enc, and the b_dec that was taken off (one that wants no gradient where none was).
        pre: the product, computed without gradients, [token, feature].
        pattern: which of it.
    """
    out: Any = _Picked.apply(x.detach(), *weights, pre, pattern)
    return out


def decoded(values: Tensor, w_dec: Tensor, pattern: Pattern) -> Tensor:
    """S W_dec [token, d_in] of values [kept], with gradients for both."""
    out: Any = _Decoded.apply(values, w_dec, pattern)
    return out


class _Picked(torch.autograd.Function):
    """Choose entries of a product; the gradient goes to the chosen ones alone."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_enc: Tensor, b_enc: Tensor, b_dec: Tensor, pre: Tensor, pattern: Pattern
    ) -> Tensor:
        """pre[token, feature] of every kept pair."""
        ctx.save_for_backward(x, w_enc)
        ctx.pattern = pattern
        return pre[pattern.token, pattern.feature]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of W_enc, b_enc and b_dec."""
        (g,) = grads
        x, w_enc = ctx.saved_tensors
        pattern: Pattern = ctx.pattern
        by_feature = torch.zeros(pattern.features, dtype=g.dtype).index_add_(0, pattern.feature, g)
        d_enc = (pattern.turned_matrix(g) @ x).T.contiguous()
        d_dec = -(w_enc @ by_feature) if ctx.needs_input_grad[3] else None
        return None, d_enc, by_feature, d_dec, None, None


class _Decoded(torch.autograd.Function):
    """A sparse matrix of codes times the decoder."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, w_dec: Tensor, pattern: Pattern) -> Tensor:
        """S W_dec."""
        ctx.save_for_backward(values, w_dec)
        ctx.pattern = pattern
        return pattern.matrix(values) @ w_dec

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the codes and of W_dec."""
        (g,) = grads
        values, w_dec = ctx.saved_tensors
        pattern: Pattern = ctx.pattern
        d_values = torch.sparse.sampled_addmm(
            pattern.matrix(torch.zeros_like(values)), g.contiguous(), w_dec.T, beta=0.0
        ).values()
        return d_values, pattern.turned_matrix(values) @ g, None


def _starts(numbers: Tensor, count: int) -> Tensor:
    """Where each number begins in a sorted list of them (and where the last ends), int64 [count + 1]."""
    starts = torch.zeros(count + 1, dtype=torch.int64, device=numbers.device)
    starts[1:] = torch.bincount(numbers, minlength=count).cumsum(0)
    return starts


def _csr(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Sparse CSR tensor support"
        )  # said once per process, as of torch 2.13
        # `Pattern.of` sorts and counts, so the invariants hold; checking them each time costs more than the products.
        return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)
