"""What the experiments train on: scikit-learn's digits, and the bytes of Python's documentation topics. Both are on every machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from torch import Tensor

from interp.tasks.corpus import corpus

TRAINING_IMAGES = 1437
"""Of 1,797, drawn with a fixed seed; the others are held out."""
VOCABULARY = 256
PATCH = 2
CLASSES = 10
DOCUMENTS = "\n\n"


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Digits: images [n, 8, 8] in 0..1 and their classes [n], for training and held out."""

    images: Float[Tensor, "n 8 8"]
    classes: Int[Tensor, " n"]
    held_out_images: Float[Tensor, "m 8 8"]
    held_out_classes: Int[Tensor, " m"]

    def batch(self, size: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images and classes, drawn with replacement."""
        chosen = torch.randint(len(self.images), (size,), generator=draws)
        return self.images[chosen], self.classes[chosen]


@dataclass(frozen=True, kw_only=True, eq=False)
class Bytes:
    """Text as bytes: int64 ids, for training and held out."""

    ids: Int[Tensor, " n"]
    held_out: Int[Tensor, " m"]

    def batch(self, size: int, tokens: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs and next bytes, [size, tokens] each, from random places."""
        return _cut(self.ids, torch.randint(len(self.ids) - tokens, (size,), generator=draws), tokens)

    def held_out_batch(self, size: int, tokens: int) -> tuple[Tensor, Tensor]:
        """The same from evenly spaced places of the held-out text: always the same ones."""
        return _cut(self.held_out, torch.linspace(0, len(self.held_out) - tokens - 1, size).long(), tokens)


@lru_cache(maxsize=1)
def digits() -> Images:
    """The digits, split once and for all."""
    found: Any = load_digits()
    order = torch.randperm(len(found.images), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(found.images).float()[order] / 16
    classes = torch.from_numpy(found.target).long()[order]
    n = TRAINING_IMAGES
    return Images(images=images[:n], classes=classes[:n], held_out_images=images[n:], held_out_classes=classes[n:])


@lru_cache(maxsize=1)
def topics() -> Bytes:
    """The topics of `help()`, in the corpus's own split."""
    parts = (DOCUMENTS.join(d.text for d in corpus(split, "topics")).encode() for split in ("train", "held_out"))
    ids, held_out = (torch.frombuffer(bytearray(text), dtype=torch.uint8).long() for text in parts)
    return Bytes(ids=ids, held_out=held_out)


def _cut(ids: Tensor, starts: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    found = ids[starts[:, None] + torch.arange(tokens + 1)]
    return found[:, :-1], found[:, 1:]
