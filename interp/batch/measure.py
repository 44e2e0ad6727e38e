"""Measuring the contexts of one shard: run the model, summarise each statistic per head, merge in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from interp.batch.contexts import Context, ids_sha256
from interp.batch.parts import Shard
from interp.batch.plan import Plan
from interp.errors import CaptureError
from interp.models.hooked import HookedModel
from interp.stats.catalogue import find
from interp.stats.summary import Summary


def measure_shard(
    model: HookedModel, contexts: Sequence[Context], *, plan: Plan, index: int, after: Callable[[int, float], None]
) -> Shard:
    """Measure the contexts of a shard one by one; nothing of a context but its summaries outlives it.

    Args:
        model: what runs.
        contexts: those of the shard, in order.
        plan: names the layers and statistics.
        index: of the shard.
        after: called after each context with its number of tokens and the seconds that it took.

    Raises:
        CaptureError: the model measured none of the statistics, or not the same ones on each context.
    """
    statistics = find(plan.statistics)
    total: dict[str, Summary] = {}
    backends: dict[str, None] = {}
    seconds = 0.0
    for number, context in enumerate(contexts):
        begun = time.perf_counter()
        run = model.run(context.ids.tolist(), layers=plan.layers, collect=plan.statistics, keep="none", logits="none")
        if not run.stats or (number and set(run.stats) != set(total)):
            raise CaptureError(
                f"context {number} of shard {index} gave the statistics {sorted(run.stats)}, expected {sorted(total) or 'at least one'}; "
                "name with collect= what this model has"
            )
        for statistic in statistics:
            if statistic.name in run.stats:
                values = run.stats[statistic.name].float().cpu().numpy()
                summary = Summary.of(values if statistic.axis != "prompt" else values[..., None], statistic.scale)
                total[statistic.name] = total[statistic.name].merge(summary) if number else summary
        backends |= dict.fromkeys(run.backends)
        took = time.perf_counter() - begun
        seconds += took
        after(len(context.ids), took)
    return Shard(
        index=index,
        key=plan.key,
        ids_sha256=ids_sha256([context.ids for context in contexts]),
        tokens=sum(len(context.ids) for context in contexts),
        seconds=seconds,
        backends=tuple(backends),
        layers=plan.layers,
        summaries=total,
    )
