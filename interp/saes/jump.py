"""JumpReLU and the step function with straight-through gradients for the threshold (Rajamanoharan et al. 2024, arXiv 2407.14435, eq. 11, 12).

With the rectangle K(u) = [|u| < 1/2] as kernel and bandwidth ε, the pseudo-derivatives by the threshold θ are

    d JumpReLU_θ(x) / dθ = - (θ / ε) K((x - θ) / ε)        d [x > θ] / dθ = - (1 / ε) K((x - θ) / ε)

By x, JumpReLU has its own derivative [x > θ], and the step function none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def jumprelu(x: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """x [x > threshold], [token, feature]."""
    out: Any = _Jump.apply(x, threshold, bandwidth)
    return out


def step(x: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """[x > threshold] as numbers, [token, feature]."""
    out: Any = _Step.apply(x, threshold, bandwidth)
    return out


def _kernel(x: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """K((x - θ) / ε) / ε."""
    return ((x - threshold).abs() < bandwidth / 2).to(x.dtype) / bandwidth


class _Jump(torch.autograd.Function):
    """JumpReLU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        """x where it is above the threshold."""
        ctx.save_for_backward(x, threshold)
        ctx.bandwidth = bandwidth
        return x * (x > threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """By x, and by the threshold through the kernel."""
        (g,) = grads
        x, threshold = ctx.saved_tensors
        return g * (x > threshold), -(threshold * _kernel(x, threshold, ctx.bandwidth) * g).sum(0), None


class _Step(torch.autograd.Function):
    """The step function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        """1 where x is above the threshold."""
        ctx.save_for_backward(x, threshold)
        ctx.bandwidth = bandwidth
        return (x > threshold).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """By the threshold alone."""
        (g,) = grads
        x, threshold = ctx.saved_tensors
        return None, -(_kernel(x, threshold, ctx.bandwidth) * g).sum(0), None
