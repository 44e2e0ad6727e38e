"""`HeadEdit`: what all interventions on self-attention share: which heads, which layers, which phases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from interp.capture.call import AttentionCall, Phase
from interp.capture.edits import head_selector
from interp.capture.sites import Site
from interp.errors import EditError

Head = tuple[int, int]
"""(layer, query head), the model's own numbers."""
PerHead = float | Mapping[Head, float]
"""One number for all heads that are acted on, or a number for each (layer, head), which then says which heads those are."""
BOTH: frozenset[Phase] = frozenset({"prefill", "decode"})


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadEdit:
    """Base of the interventions on self-attention. Alone it changes nothing.

    Attributes:
        heads: (layer, head) pairs to act on. None: all heads of `layers`.
        layers: layers to act on, all their heads. None: those of `heads`; with neither, every head of every layer.
        phases: prefill, decode or both. Keys and values that later layers write to the cache meanwhile stay edited (see `interp.capture.edits`).
    """

    heads: tuple[Head, ...] | None = None
    layers: tuple[int, ...] | None = None
    phases: frozenset[Phase] = BOTH
    selective: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check that heads, layers and phases say something."""
        if self.heads is not None and self.layers is not None:
            raise EditError(f"{self.title}: give heads or layers, not both: heads= are (layer, head) pairs already")
        if self.heads is not None:
            object.__setattr__(self, "heads", tuple((int(layer), int(head)) for layer, head in self.heads))
        for what, given in (("heads", self.heads), ("layers", self.layers), ("phases", self.phases)):
            if given is not None and not given:
                raise EditError(f"{self.title}: {what} is empty, so it would never act; leave it out to act on all")
        if not self.phases <= BOTH:
            raise EditError(
                f"{self.title}: phases {sorted(self.phases)} are unknown; valid are {', '.join(sorted(BOTH))}"
            )

    @property
    def title(self) -> str:
        """Name of the intervention."""
        return type(self).__name__

    @property
    def name(self) -> str:
        """What it is and where it acts, for messages and manifests."""
        where = "all heads"
        if self.heads is not None:
            where = ", ".join(f"{layer}.{head}" for layer, head in self.heads)
        elif self.layers is not None:
            where = f"layers {', '.join(map(str, self.layers))}"
        detail = self.detail
        return f"{self.title}({detail + ': ' if detail else ''}{where})"

    @property
    def detail(self) -> str:
        """What distinguishes this one from others of its kind."""
        return ""

    def check(self, *, layers: int, heads: int) -> None:
        """Raise EditError for layers or heads outside the model."""
        if self.heads is not None:
            check_heads(self.title, self.heads, layers, heads)
        if bad := [layer for layer in self.layers or () if not 0 <= layer < layers]:
            raise EditError(f"{self.title}: layers {bad} do not exist; the model has layers 0 to {layers - 1}")

    def acts_on(self, site: Site) -> bool:
        """Self-attention of the named layers."""
        if site.kind != "self":
            return False
        if self.heads is not None:
            return any(layer == site.layer for layer, _ in self.heads)
        return self.layers is None or site.layer in self.layers

    def before(self, call: AttentionCall) -> AttentionCall:
        """Nothing to change on the way in."""
        return call

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """Nothing to change on the way out."""
        return out

    # ------------------------------------------------------------------ for the kinds
    def chosen(self, call: AttentionCall) -> Tensor:
        """The heads of this call that are acted on, bool [H]."""
        named = None if self.heads is None else [h for layer, h in self.heads if layer == call.site.layer]
        return head_selector(named, call.heads, call.q.device)

    def chosen_numbers(self, call: AttentionCall) -> list[int]:
        """The same as a list of head numbers."""
        return torch.nonzero(self.chosen(call))[:, 0].tolist()

    def take_heads_of(self, value: PerHead) -> None:
        """In __post_init__: a number for each head also says which heads are acted on."""
        if isinstance(value, Mapping):
            if self.layers is not None or self.heads not in (None, tuple(value)):
                raise EditError(f"{self.title}: the numbers by head say which heads; leave heads= and layers= out")
            object.__setattr__(self, "heads", tuple(value))

    def take_layers_of(self, tensors: Mapping[int, Tensor]) -> None:
        """In __post_init__: tensors by layer also say which layers are acted on, where no heads are named."""
        if self.layers is not None and self.layers != tuple(tensors):
            raise EditError(f"{self.title}: the tensors by layer say which layers; leave layers= out")
        if missing := sorted({layer for layer, _ in self.heads or ()} - set(tensors)):
            raise EditError(f"{self.title}: there is no tensor for layers {missing}, of which heads are named")
        if self.heads is None:
            object.__setattr__(self, "layers", tuple(tensors))

    def per_head(self, value: PerHead, call: AttentionCall, neutral: float) -> Tensor:
        """The number of every head of this call, float [H]; `neutral` for heads that are left alone."""
        found = torch.full((call.heads,), neutral, dtype=call.work_dtype, device=call.q.device)
        if not isinstance(value, Mapping):
            found[self.chosen(call)] = float(value)
            return found
        for (layer, head), number in value.items():
            if layer == call.site.layer:
                found[head] = float(number)
        return found

    def need_prefill(self, call: AttentionCall, what: str) -> None:
        """Raise EditError for a decode call of an edit that makes sense on a prompt only, or whose prefill it has not seen."""
        if call.phase == "decode":
            raise EditError(
                f"{self.name}: {what}, so it cannot decode (layer {call.site.layer} got {call.queries} new token(s) behind a cache); "
                'give phases=frozenset({"prefill"}) to leave new tokens alone, or run prompt and new tokens in one pass'
            )


def check_heads(name: str, pairs: Iterable[Head], layers: int, heads: int) -> None:
    """Raise EditError for (layer, head) pairs outside a model with `layers` x `heads` heads."""
    bad = [pair for pair in pairs if not (0 <= pair[0] < layers and 0 <= pair[1] < heads)]
    if bad:
        raise EditError(
            f"{name}: {bad} do not exist; the model has layers 0 to {layers - 1} with heads 0 to {heads - 1}"
        )


def by_position(name: str, values: Tensor, call: AttentionCall) -> Tensor:
    """Numbers by place in the text, [H or 1, N] or [B or 1, H or 1, N], at this call's rows: [B, H or 1, Nq]; padding gets the first one.

    Raises:
        EditError: a row stands behind the last number.
    """
    values = values if values.ndim == 3 else values[None]
    at = call.row_positions()
    if int(at.max()) >= values.shape[-1]:
        raise EditError(
            f"{name}: {values.shape[-1]} positions are given, but the text goes on to position {int(at.max())} in layer {call.site.layer}; "
            'give a number for every token, or phases=frozenset({"prefill"})'
        )
    batch = max(values.shape[0], at.shape[0])
    index = at.clamp(min=0)[:, None].expand(batch, values.shape[1], -1)
    return values.to(call.q.device).expand(batch, -1, -1).gather(2, index).to(call.work_dtype)
