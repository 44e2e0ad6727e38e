"""`SAE`: a sparse autoencoder of six architectures: encode, decode, reconstruct z in any of its shapes.

z, the attention output before W_O, may come flat, [..., d_in], or by heads, [..., head, d_head] with head x d_head = d_in (as
TransformerLens' hook_z has it: [batch, token, head, d_head]; `interp.saes.core.by_token` brings [batch, head, token, d_head] there).
Features are [..., d_sae] either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from interp.errors import OptionError, ShapeError
from interp.saes.architectures import KINDS, SHARED, shapes
from interp.saes.config import BY_BATCH, CHOOSES_K, SAEConfig

LAYER_NORM_EPSILON = 1e-5
"""Added to the standard deviation (not to the variance), as SAELens does."""
SMALLEST_NORM = 1e-8
"""Floor of a decoder row's norm where it divides, as in SAELens."""


class SAE(nn.Module):
    """A sparse autoencoder.

    Args:
        config: what it is.
        weights: by name, each of the shape that `interp.saes.architectures.shapes` says; cast to the configuration's dtype.

    Attributes:
        W_enc: [d_in, d_sae]; column i reads feature i.
        W_dec: [d_sae, d_in]; row i is what feature i writes; rows h d_head ... of it belong to head h.
        b_dec: [d_in].

    Raises:
        ShapeError: weights that are missing, unknown or of another shape.
    """

    W_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter

    def __init__(self, config: SAEConfig, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        wanted = shapes(config)
        wrong = [
            f"{name}: wanted {wanted.get(name, 'none')}, got {tuple(weights[name].shape) if name in weights else 'none'}"
            for name in sorted({*wanted, *weights})
            if name not in weights or wanted.get(name) != tuple(weights[name].shape)
        ]
        if wrong:
            raise ShapeError(f"weights of a {config.architecture} autoencoder: {'; '.join(wrong)}")
        self.config = config
        for name in wanted:
            own = weights[name].detach().to(config.torch_dtype).clone(memory_format=torch.contiguous_format)
            self.register_parameter(name, nn.Parameter(own))

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights by name."""
        return dict(self.named_parameters())

    # ------------------------------------------------------------------ what it computes
    def encode(self, z: Tensor) -> Tensor:
        """Features [..., d_sae] of z [..., d_in] or [..., head, d_head].

        Raises:
            ShapeError: z is neither.
        """
        x, _ = self._inputs(z)
        return KINDS[self.config.architecture].activate(self.project(x), self.weights, self.config)

    def project(self, x: Tensor) -> Tensor:
        """p = (x - b_dec) W_enc of normalised inputs [..., d_in]; without b_dec where the configuration says so."""
        return (x - self.b_dec if self.config.apply_b_dec_to_input else x) @ self.W_enc

    def decode(self, features: Tensor, *, like: Tensor | None = None) -> Tensor:
        """Reconstruct from features [..., d_sae].

        Args:
            features: as `encode` gives them.
            like: the z that they came from: the result has its shape, and its normalisation is undone. None gives [..., d_in].

        Raises:
            OptionError: the autoencoder normalises its inputs, and `like` is missing.
        """
        if like is None and self.config.normalize_activations != "none":
            raise OptionError(
                f"this autoencoder reads inputs normalised by {self.config.normalize_activations}; give decode(..., like=z) to undo it"
            )
        if self.config.rescale_acts_by_decoder_norm:
            features = features / self.W_dec.norm(dim=-1)
        out = features @ self.W_dec + self.b_dec
        if like is None:
            return out
        _, (shift, scale) = self._inputs(like)
        return (out * scale + shift).reshape(like.shape)

    def forward(self, z: Tensor) -> Tensor:
        """The reconstruction of z, in its shape."""
        return self.decode(self.encode(z), like=z)

    # ------------------------------------------------------------------ the same function in other weights
    @torch.no_grad()
    def folded(self) -> SAE:
        """The same reconstruction with decoder rows of norm 1; features are then in units of what they write.

        Raises:
            OptionError: it keeps the k largest features regardless of those norms, so that it would choose others.
        """
        config = self.config
        if config.architecture in CHOOSES_K and not config.rescale_acts_by_decoder_norm:
            raise OptionError(
                "decoder norms cannot be folded into an autoencoder that keeps the k largest regardless of them: it would choose others"
            )
        w, norms = self.weights, self.W_dec.norm(dim=-1).clamp(min=SMALLEST_NORM)
        # r_mag multiplies what W_enc gives already; every other weight of a feature is in the units of its pre-activation.
        own = {name: w[name] if name == "r_mag" else w[name] * norms for name in w if name not in SHARED}
        changed = {"W_enc": w["W_enc"] * norms, "W_dec": w["W_dec"] / norms[:, None], "b_dec": w["b_dec"], **own}
        return SAE(replace(config, rescale_acts_by_decoder_norm=False), changed)

    @torch.no_grad()
    def unscaled(self, factor: float, *, keep: Literal["features", "decoder"] = "features") -> SAE:
        """The same autoencoder for inputs that are not multiplied by `factor` first.

        Args:
            factor: what inputs were multiplied by.
            keep: "features" leaves them what they were, in units of the multiplied inputs, as SAELens does; "decoder" leaves W_dec what it
                was, so that features are in units of z.

        Raises:
            OptionError: its decoder norms are not folded yet.
        """
        if self.config.rescale_acts_by_decoder_norm:
            raise OptionError("fold the decoder norms first: a scale changes the units in which features are chosen")
        w = self.weights
        changed = {**w, "b_dec": w["b_dec"] / factor}
        if keep == "features":
            changed |= {"W_enc": w["W_enc"] * factor, "W_dec": w["W_dec"] / factor}
        else:  # pre-activations shrink with the inputs, so everything that is added to or compared with them must
            changed |= {name: w[name] / factor for name in w if name not in (*SHARED, "r_mag")}
        return SAE(self.config, changed)

    def with_threshold(self, threshold: float) -> SAE:
        """A batch kind as JumpReLU with one threshold, so that a token's features no longer depend on its batch.

        Raises:
            OptionError: it is no batch kind, or its decoder norms are not folded yet.
        """
        config = self.config
        if config.architecture not in BY_BATCH or config.rescale_acts_by_decoder_norm:
            raise OptionError(
                f"one threshold is for the architectures {', '.join(BY_BATCH)} with folded decoder norms; this is {config.architecture}"
            )
        one = torch.full((config.d_sae,), threshold, dtype=config.torch_dtype, device=self.W_enc.device)
        return SAE(replace(config, architecture="jumprelu", k=None, widths=()), {**self.weights, "threshold": one})

    # ------------------------------------------------------------------ shapes
    def _inputs(self, z: Tensor) -> tuple[Tensor, tuple[Tensor | float, Tensor | float]]:
        """z flat, in the weights' dtype and normalised, and the shift and scale that undo it."""
        x = self._flat(z).to(self.config.torch_dtype)
        if self.config.normalize_activations == "layer_norm":
            mean = x.mean(-1, keepdim=True)
            deviation = (x - mean).std(-1, keepdim=True)
            # The scale back leaves the epsilon out, as SAELens does.
            return (x - mean) / (deviation + LAYER_NORM_EPSILON), (mean, deviation)
        if self.config.normalize_activations == "constant_norm_rescale":
            factor = self.config.d_in**0.5 / x.norm(dim=-1, keepdim=True)
            return x * factor, (0.0, 1.0 / factor)
        return x, (0.0, 1.0)

    def _flat(self, z: Tensor) -> Tensor:
        if z.shape[-1] == self.config.d_in:
            return z
        if z.ndim >= 2 and z.shape[-2] * z.shape[-1] == self.config.d_in:
            return z.flatten(-2)
        raise ShapeError(
            f"z: wanted [..., {self.config.d_in}], or [..., head, d_head] with head x d_head = {self.config.d_in}; got {tuple(z.shape)}"
        )


def by_token(z: Tensor) -> Tensor:
    """Head outputs [batch, head, token, d_head], as `HookedModel.head_outputs` gives them, as flat z [batch, token, head x d_head]."""
    if z.ndim != 4:
        raise ShapeError(f"z: wanted [batch, head, token, d_head], got {tuple(z.shape)}")
    return z.transpose(1, 2).flatten(2)
