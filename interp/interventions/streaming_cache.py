"""A cache that forgets what streaming heads will never see again: DuoAttention's deployment (arXiv 2410.10819, section 2.3).

    edit = Streaming(sinks=64, window=256, heads=...)
    with model.edit(edit):
        model.generate(text, past_key_values=streaming_cache(model, edit), max_new_tokens=100)

A key-value head whose query heads all stream keeps `sinks` + `window` - 1 tokens between calls, all others keep everything; under grouped heads
a group is kept whole if one of its heads does not stream. Logits equal those of the same edit with an ordinary cache, because nothing
is dropped that a later row sees. One layer at a time its keys are laid out at full length for the kernel, zeros where they were dropped, which
the mask of the edit skips; memory held between layers and steps falls. `cache_bytes` says what is held.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from interp.capture.edits import current
from interp.capture.sites import Site
from interp.errors import EditError
from interp.interventions.streaming import Streaming
from interp.models.hooked import HookedModel


class StreamingLayer(CacheLayerMixin):
    """Keys and values of one layer, for one text: whole for some key-value heads, sinks and recent ones for the rest."""

    is_sliding = False

    def __init__(self, edit: Streaming, streaming: Tensor) -> None:
        super().__init__()
        self.edit = edit
        self.query_heads = streaming
        self.seen = 0
        self.whole: list[Tensor] = []
        self.recent: list[Tensor] = []
        self.streams = torch.zeros(0, dtype=torch.bool)

    @property
    def nbytes(self) -> int:
        """Bytes held between calls."""
        return sum(x.untyped_storage().nbytes() for x in (*self.whole, *self.recent))

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Learn the number of key-value heads from the first call."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.streams = self.query_heads.view(key_states.shape[1], -1).all(1).to(self.device)
        self.whole = [x[:, ~self.streams, :0] for x in (key_states, value_states)]
        self.recent = [x[:, self.streams, :0] for x in (key_states, value_states)]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Take new tokens in, give all back at their places (zeros where dropped), drop what no later row sees.

        Raises:
            EditError: the edit that this cache belongs to is not in force, or several texts came.
        """
        if not any(e is self.edit for scope in current() for e in scope.interventions):
            raise EditError(
                f"this cache drops what {self.edit.name} hides: use it inside `with model.edit(...)` with that very object"
            )
        if key_states.shape[0] != 1:
            raise EditError(
                f"a streaming cache holds one text, got {key_states.shape[0]}: padding would be taken for sinks"
            )
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        total = self.seen + key_states.shape[2]
        laid: list[Tensor] = []
        for number, new in enumerate((key_states, value_states)):
            self.whole[number] = torch.cat([self.whole[number], new[:, ~self.streams]], 2)
            recent = torch.cat([self.recent[number], new[:, self.streams]], 2)
            full = new.new_zeros(1, new.shape[1], total, new.shape[3])
            full[:, ~self.streams] = self.whole[number]
            full[:, self.streams] = _spread(recent, self.edit.sinks, total)
            self.recent[number] = _kept(recent, self.edit.sinks, self.edit.window - 1)
            laid.append(full)
        self.seen = total
        return laid[0], laid[1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys of the next call and the number of the first."""
        return self.seen + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens taken in."""
        return self.seen

    def get_max_length(self) -> int:
        """No bound."""
        return -1

    def reset(self) -> None:
        """Forget everything."""
        self.seen, self.whole, self.recent, self.is_initialized = 0, [], [], False


def streaming_cache(model: HookedModel, edit: Streaming) -> Cache:
    """An empty cache for one text under `edit`, to be given to `generate` or to the Hugging Face model as `past_key_values`.

    Raises:
        EditError: the edit mixes in full attention, decodes unedited, or no key-value head streams as a whole.
    """
    if edit.share or edit.phases != frozenset({"prefill", "decode"}):
        raise EditError(f"{edit.name}: a cache can drop keys only if share is 0 and the edit holds in both phases")
    edit.check(layers=model.layers, heads=model.heads)
    layers = DynamicCache(config=model.hf.config).layers
    for number, layer in enumerate(layers):
        chosen = torch.zeros(model.heads, dtype=torch.bool)
        if edit.acts_on(Site("self", number)):
            named = edit.heads
            chosen[[h for at, h in named if at == number] if named is not None else slice(None)] = True
        # Layers with a window of their own forget by themselves.
        if type(layer) is DynamicLayer and bool(chosen.any()):
            layers[number] = StreamingLayer(edit, chosen)
    if not any(isinstance(layer, StreamingLayer) for layer in layers):
        raise EditError(f"{edit.name}: no layer that keeps a whole cache streams, so there is nothing to drop")
    return Cache(layers=layers)


def cache_bytes(cache: Cache) -> int:
    """Bytes of keys and values that a cache holds."""
    total = 0
    for layer in cache.layers:
        if isinstance(layer, StreamingLayer):
            total += layer.nbytes
        elif isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None:
            total += layer.keys.nbytes + layer.values.nbytes
    return total


def _spread(held: Tensor, sinks: int, total: int) -> Tensor:
    """[1, H, m, D] of sinks and recent tokens at their places in `total`, zeros between."""
    if held.shape[2] == total:
        return held
    full = held.new_zeros(*held.shape[:2], total, held.shape[3])
    full[:, :, :sinks] = held[:, :, :sinks]
    full[:, :, total - (held.shape[2] - sinks) :] = held[:, :, sinks:]
    return full


def _kept(held: Tensor, sinks: int, recent: int) -> Tensor:
    """The first `sinks` and last `recent` tokens, in memory of their own."""
    if held.shape[2] <= sinks + recent:
        return held
    return torch.cat([held[:, :, :sinks], held[:, :, held.shape[2] - recent :]], 2)
