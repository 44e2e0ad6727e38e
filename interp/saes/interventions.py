"""Interventions on the features of an autoencoder, for `with model.edit(...)`: splice it in, ablate, clamp or steer features.

With f = encode(z), x̂ = decode(f) and the error e = z - x̂, a feature intervention puts

    z' = decode(f') + e        error="keep": only what the changed features write is changed
    z' = decode(f')            error="drop": the model also loses what the autoencoder does not explain

in the place of z, the output of one layer's attention before W_O (Kissane et al. 2024, arXiv 2406.17759; Templeton et al. 2024, "Scaling
Monosemanticity", for clamping). With nothing changed and the error kept, the model computes what it did, up to rounding. Features are counted
as `SAE.encode` gives them. Two of these on one layer act one after the other: the second encodes what the first has left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from interp.capture.call import AttentionCall
from interp.errors import EditError
from interp.interventions.places import Positions, check_positions, members
from interp.interventions.where import HeadEdit
from interp.saes.config import BY_BATCH
from interp.saes.core import SAE, by_token

Error = Literal["keep", "drop"]
Clamp = Literal["always", "active"]
SHOWN = 6
"""Features that a name lists."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SpliceSAE(HeadEdit):
    """Put an autoencoder into one layer, at every token or at some. By itself it changes no feature.

    Attributes:
        sae: reads z of all heads of the layer; a batch kind needs a threshold first (`SAE.with_threshold`).
        error: whether what the autoencoder does not explain is added back.
        positions: tokens to act on, None: all.
        layers: the one layer.

    Raises:
        EditError: heads, or no one layer; an autoencoder whose features depend on the batch; an unknown choice.
    """

    sae: SAE
    error: Error = "keep"
    positions: Positions | None = None

    def __post_init__(self) -> None:
        """Check layer, autoencoder and choices."""
        super().__post_init__()
        if self.heads is not None or self.layers is None or len(self.layers) != 1:
            raise EditError(f"{self.title}: wanted layers=(layer,), the one layer whose z the autoencoder reads")
        if self.error not in get_args(Error):
            raise EditError(f"{self.title}: error must be one of {', '.join(get_args(Error))}; got {self.error!r}")
        if self.sae.config.architecture in BY_BATCH:
            raise EditError(
                f"{self.title}: features of a {self.sae.config.architecture} autoencoder depend on the batch; "
                "give sae.with_threshold(...)"
            )
        if self.positions is not None:
            check_positions(self.title, self.positions)

    @property
    def detail(self) -> str:
        """What happens to the error, where it is not kept."""
        return "" if self.error == "keep" else "error dropped"

    def changed(self, features: Tensor) -> Tensor:
        """The features to decode [..., d_sae] in place of those encoded."""
        return features

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """z with the autoencoder in it, at the chosen tokens."""
        chosen = members(self.positions, call.row_positions())
        if not bool(chosen.any()):
            return out
        flat = by_token(out)
        if flat.shape[-1] != self.sae.config.d_in:
            raise EditError(
                f"{self.name}: the autoencoder reads {self.sae.config.d_in} numbers, z of this layer has {flat.shape[-1]}; "
                "is it of this model?"
            )
        features = self.sae.encode(flat)
        new = self.sae.decode(self.changed(features), like=flat)
        if self.error == "keep":
            new = new + (flat - self.sae.decode(features, like=flat))
        new = torch.where(chosen[..., None], new.to(out.dtype), flat)
        return new.unflatten(2, (out.shape[1], out.shape[3])).transpose(1, 2)

    def check_features(self, features: Iterable[int]) -> None:
        """In __post_init__ of the kinds: raise EditError for no features, or some that the autoencoder does not have."""
        numbers = list(features)
        if bad := [f for f in numbers if not 0 <= f < self.sae.config.d_sae]:
            raise EditError(f"{self.title}: no features {bad}; there are 0 to {self.sae.config.d_sae - 1}")
        if not numbers or len(set(numbers)) < len(numbers):
            raise EditError(f"{self.title}: wanted at least one feature, each once; got {numbers}")


@dataclass(frozen=True, kw_only=True, eq=False)
class AblateFeatures(SpliceSAE):
    """Set features to 0. (Their mean in its place is `ClampFeatures(values={feature: mean, ...})`.)

    Attributes:
        features: their numbers.
    """

    features: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the features too."""
        super().__post_init__()
        self.check_features(self.features)

    @property
    def detail(self) -> str:
        """Which features."""
        return _said(super().detail, map(str, self.features))

    def changed(self, features: Tensor) -> Tensor:
        """Zero in the place of the features."""
        return features.index_fill(-1, torch.tensor(self.features, device=features.device), 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClampFeatures(SpliceSAE):
    """Set features to fixed values.

    Attributes:
        values: feature -> its value.
        when: "always", or only where it is "active" (above 0).
    """

    values: Mapping[int, float]
    when: Clamp = "always"

    def __post_init__(self) -> None:
        """Check features and choice too."""
        super().__post_init__()
        self.check_features(self.values)
        if self.when not in get_args(Clamp):
            raise EditError(f"{self.title}: when must be one of {', '.join(get_args(Clamp))}; got {self.when!r}")

    @property
    def detail(self) -> str:
        """Which features, to what."""
        return _said(super().detail, (f"{f} = {value:g}" for f, value in self.values.items()))

    def changed(self, features: Tensor) -> Tensor:
        """The values in the place of the features."""
        at, values = _pairs(self.values, features)
        old = features[..., at]
        return features.index_copy(
            -1, at, values.expand_as(old) if self.when == "always" else values.where(old > 0, old)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class SteerFeatures(SpliceSAE):
    """Add to features, whether they are active or not: with the error kept, z moves by amount x decoder row.

    Attributes:
        amounts: feature -> what is added to it, in its own units; below 0 steers away.
    """

    amounts: Mapping[int, float]

    def __post_init__(self) -> None:
        """Check the features too."""
        super().__post_init__()
        self.check_features(self.amounts)

    @property
    def detail(self) -> str:
        """Which features, by how much."""
        return _said(super().detail, (f"{f} {amount:+g}" for f, amount in self.amounts.items()))

    def changed(self, features: Tensor) -> Tensor:
        """The features, and the amounts on top."""
        at, amounts = _pairs(self.amounts, features)
        return features.index_add(-1, at, amounts.expand_as(features[..., at]))


def _pairs(values: Mapping[int, float], like: Tensor) -> tuple[Tensor, Tensor]:
    """Feature numbers and their values, on the device and in the dtype of features."""
    return torch.tensor(list(values), device=like.device), torch.tensor(list(values.values())).to(like)


def _said(rest: str, features: Iterable[str]) -> str:
    """A name's list of features, cut where it is long."""
    words = list(features)
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return f"features {', '.join(words[:SHOWN])}{more}{', ' + rest if rest else ''}"
