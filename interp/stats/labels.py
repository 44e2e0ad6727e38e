"""What is known of the tokens on the key axis before any attention is computed: identities, padding, and named key sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

FIRST_FOUR = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenLabels:
    """Labels of a padded batch of token sequences.

    Attributes:
        ids: token ids, -1 at padding (and everywhere for inputs without tokens: images, audio).
        left: number of padding positions before each sequence.
        lengths: number of real tokens of each sequence.
        sets: named key sets over the padded axis; `first_token` and `first_four` are always there.
    """

    ids: Int[Tensor, "batch key"]
    left: Int[Tensor, " batch"]
    lengths: Int[Tensor, " batch"]
    sets: Mapping[str, Bool[Tensor, "batch key"]] = field(default_factory=dict)

    @staticmethod
    def of(
        ids: Int[Tensor, "batch key"],
        real: Bool[Tensor, "batch key"],
        sets: Mapping[str, Bool[Tensor, "batch key"]] | None = None,
    ) -> TokenLabels:
        """Label a batch from its ids and its mask of real tokens; `sets` adds named sets to the positional ones."""
        place = torch.arange(real.shape[1], device=real.device).expand_as(real)
        left = torch.where(real, place, real.shape[1]).amin(1).clamp(max=max(real.shape[1] - 1, 0))
        rank = place - left[:, None]
        named = {
            "first_token": real & (rank == 0),
            "first_four": real & (rank >= 0) & (rank < FIRST_FOUR),
            **(sets or {}),
        }
        return TokenLabels(ids=torch.where(real, ids, -1), left=left, lengths=real.sum(1), sets=named)

    @staticmethod
    def blank(batch: int, length: int, device: torch.device) -> TokenLabels:
        """Labels of positions that carry no tokens: image patches, audio frames."""
        ids = torch.full((batch, length), -1, device=device)
        return TokenLabels.of(ids, torch.ones_like(ids, dtype=torch.bool))

    def to(self, device: torch.device) -> TokenLabels:
        """The same on a device."""
        if self.ids.device == device:
            return self
        return TokenLabels(
            ids=self.ids.to(device),
            left=self.left.to(device),
            lengths=self.lengths.to(device),
            sets={name: held.to(device) for name, held in self.sets.items()},
        )

    @property
    def real(self) -> Bool[Tensor, "batch key"]:
        """True at real tokens."""
        place = torch.arange(self.ids.shape[1], device=self.ids.device)
        return (place >= self.left[:, None]) & (place < (self.left + self.lengths)[:, None])

    def previous_ids(self) -> Int[Tensor, "batch key"]:
        """The id of the token before each position, -1 where there is none: the key labels of induction (x_{j-1})."""
        before = torch.full_like(self.ids, -1)
        before[:, 1:] = self.ids[:, :-1]
        return before

    def repeated(self) -> Bool[Tensor, "batch key"]:
        """True at tokens that occurred before in their sequence: the rows that have a duplicate or induction target."""
        order = self.ids.argsort(dim=1, stable=True)
        ordered = self.ids.gather(1, order)
        same = torch.zeros_like(ordered, dtype=torch.bool)
        same[:, 1:] = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        return torch.zeros_like(same).scatter(1, order, same)
