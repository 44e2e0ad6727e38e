"""Two remedies that bound attention logits: a norm on queries and keys (QK-norm), and a soft cap.

QK-norm (Henry et al. 2020, arXiv 2010.04245; with a learned norm in ViT-22B, Dehghani et al. 2023, arXiv 2302.05442, section 2): queries and
keys of every head are normed before they meet, so that with RMS norm and gain g every logit lies within max|g_q g_k| sqrt(size) at
scale size^-1/2, whatever the projections grow to. `QKNorm` is for an attention of your own, `add_qk_norm` puts the norms behind the
projections of a Hugging Face model, before rotary positions, where the models that were trained with one have theirs.

Soft cap (Gemma 2, arXiv 2408.00118, section 2): s -> c tanh(s / c), logits within (-c, c), hence rho_i below 2 c sqrt(n_i).
`soft_cap` is for scores of your own, `SoftCap` caps inside the kernel: `with model.edit(SoftCap(cap=30.0))`.

Either changes the function of a finished model; they are for training, or for finding out what a model owes to its large logits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from interp.capture.call import AttentionCall
from interp.entropy.projections import HeadProjection, query_keys
from interp.errors import EditError, OptionError, UnsupportedModelError
from interp.interventions.where import HeadEdit

Kind = Literal["rms", "layer"]
EPSILON = 1e-6


class HeadNorm(nn.Module):
    """RMSNorm or LayerNorm without bias over one head's features, statistics in float32 at least; one gain for all heads.

    Attributes:
        gain: learned, [size], 1 at first.
        kind, eps: of the norm.
    """

    def __init__(self, size: int, *, kind: Kind = "rms", eps: float = EPSILON) -> None:
        super().__init__()
        if kind not in ("rms", "layer"):
            raise OptionError(f"kind must be rms or layer; got {kind!r}")
        self.gain = nn.Parameter(torch.ones(size))
        self.kind = kind
        self.eps = eps

    def forward(self, x: Float[Tensor, "... size"]) -> Float[Tensor, "... size"]:
        """The normed x, in its dtype."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.kind == "layer":
            wide = wide - wide.mean(-1, keepdim=True)
        wide = wide * (wide.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return (wide * self.gain.to(wide)).to(x.dtype)


class QKNorm(nn.Module):
    """A norm for queries and one for keys: `q, k = norm(q, k)`, the last axis being a head's features.

    Attributes:
        q, k: `HeadNorm` of each.
    """

    def __init__(self, size: int, *, kind: Kind = "rms", eps: float = EPSILON) -> None:
        super().__init__()
        self.q = HeadNorm(size, kind=kind, eps=eps)
        self.k = HeadNorm(size, kind=kind, eps=eps)

    def forward(
        self, q: Float[Tensor, "... size"], k: Float[Tensor, "... size"]
    ) -> tuple[Float[Tensor, "... size"], Float[Tensor, "... size"]]:
        """Normed queries and keys."""
        return self.q(q), self.k(k)

    def bound(self, scale: float | None = None) -> float:
        """Largest logit that any query and key can have: scale size max|g_q g_k|; scale None is size^-1/2, as attention has it."""
        size = len(self.q.gain)
        gains = (self.q.gain.detach() * self.k.gain.detach()).abs().max()
        return float(gains) * size * (size**-0.5 if scale is None else scale)


class ProjectionNorm(nn.Module):
    """A `HeadNorm` on some features of a projection's output; `add_qk_norm` puts it there.

    Attributes:
        norm: of one head.
        rows: features of the output, int64 [head, size].
    """

    rows: Tensor

    def __init__(self, rows: Int[Tensor, "head size"], *, kind: Kind, eps: float) -> None:
        super().__init__()
        self.norm = HeadNorm(rows.shape[1], kind=kind, eps=eps)
        self.register_buffer("rows", rows, persistent=False)

    def forward(self, module: nn.Module, given: Any, output: Tensor) -> Tensor:
        """Called as a forward hook of the projection: its output with the features normed."""
        flat = self.rows.flatten()
        heads = output.index_select(-1, flat).unflatten(-1, tuple(self.rows.shape))
        return output.index_copy(-1, flat, self.norm(heads).flatten(-2))


def add_qk_norm(hf: PreTrainedModel, *, kind: Kind = "rms", eps: float = EPSILON) -> tuple[int, ...]:
    """Put QK-norms behind the projections of every self-attention of a Hugging Face model, in place.

    The norms become submodules of the projections (`q_proj.query_norm`, `k_proj.key_norm`), so that optimizers, checkpoints,
    `.to` and deep copies include them. Add them before the optimizer is built; a checkpoint needs them added before it is loaded.

    Returns:
        The layers that got norms.

    Raises:
        UnsupportedModelError: the projections are not known by name, or the model has norms there already.
    """
    found = query_keys(hf)
    if not found:
        raise UnsupportedModelError(
            f"{type(hf).__name__}: no query and key projections were found by name (interp.entropy.projections); "
            "use QKNorm inside the model's attention instead"
        )
    normed = [layer for layer, x in found.items() if x.normed or _norms_of(x.q) or _norms_of(x.k)]
    if normed:
        raise UnsupportedModelError(f"{type(hf).__name__}: layers {normed} norm their queries or keys already")
    for projections in found.values():
        for name, half in (("query_norm", projections.q), ("key_norm", projections.k)):
            like = next(half.module.parameters())
            made = ProjectionNorm(half.rows, kind=kind, eps=eps).to(device=like.device, dtype=like.dtype)
            half.module.add_module(name, made)
            half.module.register_forward_hook(made)
    return tuple(sorted(found))


def soft_cap(scores: Tensor, cap: float) -> Tensor:
    """cap tanh(scores / cap)."""
    return cap * torch.tanh(scores / cap)


@dataclass(frozen=True, kw_only=True, eq=False)
class SoftCap(HeadEdit):
    """Intervention: s -> c tanh(s / c) in whole layers, inside the kernel, with gradients.

    Attributes:
        cap: c; above 0.
    """

    cap: float

    def __post_init__(self) -> None:
        """Check cap and layers."""
        super().__post_init__()
        if not (math.isfinite(self.cap) and self.cap > 0):
            raise EditError(f"SoftCap: cap must be finite and above 0, got {self.cap}")
        if self.heads is not None:
            raise EditError("SoftCap: a kernel caps all heads of a layer; give layers= instead of heads=")

    @property
    def detail(self) -> str:
        """The cap."""
        return f"{self.cap:g}"

    def before(self, call: AttentionCall) -> AttentionCall:
        """Set the cap. Raises EditError in a layer that has one."""
        if call.softcap is not None:
            raise EditError(
                f"SoftCap: layer {call.site.layer} has a soft cap of {call.softcap:g} already; leave it out with layers="
            )
        return replace(call, softcap=self.cap)


def _norms_of(half: HeadProjection) -> bool:
    return any(isinstance(child, ProjectionNorm) for child in half.module.children())
