"""`scan`: exact statistics of every head over a text of any length, written to a folder that can be resumed at any moment.

The folder holds `stats.parquet` (one row per layer, head and statistic), `manifest.json`, `report.html`, and `parts/`: the plan, one file
per shard, and the pictured maps. Shards are whole or absent and are folded in plan order from the files, so the numbers after any number
of interruptions are those of an uninterrupted run, to the last bit, whichever workers measured them. Memory: one batch of contexts at a time for
each worker, and the summaries of two shards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from interp.batch.contexts import Context, Cutting, Tally, cut, special_tokens
from interp.batch.events import Watcher
from interp.batch.folder import Resume
from interp.batch.job import run_job
from interp.batch.plan import Plan
from interp.batch.result import ScanResult
from interp.batch.scan_runner import facts
from interp.batch.scan_task import ScanTask
from interp.batch.task import Engine, ModelChoice
from interp.batch.texts import Texts, as_texts
from interp.errors import OptionError, UnsupportedModelError
from interp.models.hooked import HookedModel
from interp.stats.catalogue import find, names
from interp.tasks.corpus import Document


def scan(
    model: HookedModel,
    texts: Texts | str | Sequence[str | Document],
    *,
    out: str | Path,
    collect: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    context: int = 2048,
    max_tokens: int | None = None,
    shard: int = 4,
    batch: int = 1,
    pack: bool = False,
    bucket: int = 0,
    bos: bool | None = None,
    join: bool = False,
    resume: Resume = "auto",
    progress: Watcher | None = None,
    thumbnails: int = 6,
    engine: Engine | None = None,
    choice: ModelChoice | None = None,
    shards: str | None = None,
    measure: bool = True,
) -> ScanResult:
    """Measure every head of a model over texts, and write the statistics, a manifest and a report.

    Args:
        model: a decoder-only or encoder-only text model with its tokenizer.
        texts: a text, a list of texts, or a source (`interp.batch.texts`: from_file, from_dataset, from_corpus).
        out: folder of the results. Part of the same plan in it is gone on with; a finished one is returned as it is.
        collect: names of statistics, None for all (`interp.stats.names()`), those that sweep over keys included.
        layers: the model's own numbers, None for all.
        context: tokens per model input at most, or the model's own lower limit. Longer texts are cut; rests under 16 are dropped.
        max_tokens: stop after so many tokens, None for all.
        shard: contexts per shard, the unit of what an interruption may cost.
        batch: contexts of equal length that go through the model together; halved within a shard when memory runs out, and noted.
        pack: fill each row of the model with contexts of several texts, each seeing only itself; within a shard, so make it larger.
        bucket: put so many contexts at a time in order of length, so that equal ones meet in a batch; 0 keeps the order of the texts.
        bos: None leaves the special tokens of each context to the tokenizer; True or False overrides its BOS choice.
        join: join the texts by blank lines before cutting, so that no context is short; otherwise no context holds two texts.
        resume: "auto", "require" (there must be something to go on with) or "never" (there must not).
        progress: called with every `Event`.
        thumbnails: heads whose maps are pictured, 0 for none.
        engine: where shards are measured (`interp.batch.engine_local.LocalEngine(workers=2)`); None for this process.
        choice: how the engine's workers load the same model.
        shards: folder or URL where shard files go; None for where they went before, `parts/` in `out` if nothing was said.
        measure: False folds the shards that are there, and measures nothing.

    Returns:
        The finished scan.

    Raises:
        InputDataError: the texts cannot be read or are too short.
        OptionError: an argument has an impossible value.
        UnsupportedModelError: the model reads no text, or cannot keep packed texts apart.
        PlanMismatchError: the folder holds another plan, or its shards another text.
        OutputError: the folder cannot be written, or another process is working on it. Finished shards are kept.
        IncompleteJobError: some shards failed three times; the result of the others is written, and its `result`.
        JobFailedError: no shard could be measured.
        ScanInterruptedError: Ctrl-C came; the shard at hand was finished first. A second Ctrl-C raises KeyboardInterrupt at once.
    """
    task = scan_task(
        model,
        texts,
        collect=collect,
        layers=layers,
        context=context,
        max_tokens=max_tokens,
        shard=shard,
        batch=batch,
        pack=pack,
        bucket=bucket,
        bos=bos,
        join=join,
        thumbnails=thumbnails,
        choice=choice,
    )
    return run_job(task, out, engine=engine, resume=resume, watch=progress, shards=shards, measure=measure)


def scan_task(
    model: HookedModel,
    texts: Texts | str | Sequence[str | Document],
    *,
    collect: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    context: int = 2048,
    max_tokens: int | None = None,
    shard: int = 4,
    batch: int = 1,
    pack: bool = False,
    bucket: int = 0,
    bos: bool | None = None,
    join: bool = False,
    thumbnails: int = 6,
    choice: ModelChoice | None = None,
) -> ScanTask:
    """A scan before it runs, for `run_job`, or for `run_part` where several processes share it; arguments and errors as of `scan`."""
    source = as_texts(texts)
    _check_reads_text(model)
    wanted, numbers = _statistics(collect), _layers(model, layers)
    size = min(context, model.context_length or context)
    before, after = special_tokens(model, bos)
    cutting = Cutting(size=size, before=before, after=after, max_tokens=max_tokens, join=join, bucket=bucket)
    here = facts(model, wanted, numbers)
    plan = Plan(
        **{name: here[name] for name in ("model", "dtype", "device", "threads", "backend", "versions")},
        runs=tuple(here["backends"]),
        text=source.record,
        statistics=wanted,
        layers=numbers,
        context=size,
        shard=shard,
        batch=batch,
        pack=pack,
        bucket=bucket,
        max_tokens=max_tokens,
        join=join,
        special=(before, after),
        bos=model.bos_record(bos),
    )
    tally = Tally()
    contexts: Iterable[Context] = cut(source, model, cutting, tally)
    if not source.streamed:
        # The tokens of texts that fit in memory do too; their hash makes the plan's key that of the text itself.
        contexts = list(contexts)
        plan = dataclasses.replace(plan, text={**plan.text, "ids_sha256": tally.digest.hexdigest()})
    kept = contexts if isinstance(contexts, list) else None
    return ScanTask(
        model=model,
        plan=plan,
        source=source,
        cutting=cutting,
        contexts=kept,
        total=tally if kept is not None else None,
        thumbnails=thumbnails,
        choice=choice,
    )


def _check_reads_text(model: HookedModel) -> None:
    if model.is_encoder_decoder or model.hf.main_input_name != "input_ids":
        raise UnsupportedModelError(
            f"{type(model.hf).__name__} does not read one text as its input; scan takes decoder-only and encoder-only text models. "
            "Use model.run for others"
        )


def _statistics(collect: Sequence[str] | None) -> tuple[str, ...]:
    """The names of what is measured, checked."""
    wanted = tuple(names() if collect is None else dict.fromkeys(collect))
    spans = [name for name in wanted if name.startswith("span:")]
    if spans:
        raise OptionError(
            f"collect names {', '.join(spans)}: spans belong to one text and cannot be scanned; use model.run(spans=...)"
        )
    find(wanted)
    return wanted


def _layers(model: HookedModel, layers: Sequence[int] | None) -> tuple[int, ...]:
    """The numbers of the layers, checked."""
    numbers = tuple(range(model.layers)) if layers is None else tuple(sorted(set(layers)))
    if not numbers or any(not 0 <= n < model.layers for n in numbers):
        raise OptionError(f"layers must be numbers from 0 to {model.layers - 1}; got {list(layers or ())}")
    return numbers
