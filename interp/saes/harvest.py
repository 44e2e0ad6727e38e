"""Harvest z, the attention output before W_O, of many layers in one forward pass, as shards on disk.

Every context is run once, and the pass stops behind the last layer asked for: what lies above it is never computed. z comes straight from
the attention kernel, [batch, head, token, d_head], and is written head-major, [row, head x d_head]. A harvest that was stopped goes on
behind its last finished shard; what it would have been is the same to the last bit. Cost on disk: rows x heads x d_head x bytes per layer.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.capture.call import AttentionCall
from interp.errors import InputDataError, OptionError, OutputError, PlanMismatchError
from interp.models.hooked import HookedModel
from interp.saes.config import DTYPES
from interp.saes.store import MANIFEST, Store, tokens_path, write_manifest, write_tensors, z_path

Progress = Callable[[int, float], None]
"""Gets tokens done and tokens per second of this session."""


@dataclass(frozen=True, kw_only=True)
class HarvestPlan:
    """What is kept of the contexts and how it is cut.

    Attributes:
        layers: layers to keep, ascending.
        dtype: of the shards: "bfloat16", "float16" or "float32".
        keep_special: whether rows of the tokenizer's special tokens are kept.
        first, last: positions first <= p < last of each context are kept; last None: to its end.
        shard_tokens: a shard is closed when it holds so many tokens: what an interruption may cost.
        batch_tokens: tokens of one forward pass, padding included.

    Raises:
        OptionError: values that make no sense.
    """

    layers: tuple[int, ...]
    dtype: str = "bfloat16"
    keep_special: bool = False
    first: int = 0
    last: int | None = None
    shard_tokens: int = 16_384
    batch_tokens: int = 2_048

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.layers or list(self.layers) != sorted(set(self.layers)):
            raise OptionError(f"layers must be at least one number, ascending; got {self.layers}")
        if self.dtype not in ("bfloat16", "float16", "float32"):
            raise OptionError(f"dtype of shards must be bfloat16, float16 or float32; got {self.dtype!r}")
        if self.first < 0 or (self.last is not None and self.last <= self.first):
            raise OptionError(f"positions: wanted 0 <= first < last, got {self.first} and {self.last}")
        if self.shard_tokens < 1 or self.batch_tokens < 1:
            raise OptionError("shard_tokens and batch_tokens must be at least 1")


class _EnoughError(Exception):
    """The last layer asked for was reached; never leaves this module."""


def harvest(
    model: HookedModel,
    contexts: Iterable[Sequence[int]],
    folder: str | Path,
    plan: HarvestPlan,
    *,
    text: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Store:
    """Run contexts and keep z.

    Args:
        model: a decoder.
        contexts: token ids of each input, in an order that is the same every time; special tokens included where the model wants them.
        folder: new, or part of the same harvest, which is gone on with.
        plan: what is kept and how it is cut.
        text: where the contexts come from, for the manifest.
        progress: hears of every forward pass.

    Raises:
        OptionError: layers that the model does not have.
        InputDataError: no contexts, or nothing of them is kept.
        PlanMismatchError: the folder holds part of another harvest.
        OutputError: the folder holds something else, or cannot be written.
    """
    folder = Path(folder)
    if plan.layers[-1] >= model.layers or plan.layers[0] < 0:
        raise OptionError(f"layers: wanted numbers from 0 to {model.layers - 1}, got {list(plan.layers)}")
    manifest = _manifest(model, plan, text)
    shards = _begun(folder, manifest)
    there = Store(folder) if shards else None
    special = torch.tensor(sorted(getattr(model.tokenizer, "all_special_ids", None) or []), dtype=torch.int64)
    done, new, began = 0, 0, time.perf_counter()
    for number, group in enumerate(_groups(contexts, plan.shard_tokens)):
        if there is not None and number < there.shards:
            if there.tokens(number).contexts != group:
                raise PlanMismatchError(
                    f"{folder.name}: shard {number} is of other contexts; give the same text, or a new folder"
                )
            done += shards[number]["tokens"]
            continue
        rows = _kept(group, plan, special)
        parts: dict[int, list[Tensor]] = {layer: [] for layer in plan.layers}
        for batch in _batches(group, plan.batch_tokens):
            for layer, z in z_of(model, batch, plan.layers).items():
                parts[layer].append(z.to(DTYPES[plan.dtype]).cpu())
            new += sum(map(len, batch))
            if progress is not None:
                progress(done + new, new / (time.perf_counter() - began))
        for layer, pieces in parts.items():
            write_tensors(z_path(folder, layer, number), {"z": torch.cat(pieces)[rows]})
        ids = torch.tensor([i for context in group for i in context], dtype=torch.int32)
        lengths = torch.tensor([len(context) for context in group], dtype=torch.int32)
        write_tensors(tokens_path(folder, number), {"ids": ids, "lengths": lengths, "rows": rows.int()})
        shards.append({"rows": len(rows), "contexts": len(group), "tokens": len(ids)})
        write_manifest(folder, {**manifest, "shards": shards})
    if not shards:
        raise InputDataError("no contexts to harvest; give text that holds at least one")
    if not sum(shard["rows"] for shard in shards):
        raise InputDataError("the masks keep no token of these contexts; keep special tokens, or more positions")
    write_manifest(folder, {**manifest, "shards": shards, "finished": True})
    return Store(folder)


@torch.no_grad()
def z_of(model: HookedModel, contexts: Sequence[Sequence[int]], layers: Sequence[int]) -> dict[int, Tensor]:
    """z of several layers in one pass that stops behind the last of them: layer -> [tokens of all contexts, head x d_head], padding left out."""
    lengths = [len(x) for x in contexts]
    last, found = max(layers), dict[int, Tensor]()

    def take(call: AttentionCall, attended: Any) -> None:
        out = attended.out.transpose(1, 2).flatten(2)
        found[call.site.layer] = out[0] if len(lengths) == 1 else torch.cat([out[b, :n] for b, n in enumerate(lengths)])
        if call.site.layer == last:
            raise _EnoughError

    with contextlib.suppress(_EnoughError):
        model.probe([list(x) for x in contexts], take, layers=list(layers))
    return found


def _groups(contexts: Iterable[Sequence[int]], size: int) -> Iterator[list[list[int]]]:
    """Consecutive contexts of at least `size` tokens together; the last group may be smaller."""
    group: list[list[int]] = []
    tokens = 0
    for context in contexts:
        group.append([int(i) for i in context])
        tokens += len(context)
        if tokens >= size:
            yield group
            group, tokens = [], 0
    if group:
        yield group


def _batches(group: list[list[int]], size: int) -> Iterator[list[list[int]]]:
    """Consecutive contexts that take at most `size` tokens when padded; at least one each."""
    batch: list[list[int]] = []
    for context in group:
        longest = max(len(context), max(map(len, batch), default=0))
        if batch and longest * (len(batch) + 1) > size:
            yield batch
            batch = []
        batch.append(context)
    yield batch


def _kept(group: list[list[int]], plan: HarvestPlan, special: Tensor) -> Tensor:
    """Numbers of the tokens that are kept, int64, among all tokens of the contexts one after the other."""
    position = torch.cat([torch.arange(len(context)) for context in group])
    kept = position >= plan.first
    if plan.last is not None:
        kept &= position < plan.last
    if not plan.keep_special:
        kept &= ~torch.isin(torch.tensor([i for context in group for i in context]), special)
    return kept.nonzero()[:, 0]


def _manifest(model: HookedModel, plan: HarvestPlan, text: Mapping[str, Any] | None) -> dict[str, Any]:
    ids = [1, 2, 3]
    width = z_of(model, [ids], plan.layers[:1])[plan.layers[0]].shape[-1]
    settings = asdict(plan) | {"layers": list(plan.layers)}
    own = {
        "layers": list(plan.layers),
        "d_in": width,
        "heads": model.heads,
        "settings": settings,
        "text": dict(text or {}),
    }
    # As it will be read back, so that a folder's manifest can be compared with it.
    return json.loads(json.dumps({**model.manifest(), **own}))


def _begun(folder: Path, manifest: Mapping[str, Any]) -> list[dict[str, int]]:
    """The finished shards of the same harvest in the folder."""
    if not folder.exists() or not any(folder.iterdir()):
        return []
    if not (folder / MANIFEST).exists():
        raise OutputError(f"{folder.name} holds something that is not a harvest; choose a new folder")
    there = Store(folder).manifest  # which checks that it is a harvest
    same = ("model", "dtype", "layers", "d_in", "settings", "text")
    differs = [name for name in same if there.get(name) != manifest[name]]
    if differs:
        raise PlanMismatchError(
            f"{folder.name} holds part of another harvest ({', '.join(differs)} differ); give the same options, or a new folder"
        )
    return list(there["shards"])
