"""`AblateHeads`: take heads out of a model in the four ways of the literature, which are not the same thing.

zero      z_h = 0 (Michel et al. 2019, arXiv 1905.10650)
mean      z_h = a mean over other data, global [layer][H, Dv] or per position [layer][H, N, Dv] (IOI: Wang et al. 2023)
resample  z_h = the same head's output on another prompt (causal scrubbing, activation patching)
uniform   attention spread evenly over the visible keys, z_h = mean of their values; what the released code of Wu et al. 2024
          (arXiv 2404.15574) does when it "masks" a head
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from interp.capture.call import AttentionCall, Phase
from interp.capture.edits import head_selector
from interp.capture.sites import Site
from interp.errors import EditError

Head = tuple[int, int]
Kind = Literal["zero", "mean", "resample", "uniform"]
BOTH: frozenset[Phase] = frozenset({"prefill", "decode"})


@dataclass(frozen=True, kw_only=True, eq=False)
class AblateHeads:
    """Ablate (layer, head) pairs of the self-attention.

    Attributes:
        heads: pairs of the model's own numbers, at least one.
        kind: "zero", "mean", "resample" or "uniform".
        replacement: for "mean" and "resample": layer -> z to use, [H, Dv], [H, N, Dv] or [B, H, N, Dv]; see `HookedModel.head_outputs`.
            Replacements with a position axis act on prefill only.
        phases: prefill, decode or both. Keys and values of later layers that are written to the cache are those of the edited model.
    """

    heads: tuple[Head, ...]
    kind: Kind = "zero"
    replacement: Mapping[int, Tensor] | None = None
    phases: frozenset[Phase] = BOTH

    def __post_init__(self) -> None:
        """Check that kind and replacement fit."""
        object.__setattr__(self, "heads", tuple((int(layer), int(head)) for layer, head in self.heads))
        if not self.heads:
            raise EditError("AblateHeads: no heads given; name at least one (layer, head) pair")
        if self.kind not in ("zero", "mean", "resample", "uniform"):
            raise EditError(f"AblateHeads: kind {self.kind!r} is unknown; valid are zero, mean, resample, uniform")
        needs = self.kind in ("mean", "resample")
        if needs != (self.replacement is not None):
            wanted = "needs replacement= (layer -> head outputs)" if needs else "takes no replacement"
            raise EditError(f"AblateHeads: kind {self.kind!r} {wanted}")
        if needs and self.replacement is not None:
            missing = sorted({layer for layer, _ in self.heads} - set(self.replacement))
            if missing:
                raise EditError(f"AblateHeads: replacement has no outputs for layers {missing}")
            by_position = any(z.ndim > 2 for z in self.replacement.values())
            if by_position and "decode" in self.phases:
                object.__setattr__(self, "phases", self.phases - {"decode"})

    @property
    def name(self) -> str:
        """Kind and heads."""
        return f"AblateHeads({self.kind}: {', '.join(f'{layer}.{head}' for layer, head in self.heads)})"

    def check(self, *, layers: int, heads: int) -> None:
        """Raise EditError for pairs outside the model."""
        check_heads("AblateHeads", self.heads, layers, heads)

    def acts_on(self, site: Site) -> bool:
        """Self-attention of the named layers."""
        return site.kind == "self" and any(layer == site.layer for layer, _ in self.heads)

    def before(self, call: AttentionCall) -> AttentionCall:
        """Uniform ablation happens inside the kernel: logits times zero."""
        if self.kind != "uniform":
            return call
        scale = torch.where(self._chosen(call), 0.0, 1.0)[None, :, None]
        return call.with_edit(logit_scale=scale)

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """The other kinds replace z."""
        if self.kind == "uniform":
            return out
        chosen = self._chosen(call)[None, :, None, None]
        if self.kind == "zero" or self.replacement is None:
            return out.masked_fill(chosen, 0.0)
        z = self.replacement[call.site.layer].to(out)
        z = z[:, None] if z.ndim == 2 else z
        z = z if z.ndim == 4 else z[None]
        if z.shape[1] != out.shape[1] or z.shape[2] not in (1, out.shape[2]) or z.shape[0] not in (1, out.shape[0]):
            raise EditError(
                f"AblateHeads: replacement of layer {call.site.layer} has shape {tuple(z.shape)}, the outputs {tuple(out.shape)}"
            )
        return torch.where(chosen, z, out)

    def _chosen(self, call: AttentionCall) -> Tensor:
        return head_selector([h for layer, h in self.heads if layer == call.site.layer], call.heads, call.q.device)


def check_heads(name: str, pairs: Iterable[Head], layers: int, heads: int) -> None:
    """Raise EditError for (layer, head) pairs outside a model with `layers` x `heads` heads."""
    bad = [pair for pair in pairs if not (0 <= pair[0] < layers and 0 <= pair[1] < heads)]
    if bad:
        raise EditError(
            f"{name}: {bad} do not exist; the model has layers 0 to {layers - 1} with heads 0 to {heads - 1}"
        )
