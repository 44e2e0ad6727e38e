"""Several documents in one row of the model, with a document mask: as many tokens per row as the context allows, and no padding.

Positions start anew with each document, from which transformers makes a mask that keeps documents apart; every statistic is then derived for
each document by itself, from its own rows and keys, so that what is measured is each document alone (to float rounding: a kernel sums a longer
row in other blocks). "First token", "earlier copy" and the like mean the document's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from inspect import signature
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.capture.call import AttentionCall
from interp.capture.inputs import Tokens
from interp.capture.measure import MaskCounts, Measurement, wanted
from interp.errors import UnsupportedModelError
from interp.models.hooked import HookedModel
from interp.stats.catalogue import find
from interp.stats.declaration import Statistic
from interp.stats.labels import TokenLabels

Values = dict[str, NDArray[np.float32]]
NOT_DOCUMENTS = (
    "left",
    "right",
    "prefix_length",
    "head_sinks",
    "head_windows",
    "block_keep",
    "alibi_slopes",
    "dense_bias",
)
"""Parts of a mask that would have to be cut to a document."""


def pack_sizes(lengths: Sequence[int], room: int) -> Iterator[int]:
    """How many consecutive documents go into each row: as many as have room together, at least one."""
    size = total = 0
    for length in lengths:
        if size and total + length > room:
            yield size
            size = total = 0
        size, total = size + 1, total + length
    if size:
        yield size


def measure_packed(
    model: HookedModel, documents: Sequence[Sequence[int]], *, statistics: Sequence[str], layers: Sequence[int]
) -> tuple[list[Values], tuple[str, ...]]:
    """Measure documents in one row.

    Args:
        model: a decoder.
        documents: token ids of each, special ones included.
        statistics: names.
        layers: the model's own numbers.

    Returns:
        For each document its values [layer, head, row or key or 1] by statistic, and the kernel backends that ran.

    Raises:
        UnsupportedModelError: the model cannot keep documents apart; nothing is measured then.
    """
    tokens = Tokens(model.tokenizer)
    labels = [tokens.axis(list(ids), bos=None, spans=None, device=model.device).labels for ids in documents]
    row = _Row(statistics=find(statistics), labels=labels, packed=_joined(labels), name=type(model.hf).__name__)
    ids = [i for document in documents for i in document]
    with torch.no_grad(), _positions(model, [len(document) for document in documents]):
        model.probe(ids, row.take, collect=lambda call: row.measurement(call).collect(), layers=layers)
    found = [{name: torch.stack(parts).cpu().numpy() for name, parts in of_one.items()} for of_one in row.values]
    return found, tuple(row.backends)


@dataclass(kw_only=True, eq=False)
class _Row:
    """One row of documents while it is measured.

    Attributes:
        statistics: what is wanted.
        labels: of each document alone.
        packed: of the whole row.
        name: of the model, for errors.
        values: what was measured: for each document, one tensor [head, ...] per layer, by statistic.
        backends: that ran.
    """

    statistics: tuple[Statistic, ...]
    labels: Sequence[TokenLabels]
    packed: TokenLabels
    name: str
    values: list[dict[str, list[Tensor]]] = field(default_factory=list)
    backends: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.values = [{} for _ in self.labels]

    def measurement(self, call: AttentionCall) -> Measurement:
        """What the kernel has to measure on the whole row."""
        self._check(call)
        fitting = wanted(self.statistics, keys=self.packed, tokens=True, causal=call.mask.is_causal, equal_axes=True)
        return Measurement(statistics=fitting, queries=self.packed, keys=self.packed)

    def take(self, call: AttentionCall, attended: Any) -> None:
        """Derive the statistics of each document from its own part of a finished call."""
        self.backends[attended.backend] = None
        chosen = self.measurement(call).statistics
        for place, labels, kept in zip(self._places(), self.labels, self.values, strict=True):
            part = replace(
                call,
                q=call.q[:, :, place],
                k=call.k[:, :, place],
                v=call.v[:, :, place],
                mask=replace(call.mask, query_documents=None, key_documents=None),
            )
            seen = replace(
                attended,
                out=attended.out[:, :, place],
                lse=attended.lse[:, :, place],
                stats={name: x[:, :, place] for name, x in attended.stats.items()},
            )
            alone = Measurement(statistics=chosen, queries=labels, keys=labels)
            counts = MaskCounts.of(part, labels, received=alone.needs.received)
            for name, x in alone.values(part, seen, counts).items():
                kept.setdefault(name, []).append(x[0] if x.ndim == 3 else x[0, :, None])

    def _places(self) -> Iterator[slice]:
        ends = accumulate((int(labels.lengths[0]) for labels in self.labels), initial=0)
        return (slice(start, stop) for start, stop in pairwise(ends))

    def _check(self, call: AttentionCall) -> None:
        """See that this call keeps the documents apart, and does nothing else that would have to be cut to them."""
        mask = call.mask
        seen = mask.query_documents
        starts = {place.start for place in self._places()} - {0}
        found = set() if seen is None else {i + 1 for i in (seen[0, 1:] != seen[0, :-1]).nonzero()[:, 0].tolist()}
        if found != starts or not mask.is_causal:
            raise UnsupportedModelError(
                f"{self.name} does not keep packed documents apart in layer {call.site.layer}; leave out pack"
            )
        more = [name for name in NOT_DOCUMENTS if getattr(mask, name) is not None]
        if more or mask.hidden or call.edit is not None:
            raise UnsupportedModelError(
                f"{self.name}: layer {call.site.layer} has {', '.join(more) or 'an intervention'}, which cannot be cut to documents; leave out pack"
            )


def _joined(labels: Sequence[TokenLabels]) -> TokenLabels:
    """Labels of a row of documents. Ids of different documents differ, so that no token is a copy of another document's."""
    step = 1 + max(int(x.ids.max()) for x in labels)
    ids = torch.cat([x.ids + place * step for place, x in enumerate(labels)], dim=1)
    sets = {name: torch.cat([x.sets[name] for x in labels], dim=1) for name in labels[0].sets}
    return TokenLabels(
        ids=ids,
        left=torch.zeros_like(labels[0].left),
        lengths=torch.full_like(labels[0].lengths, ids.shape[1]),
        sets=sets,
    )


@contextmanager
def _positions(model: HookedModel, lengths: Sequence[int]) -> Iterator[None]:
    """Let positions start anew with each document, for the forward passes inside.

    Raises:
        UnsupportedModelError: positions cannot be given to the model.
    """
    base = model.hf.base_model
    if model.is_encoder_decoder or "position_ids" not in signature(base.forward).parameters:
        raise UnsupportedModelError(
            f"{type(model.hf).__name__} takes no positions, which packing needs; leave out pack"
        )
    positions = torch.cat([torch.arange(n) for n in lengths])[None].to(model.device)

    def give(
        _module: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # transformers looks for packed documents only where it is given no mask; there is no padding here.
        return args, {**kwargs, "attention_mask": None, "position_ids": positions}

    handle = base.register_forward_pre_hook(give, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
