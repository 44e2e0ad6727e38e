"""`AblateHeads`: take heads out of a model in the four ways of the literature, which are not the same thing.

zero      z_h = 0 (Michel et al. 2019, arXiv 1905.10650)
mean      z_h = a mean over other data, global [layer][H, Dv] or per position [layer][H, N, Dv] (IOI: Wang et al. 2023)
resample  z_h = the same head's output on another prompt (causal scrubbing, activation patching)
uniform   attention spread evenly over the visible keys, z_h = mean of their values; what the released code of Wu et al. 2024
          (arXiv 2404.15574) does when it "masks" a head
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from interp.capture.call import AttentionCall
from interp.errors import EditError
from interp.interventions.where import HeadEdit

Kind = Literal["zero", "mean", "resample", "uniform"]


@dataclass(frozen=True, kw_only=True, eq=False)
class AblateHeads(HeadEdit):
    """Ablate (layer, head) pairs of the self-attention; `heads` must name at least one.

    Attributes:
        kind: "zero", "mean", "resample" or "uniform".
        replacement: for "mean" and "resample": layer -> z to use, [H, Dv], [H, N, Dv] or [B, H, N, Dv]; see `HookedModel.head_outputs`.
            Replacements with a position axis hold for a prompt only: decoding under them is an error, unless phases leave it out.
    """

    kind: Kind = "zero"
    replacement: Mapping[int, Tensor] | None = None

    def __post_init__(self) -> None:
        """Check that kind and replacement fit."""
        if not self.heads:
            raise EditError("AblateHeads: no heads given; name at least one (layer, head) pair")
        super().__post_init__()
        if self.kind not in ("zero", "mean", "resample", "uniform"):
            raise EditError(f"AblateHeads: kind {self.kind!r} is unknown; valid are zero, mean, resample, uniform")
        needs = self.kind in ("mean", "resample")
        if needs != (self.replacement is not None):
            wanted = "needs replacement= (layer -> head outputs)" if needs else "takes no replacement"
            raise EditError(f"AblateHeads: kind {self.kind!r} {wanted}")
        if self.replacement is not None:
            missing = sorted({layer for layer, _ in self.heads} - set(self.replacement))
            if missing:
                raise EditError(f"AblateHeads: replacement has no outputs for layers {missing}")

    @property
    def detail(self) -> str:
        """The kind."""
        return self.kind

    def before(self, call: AttentionCall) -> AttentionCall:
        """Uniform ablation happens inside the kernel: logits times zero."""
        if self.kind != "uniform":
            return call
        scale = torch.where(self.chosen(call), 0.0, 1.0)[None, :, None]
        return call.with_edit(logit_scale=scale)

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """The other kinds replace z."""
        if self.kind == "uniform":
            return out
        chosen = self.chosen(call)[None, :, None, None]
        if self.kind == "zero" or self.replacement is None:
            return out.masked_fill(chosen, 0.0)
        z = self.replacement[call.site.layer].to(out)
        if z.ndim > 2:
            self.need_prefill(call, "its replacement has an output for every position of a prompt")
        z = z[:, None] if z.ndim == 2 else z
        z = z if z.ndim == 4 else z[None]
        if z.shape[1] != out.shape[1] or z.shape[2] not in (1, out.shape[2]) or z.shape[0] not in (1, out.shape[0]):
            raise EditError(
                f"AblateHeads: replacement of layer {call.site.layer} has shape {tuple(z.shape)}, the outputs {tuple(out.shape)}"
            )
        return torch.where(chosen, z, out)
