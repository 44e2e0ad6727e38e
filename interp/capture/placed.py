"""`PlacedMask`: the mask of a call whose cache has dropped its oldest keys (sliding windows), which still says where in the text they stand."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor

from interp_kernels import Mask


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedMask(Mask):
    """A `Mask` for the kernels, with what it takes to name tokens by their place in the text.

    Attributes:
        first_key: number, on the padded token axis, of the call's key 0.
        text_start: int64 [B or 1], number on that axis of each text's first token (its left padding).
    """

    first_key: int
    text_start: Tensor

    @staticmethod
    def of(mask: Mask, first_key: int, text_start: Tensor) -> PlacedMask:
        """`mask` with its place."""
        held = {f.name: getattr(mask, f.name) for f in fields(mask)}
        return PlacedMask(**held, first_key=first_key, text_start=text_start)
