"""`interp scan`: the statistics of every head of a model over a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.options import load_model, number_list, word_list
from interp.cli.progress import watching
from interp.cli.summary import print_summary
from interp.errors import OptionError

if TYPE_CHECKING:
    from interp.batch.texts import Texts


def scan(
    model: Annotated[
        str, typer.Argument(help="Model: a name that `interp models` lists, a hub id, a folder, or a .gguf file.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the results; part of the same scan in it is gone on with.")
    ],
    text: Annotated[Path | None, typer.Option("--text", help="UTF-8 file, read as one text.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="Hub data set, or a local .jsonl, .json, .parquet, .csv or .txt file."),
    ] = None,
    column: Annotated[str, typer.Option("--column", help="Column of the data set that holds the text.")] = "text",
    split: Annotated[str, typer.Option("--split", help="Split of the data set.")] = "train",
    corpus: Annotated[
        str | None, typer.Option("--corpus", help="Text that comes with Python: topics, docstrings, comments or all.")
    ] = None,
    join: Annotated[
        bool, typer.Option("--join", help="Join the texts by blank lines before cutting them into contexts.")
    ] = False,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Stop after so many tokens.")] = None,
    layers: Annotated[str | None, typer.Option("--layers", help="Layers, such as 0-11,20; all if left out.")] = None,
    statistics: Annotated[
        str | None, typer.Option("--statistics", help="Names that `interp stats` lists, with commas; all if left out.")
    ] = None,
    context: Annotated[int, typer.Option("--context", help="Tokens per model input at most.")] = 2048,
    shard: Annotated[int, typer.Option("--shard", help="Contexts per shard: what an interruption may cost.")] = 4,
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
        bool, typer.Option("--json", help="Print events as JSON lines: plan, shard, interrupted, done.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")] = False,
) -> None:
    """Measure every attention head of MODEL over a text: exact statistics, a table, a manifest and a report."""
    source = _source(text, dataset, column, split, corpus)
    numbers = number_list(layers, "--layers")
    from interp.batch.scan import scan as run_scan

    hooked = load_model(
        model, dtype=dtype, device=device, backend=backend, threads=threads, revision=revision, offline=offline
    )
    with watching(f"scan {hooked.source.name}", as_json=as_json, quiet=quiet) as watcher:
        result = run_scan(
            hooked,
            source,
            out=out,
            collect=word_list(statistics),
            layers=numbers,
            context=context,
            max_tokens=max_tokens,
            shard=shard,
            bos=bos,
            join=join,
            resume="require" if resume else "auto",
            progress=watcher,
            thumbnails=thumbnails,
        )
    if not as_json and not quiet:
        print_summary(result)


def _source(text: Path | None, dataset: str | None, column: str, split: str, corpus: str | None) -> Texts:
    """The one source of text that was named."""
    given = [
        option
        for option, value in (("--text", text), ("--dataset", dataset), ("--corpus", corpus))
        if value is not None
    ]
    if len(given) != 1:
        raise OptionError(
            f"give exactly one of --text FILE, --dataset NAME and --corpus PART; got {' and '.join(given) or 'none'}"
        )
    from interp.batch.texts import from_corpus, from_dataset, from_file

    if text is not None:
        return from_file(text)
    if dataset is not None:
        return from_dataset(dataset, column=column, split=split)
    return from_corpus(corpus or "topics")
