"""`SAEConfig`: what a sparse autoencoder is, apart from its weights. The names are those of SAELens' `cfg.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch

from interp.errors import OptionError

Architecture = Literal["standard", "gated", "topk", "batchtopk", "jumprelu", "matryoshka_batchtopk"]
Normalisation = Literal["none", "layer_norm", "constant_norm_rescale"]
Reshape = Literal["none", "hook_z"]

CHOOSES_K = ("topk", "batchtopk", "matryoshka_batchtopk")
"""Architectures that keep the k largest features."""
BY_BATCH = ("batchtopk", "matryoshka_batchtopk")
"""Those that choose them over all tokens of a batch together; on disk they are JumpReLU with one threshold."""
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True, eq=False)
class SAEConfig:
    """A sparse autoencoder x -> f -> x̂ apart from its weights.

    Attributes:
        architecture: how features come from the encoder; see `interp.saes.architectures`.
        d_in: length of what is read; for z of all heads, heads x d_head, head-major (head h owns d_head numbers from h d_head on).
        d_sae: number of features.
        k: features kept per token: whole for "topk", on average over a batch for the batch kinds; None for the others.
        widths: nested dictionary sizes of "matryoshka_batchtopk", increasing, the last one d_sae; empty for the others.
        apply_b_dec_to_input: whether the encoder reads x - b_dec and not x.
        normalize_activations: what is done to each x before the encoder and undone behind the decoder: "layer_norm" takes mean and
            standard deviation off, "constant_norm_rescale" makes the norm √d_in.
        rescale_acts_by_decoder_norm: features count in units of their decoder rows' norms when the k largest are chosen.
        reshape_activations: "hook_z" says that the file is for z by heads; it changes no number here (see `interp.saes.core`).
        dtype: of the weights.
        metadata: what the file says of its origin: model_name, hook_name ...

    Raises:
        OptionError: values that do not go together; the message says which.
    """

    architecture: Architecture
    d_in: int
    d_sae: int
    k: int | float | None = None
    widths: tuple[int, ...] = ()
    apply_b_dec_to_input: bool = True
    normalize_activations: Normalisation = "none"
    rescale_acts_by_decoder_norm: bool = False
    reshape_activations: Reshape = "none"
    dtype: str = "float32"
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        """Check the values."""
        for name, value, known in (
            ("architecture", self.architecture, get_args(Architecture)),
            ("normalize_activations", self.normalize_activations, get_args(Normalisation)),
            ("reshape_activations", self.reshape_activations, get_args(Reshape)),
            ("dtype", self.dtype, tuple(DTYPES)),
        ):
            if value not in known:
                raise OptionError(f"{name} must be one of {', '.join(known)}; got {value!r}")
        if self.d_in < 1 or self.d_sae < 1:
            raise OptionError(f"d_in and d_sae must be at least 1; got {self.d_in} and {self.d_sae}")
        if (self.k is not None) != (self.architecture in CHOOSES_K):
            raise OptionError(f"k is for the architectures {', '.join(CHOOSES_K)} and needed there; got {self.k}")
        if self.k is not None and not 0 < self.k <= self.d_sae:
            raise OptionError(f"k must be above 0 and at most d_sae = {self.d_sae}; got {self.k}")
        if self.architecture == "topk" and self.k != int(self.k or 0):
            raise OptionError(f"k of a topk autoencoder is a whole number of features per token; got {self.k}")
        nested = self.architecture == "matryoshka_batchtopk"
        if bool(self.widths) != nested:
            raise OptionError(f"widths are for matryoshka_batchtopk and needed there; got {self.widths}")
        if nested and (
            sorted(set(self.widths)) != list(self.widths) or self.widths[0] < 1 or self.widths[-1] != self.d_sae
        ):
            raise OptionError(f"widths must increase from at least 1 to d_sae = {self.d_sae}; got {self.widths}")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return DTYPES[self.dtype]
