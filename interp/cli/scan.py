"""`interp scan`: the statistics of every head of a model over a text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.console import complain, say
from interp.cli.jobs import (
    EngineName,
    Patience,
    Workers,
    in_context,
    model_choice,
    open_engine,
    worker_threads,
)
from interp.cli.options import load_model, number_list, word_list
from interp.cli.progress import watching
from interp.cli.remembered import folding, remembering
from interp.cli.summary import print_summary
from interp.cli.texts import (
    Chat,
    Column,
    Corpus,
    DataRevision,
    Dataset,
    Sample,
    Split,
    Template,
    Text,
    TextChoice,
)
from interp.errors import OptionError

if TYPE_CHECKING:
    from interp.batch.result import ScanResult
    from interp.batch.scan_task import ScanTask
    from interp.batch.task import ModelChoice
    from interp.models.hooked import HookedModel


@in_context
def scan(
    ctx: Any,
    model: Annotated[
        str, typer.Argument(help="Model: a name that `interp models` lists, a hub id, a folder, or a .gguf file.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the results; part of the same scan in it is gone on with.")
    ],
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="One more model, NAME or NAME@REVISION; each gets a folder in --out. Can be repeated."
        ),
    ] = None,
    text: Text = None,
    dataset: Dataset = None,
    column: Column = None,
    template: Template = None,
    chat: Chat = None,
    split: Split = "train",
    dataset_revision: DataRevision = None,
    corpus: Corpus = None,
    sample: Sample = None,
    seed: Annotated[int, typer.Option("--seed", help="Of --sample.")] = 0,
    join: Annotated[
        bool, typer.Option("--join", help="Join the texts by blank lines before cutting them into contexts.")
    ] = False,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Stop after so many tokens.")] = None,
    layers: Annotated[str | None, typer.Option("--layers", help="Layers, such as 0-11,20; all if left out.")] = None,
    statistics: Annotated[
        str | None, typer.Option("--statistics", help="Names that `interp stats` lists, with commas; all if left out.")
    ] = None,
    context: Annotated[int, typer.Option("--context", help="Tokens per model input at most.")] = 2048,
    per_shard: Annotated[
        int, typer.Option("--per-shard", help="Contexts per shard: what an interruption may cost.")
    ] = 4,
    shard: Annotated[
        str | None,
        typer.Option("--shard", help="Measure only part i/n of the shards; afterwards `interp job merge` folds all."),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", help="Contexts of equal length that go through the model together.")
    ] = 1,
    pack: Annotated[
        bool,
        typer.Option("--pack", help="Fill rows with several texts, each seeing only itself; use a large --per-shard."),
    ] = False,
    bucket: Annotated[
        int, typer.Option("--bucket", help="Contexts to put in order of length at a time, so that equal ones meet.")
    ] = 0,
    workers: Workers = None,
    engine: EngineName = "local",
    patience: Patience = None,
    shards: Annotated[
        str | None,
        typer.Option(
            "--shards", help="Folder or URL (s3://...) for the files of finished shards; DIR/parts if left out."
        ),
    ] = None,
    bos: Annotated[
        bool | None,
        typer.Option(
            "--bos/--no-bos", help="Begin each context with the BOS token, or never; as the tokenizer does if left out."
        ),
    ] = None,
    thumbnails: Annotated[int, typer.Option("--thumbnails", help="Heads whose attention maps are pictured.")] = 6,
    resume: Annotated[
        bool, typer.Option("--resume", help="Insist that there is part of this scan to go on with.")
    ] = False,
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 ...")] = "cpu",
    backend: Annotated[
        str, typer.Option("--backend", help="Kernels: auto, portable, cpu, triton or reference.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", help="Threads of torch.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub model.")] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Take a hub model from this machine's cache, ask nobody.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print events as JSON lines: plan, shard, failed, interrupted, incomplete, done."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")] = False,
) -> None:
    """Measure every attention head of MODEL over a text: exact statistics, a table, a manifest and a report."""
    texts = TextChoice(
        text=text,
        dataset=dataset,
        column=column,
        template=template,
        chat=chat,
        split=split,
        revision=dataset_revision,
        corpus=corpus,
        sample=sample,
        seed=seed,
    )
    numbers = number_list(layers, "--layers")
    from interp.batch.array import Part, run_part
    from interp.batch.job import run_job
    from interp.batch.scan import scan_task
    from interp.batch.series import labels, parse_model, scan_models

    part = None if shard is None else Part.parse(shard)
    if others and part is not None:
        raise OptionError("--shard is a part of one model's scan; leave out --model, and scan the models one by one")
    source = texts.open() if chat is None else None  # what is wrong with the text is said before a model is loaded
    loading = {"dtype": dtype, "device": device, "backend": backend, "offline": offline}
    threads = worker_threads(threads, workers)

    def task(hooked: HookedModel, choice: ModelChoice) -> ScanTask:
        return scan_task(
            hooked,
            source or texts.open(hooked.tokenizer),
            collect=word_list(statistics),
            layers=numbers,
            context=context,
            max_tokens=max_tokens,
            shard=per_shard,
            batch=batch,
            pack=pack,
            bucket=bucket,
            bos=bos,
            join=join,
            thumbnails=thumbnails,
            choice=choice,
        )

    def run(choice: ModelChoice, hooked: HookedModel, folder: Path) -> ScanResult:
        # Each of several models has a folder in --out, and one of that name for its shards.
        of_it = shards if shards is None or folder == out else f"{shards}/{folder.name}"
        with watching(f"scan {hooked.source.name}", as_json=as_json, quiet=quiet) as watcher:
            result = run_job(
                task(hooked, choice),
                folder,
                engine=open_engine(engine, workers, device, patience),
                resume="require" if resume else "auto",
                watch=remembering(ctx, out, watcher),
                shards=of_it,
                measure=not folding(ctx),
            )
        if not as_json and not quiet:
            print_summary(result)
        return result

    if not others:
        hooked = load_model(model, threads=threads, revision=revision, **loading)
        choice = model_choice(model, revision=revision, **loading)
        if part is None or folding(ctx):
            run(choice, hooked, out)
            return
        ctx.params["shard"] = None  # what is remembered is the whole job, so that it can be merged
        with watching(f"scan {hooked.source.name}, part {shard}", as_json=as_json, quiet=quiet) as watcher:
            done = run_part(
                task(hooked, choice),
                out,
                part,
                engine=open_engine(engine, workers, device, patience),
                watch=remembering(ctx, out, watcher),
                shards=shards,
            )
        if not quiet:
            say(
                f"part {shard}: {done.shards} shards, {done.tokens:,} tokens; when all parts are done: interp job merge {out}"
            )
        return
    named = [(model, revision), *map(parse_model, others)]
    choices = [model_choice(name, revision=of_it, **loading) for name, of_it in named]
    if threads is not None:
        choices = [replace(choice, threads=threads) for choice in choices]
    if not quiet:
        say(f"{len(choices)} models: {', '.join(labels(choices))}")
    scan_models(choices, out, run, tell=lambda label, error: complain(f"{label}: {error}"))
    if not quiet:
        say(f"`interp report {out}` draws the heads over the models; interp compare takes two of the folders in it")
