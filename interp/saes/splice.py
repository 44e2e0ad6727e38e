"""`ReplaceOutputs`: put something else in the place of z, all heads of a layer together: an autoencoder's reconstruction, zero, a mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from interp.capture.call import AttentionCall
from interp.errors import EditError
from interp.interventions.where import HeadEdit
from interp.saes.core import by_token

Where = Literal["all", "without first"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ReplaceOutputs(HeadEdit):
    """Replace the outputs of all heads of one layer, before W_O, by a function of them.

    Attributes:
        function: flat z [batch, token, head x d_head] -> the same shape: an `SAE`, for example.
        label: what it is, for messages and manifests.
        positions: "all", or "without first": position 0 of every text keeps its own z.
        layers: the one layer.
    """

    function: Callable[[Tensor], Tensor]
    label: str
    positions: Where = "all"

    def __post_init__(self) -> None:
        """Check that it is for one whole layer."""
        super().__post_init__()
        if self.heads is not None or self.layers is None or len(self.layers) != 1:
            raise EditError(f"{self.title}: wanted layers=(layer,), one layer with all its heads")

    @property
    def detail(self) -> str:
        """What stands there instead."""
        return self.label if self.positions == "all" else f"{self.label}, position 0 spared"

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """The function of z, where it is wanted."""
        flat = by_token(out)
        new = self.function(flat).to(out.dtype)
        if new.shape != flat.shape:
            raise EditError(
                f"{self.name}: {tuple(flat.shape)} became {tuple(new.shape)}; the function must keep the shape"
            )
        if self.positions == "without first":
            new = torch.where((call.row_positions() == 0)[..., None], flat, new)
        return new.unflatten(2, (out.shape[1], out.shape[3])).transpose(1, 2)
