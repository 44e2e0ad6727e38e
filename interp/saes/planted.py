"""Data whose dictionary is known by construction, for trying out a training: z is a sum of a few of F unit vectors.

Some of the vectors lie wholly in one head's slice of z, so that which head a feature belongs to is known as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from interp.errors import OptionError

SHAPE = 3.0
"""Of the Gamma law that magnitudes follow (scale 1): mean 3, hardly ever near 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Planted:
    """A known dictionary and draws from it.

    Attributes:
        dictionary: unit rows [feature, head x d_head].
        head: the head that each vector is confined to, int64 [feature]; -1 for those that use all of z.
        codes: magnitudes [row, feature], 0 where a feature is absent.
        z: codes x dictionary [row, head x d_head].
    """

    dictionary: Tensor
    head: Tensor
    codes: Tensor
    z: Tensor


def planted(
    *, heads: int, d_head: int, features: int, active: int, rows: int, confined: float = 0.5, seed: int = 0
) -> Planted:
    """Draw a dictionary and rows of it.

    Args:
        heads, d_head: sizes of z.
        features: vectors of the dictionary.
        active: how many of them each row holds.
        rows: how many rows.
        confined: share of the vectors that lie in one head's slice, in turn from head 0 on.
        seed: of everything.

    Raises:
        OptionError: more active features than there are, or a share that is none.
    """
    if not 0 < active <= features or not 0 <= confined <= 1:
        raise OptionError(f"wanted 0 < active <= features and 0 <= confined <= 1; got {active}, {features}, {confined}")
    generator = torch.Generator().manual_seed(seed)
    rows_of = torch.randn(features, heads, d_head, generator=generator)
    within = int(confined * features)
    head = torch.full((features,), -1, dtype=torch.int64)
    head[:within] = torch.arange(within) % heads
    mask = (head[:, None] == torch.arange(heads)) | (head[:, None] < 0)
    dictionary = (rows_of * mask[..., None]).flatten(1)
    dictionary = dictionary / dictionary.norm(dim=-1, keepdim=True)
    chosen = torch.rand(rows, features, generator=generator).topk(active, dim=-1).indices
    # A sum of three exponential draws is Gamma(3, 1).
    magnitude = -torch.rand(rows, active, int(SHAPE), generator=generator).clamp(min=1e-12).log().sum(-1)
    codes = torch.zeros(rows, features).scatter(-1, chosen, magnitude)
    return Planted(dictionary=dictionary, head=head, codes=codes, z=codes @ dictionary)
