"""Many patched runs in one pass: each cell (a head's z, q, k or v, at some positions) has copies of all prompts of its own in the batch.

A sweep over L layers x H heads costs L x H runs. Here cells stand behind each other in the batch dimension, in order of their layers, and the
batch is made only at the entrance of the first layer that is patched: below it every copy is the same, and one run serves them all, which
saves half of a whole sweep. Queries and keys are those of the kernel, behind the rotary embedding: a token keeps its position when it is
patched, so patching before or behind it is the same. Under grouped queries k and v belong to key heads, of which there are fewer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from interp.capture.call import AttentionCall
from interp.circuits.blocks import entering
from interp.circuits.pairs import Pairs, difference, marked
from interp.errors import OptionError
from interp.interventions.readout import Readout
from interp.interventions.where import HeadEdit
from interp.models.blocks import decoder_blocks
from interp.models.hooked import HookedModel

Kind = Literal["z", "q", "k", "v"]
INPUTS: tuple[Kind, ...] = ("q", "k", "v")
BATCH = 45
"""Most sequences of one pass."""
TOKENS = 16384
"""Most tokens of one pass, all its sequences together."""
Held = dict[tuple[Kind, int], Tensor]
"""(kind, layer) -> tensor [P, H or Hkv, N, D]."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one run patches.

    Attributes:
        layer: of the head.
        head: query head (z, q) or key head (k, v).
        kind: what is patched.
        label: at which positions (see `interp.circuits.pairs.places`).
    """

    layer: int
    head: int
    kind: Kind = "z"
    label: str = "all"


@dataclass(frozen=True, kw_only=True, eq=False)
class Tap(HeadEdit):
    """Notes the tensors of attention calls, in the graph of autograd where there is one; changes nothing.

    Attributes:
        kinds: which of z, q, k, v.
        held: where to.
    """

    kinds: frozenset[Kind]
    held: Held = field(default_factory=dict)
    selective: ClassVar[bool] = False

    def before(self, call: AttentionCall) -> AttentionCall:
        """Note q, k, v."""
        inputs: dict[Kind, Tensor] = {"q": call.q, "k": call.k, "v": call.v}
        self.held.update({(kind, call.site.layer): inputs[kind] for kind in INPUTS if kind in self.kinds})
        return call

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """Note z."""
        if "z" in self.kinds:
            self.held["z", call.site.layer] = out
        return out


@dataclass(frozen=True, kw_only=True, eq=False)
class Patch(HeadEdit):
    """Puts other values in place, for C copies of P sequences behind each other in the batch.

    Attributes:
        where: (kind, layer) -> which values, bool [C or 1, P or 1, H or 1, N or 1].
        values: (kind, layer) -> the values, [C or 1, P, H, N, D].
    """

    where: Mapping[tuple[Kind, int], Tensor]
    values: Mapping[tuple[Kind, int], Tensor]
    selective: ClassVar[bool] = False

    def before(self, call: AttentionCall) -> AttentionCall:
        """Patch q, k, v."""
        inputs: dict[Kind, Tensor] = {"q": call.q, "k": call.k, "v": call.v}
        new = {
            k: self._patched((k, call.site.layer), x) for k, x in inputs.items() if (k, call.site.layer) in self.where
        }
        return replace(call, **new) if new else call

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """Patch z."""
        at: tuple[Kind, int] = ("z", call.site.layer)
        return self._patched(at, out) if at in self.where else out

    def _patched(self, at: tuple[Kind, int], x: Tensor) -> Tensor:
        values = self.values[at].to(x)
        copies = x.view(-1, values.shape[1], *x.shape[1:])
        return torch.where(self.where[at].to(x.device)[..., None], values, copies).reshape(x.shape)


def kinds_of(sites: Sequence[str]) -> list[Kind]:
    """The kinds named. Raises OptionError for none or an unknown one."""
    if not sites or any(site not in get_args(Kind) for site in sites):
        raise OptionError(f"sites must be some of {', '.join(get_args(Kind))}; got {list(sites)}")
    return [kind for kind in get_args(Kind) if kind in sites]


def width(model: HookedModel, kind: Kind) -> int:
    """Number of heads that have a tensor of this kind: key heads for k and v."""
    keys = getattr(model.hf.config.get_text_config(), "num_key_value_heads", None)
    return model.heads if kind in ("z", "q") or keys is None else int(keys)


def cells_of(model: HookedModel, kinds: Sequence[Kind], labels: Sequence[str]) -> list[Cell]:
    """Every cell, by kind, label, layer and head."""
    return [
        Cell(layer=layer, head=head, kind=kind, label=label)
        for kind in kinds
        for label in labels
        for layer in range(model.layers)
        for head in range(width(model, kind))
    ]


@torch.no_grad()
def recorded(readout: Readout, ids: Tensor, kinds: Sequence[Kind]) -> Held:
    """The tensors of every layer on a plain run over [P, N]."""
    tap = Tap(kinds=frozenset(kinds))
    with readout.model.edit(tap):
        readout.states(ids)
    return tap.held


def chunks(cells: Sequence[Cell], pairs: Pairs, batch: int) -> Iterator[list[int]]:
    """Numbers of cells that share a pass, lowest layers first."""
    sequences, tokens = pairs.clean.shape
    count = max(1, min(batch, max(1, TOKENS // tokens)) // sequences)
    order = sorted(range(len(cells)), key=lambda n: cells[n].layer)
    for first in range(0, len(order), count):
        yield order[first : first + count]


def patches(cells: Sequence[Cell], values: Held, pairs: Pairs) -> Patch:
    """The patch in which copy c of the batch has cell c patched with values of the other run, [P, H, N, D] by (kind, layer)."""
    where: Held = {}
    spots = {label: marked(pairs, label) for label in {cell.label for cell in cells}}
    for n, cell in enumerate(cells):
        at = (cell.kind, cell.layer)
        sequences, heads, tokens = values[at].shape[:3]
        if at not in where:
            where[at] = torch.zeros(len(cells), sequences, heads, tokens, dtype=torch.bool)
        where[at][n, :, cell.head] = spots[cell.label]
    return Patch(
        where=where, values={at: values[at][None] for at in where}, layers=tuple(sorted({c.layer for c in cells}))
    )


@torch.no_grad()
def run_cells(readout: Readout, pairs: Pairs, base: Tensor, cells: Sequence[Cell], values: Held) -> Tensor:
    """LD of runs over `base` [P, N] with one cell patched each: [cell, P]. All cells share one pass."""
    entrance = min(cell.layer for cell in cells)
    with readout.model.edit(patches(cells, values, pairs)), copied(readout.model, entrance, len(cells)):
        states = readout.states(base)
    return difference(readout, states, pairs.right, pairs.wrong).view(len(cells), -1)


def copied(model: HookedModel, layer: int, times: int) -> AbstractContextManager[None]:
    """Copies of the batch behind each other from the entrance of a layer on."""
    return entering(decoder_blocks(model)[layer], lambda x: x.repeat(times, 1, 1))
