"""Measuring the contexts of one shard: run the model, summarise each statistic per head, merge in order.

Contexts of equal length may go through the model together. Where that is too much for the memory the batch is halved, and so is every later
one of the shard that is as large; how is noted beside the shard before it goes on, and replayed when the shard has to be measured again, because
another split has other last bits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence

import torch

from interp.batch.contexts import Context, ids_sha256
from interp.batch.packing import Values, measure_packed, pack_sizes
from interp.batch.parts import Shard, shard_name
from interp.batch.places import Place
from interp.batch.plan import Plan
from interp.errors import CaptureError, CorruptFileError
from interp.models.hooked import HookedModel
from interp.stats.catalogue import find
from interp.stats.summary import Summary


def measure_shard(
    model: HookedModel,
    contexts: Sequence[Context],
    *,
    plan: Plan,
    index: int,
    place: Place,
    after: Callable[[int, float], None],
) -> Shard:
    """Measure the contexts of a shard, `plan.batch` together; nothing of a context but its summaries outlives it.

    Args:
        model: what runs.
        contexts: those of the shard, in order.
        plan: names the layers and statistics.
        index: of the shard.
        place: where the shard will lie, and the note of how its batches were split.
        after: called after each batch with its number of tokens and the seconds that it took.

    Raises:
        CaptureError: the model measured none of the statistics, or not the same ones on each context.
    """
    statistics = find(plan.statistics)
    total: dict[str, Summary] = {}
    backends: dict[str, None] = {}
    seconds, at, number = 0.0, 0, 0
    sizes = _noted_sizes(place, index, len(contexts)) or list(_planned_sizes(contexts, plan))
    while number < len(sizes):
        batch = contexts[at : at + sizes[number]]
        begun = time.perf_counter()
        try:
            values, ran = _measure(model, batch, plan)
        except (RuntimeError, MemoryError) as error:
            if len(batch) == 1 or not out_of_memory(error):
                raise
            sizes = [*sizes[:number], *halved(sizes[number:], len(batch))]
            place.write(split_name(index), json.dumps({"batches": sizes}).encode())
            continue
        for of_one in values:
            if not of_one or (total and set(of_one) != set(total)):
                raise CaptureError(
                    f"a context of shard {index} gave the statistics {sorted(of_one)}, expected {sorted(total) or 'at least one'}; "
                    "name with collect= what this model has"
                )
            for statistic in statistics:
                if statistic.name in of_one:
                    summary = Summary.of(of_one[statistic.name], statistic.scale)
                    before = total.get(statistic.name)
                    total[statistic.name] = summary if before is None else before.merge(summary)
        backends |= dict.fromkeys(ran)
        took = time.perf_counter() - begun
        seconds, at, number = seconds + took, at + len(batch), number + 1
        after(sum(len(context.ids) for context in batch), took)
    return Shard(
        index=index,
        key=plan.key,
        ids_sha256=ids_sha256([context.ids for context in contexts]),
        tokens=sum(len(context.ids) for context in contexts),
        seconds=seconds,
        backends=tuple(backends),
        layers=plan.layers,
        summaries=total,
        batches=() if set(sizes) == {1} else tuple(sizes),
    )


def split_name(index: int) -> str:
    """The name of the note that says how the batches of a shard were split."""
    return f"{shard_name(index)}.split.json"


def batch_sizes(contexts: Sequence[Context], most: int) -> Iterator[int]:
    """How many contexts go together: consecutive ones of one length, so that none is padded."""
    size = 0
    for i, context in enumerate(contexts):
        size += 1
        last = i + 1 == len(contexts)
        if last or size == most or len(contexts[i + 1].ids) != len(context.ids):
            yield size
            size = 0


def halved(sizes: Sequence[int], too_large: int) -> Iterator[int]:
    """The sizes, with every one that is at least `too_large` in two halves, the larger first."""
    for size in sizes:
        yield from (size,) if size < too_large else (size - size // 2, size // 2)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the device or the machine, was too small."""
    # The allocator of the CPU raises a plain RuntimeError.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _noted_sizes(place: Place, index: int, contexts: int) -> list[int] | None:
    """How an earlier attempt had to split its batches."""
    name = split_name(index)
    if not place.has(name):
        return None
    try:
        with place.open(name) as file:
            sizes = [int(size) for size in json.load(file)["batches"]]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(f"{name} cannot be read ({error}); delete it and run the job again") from error
    if sum(sizes) != contexts or min(sizes) < 1:
        raise CorruptFileError(
            f"{name} splits {sum(sizes)} contexts, and the shard has {contexts}; delete it and run again"
        )
    return sizes


def _planned_sizes(contexts: Sequence[Context], plan: Plan) -> Iterator[int]:
    """How many contexts the plan puts through the model together, each time."""
    if plan.pack:
        return pack_sizes([len(context.ids) for context in contexts], plan.context)
    return batch_sizes(contexts, plan.batch)


def _measure(model: HookedModel, batch: Sequence[Context], plan: Plan) -> tuple[list[Values], tuple[str, ...]]:
    """The values [layer, head, row or 1] of each context of a batch, by statistic, and the backends that ran."""
    ids = [context.ids.tolist() for context in batch]
    if plan.pack:
        return measure_packed(model, ids, statistics=plan.statistics, layers=plan.layers)
    single = len(batch) == 1
    run = model.run(ids[0] if single else ids, layers=plan.layers, collect=plan.statistics, keep="none", logits="none")
    axes = {s.name: s.axis for s in find(plan.statistics)}
    values: list[Values] = [{} for _ in batch]
    for name, stacked in run.stats.items():
        x = stacked.float().cpu().numpy()
        x = x[..., None] if axes[name] == "prompt" else x
        for item, of_one in enumerate(values):
            of_one[name] = x if single else x[:, item]
    return values, run.backends
