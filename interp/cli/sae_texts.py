"""Text for autoencoders, in two sides that share nothing: what is trained on, and what is held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from interp.errors import OptionError

if TYPE_CHECKING:
    from interp.batch.texts import Texts
    from interp.models.hooked import HookedModel
    from interp.tasks.corpus import Document

Side = Literal["train", "held_out"]
HELD_OUT_SHARE = 0.1
"""Share of the text that is held out, as of the corpus."""

Text = Annotated[Path | None, typer.Option("--text", help="UTF-8 file, read as one text; its last tenth is held out.")]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Hub data set or local .jsonl, .json, .parquet, .csv or .txt file; a tenth of its rows is held out.",
    ),
]
Column = Annotated[str, typer.Option("--column", help="Column of the data set that holds the text.")]
Split = Annotated[str, typer.Option("--split", help="Split of the data set.")]
Corpus = Annotated[
    str | None, typer.Option("--corpus", help="Text that comes with Python: topics, docstrings, comments or all.")
]
Context = Annotated[int, typer.Option("--context", help="Tokens per model input.")]
Bos = Annotated[
    bool | None,
    typer.Option(
        "--bos/--no-bos", help="Begin each context with the BOS token, or never; as the tokenizer does if left out."
    ),
]


def side_of(
    side: Side, *, text: Path | None, dataset: str | None, column: str, split: str, corpus: str | None
) -> Texts:
    """One side of the one source of text that was named.

    The corpus has sides of its own (by topic and module); rows of a data set go by a hash of their text; a file is cut at the paragraph
    nearest to nine tenths of it.

    Raises:
        OptionError: none or several sources.
        InputDataError, OfflineError: the source cannot be read.
    """
    from interp.batch.texts import Texts, from_dataset, from_file
    from interp.tasks.corpus import corpus as read_corpus
    from interp.tasks.corpus import record

    given = [
        name for name, value in (("--text", text), ("--dataset", dataset), ("--corpus", corpus)) if value is not None
    ]
    if len(given) != 1:
        raise OptionError(
            f"give exactly one of --text FILE, --dataset NAME and --corpus PART; got {' and '.join(given) or 'none'}"
        )
    if corpus is not None:
        part: Any = corpus  # which the corpus checks
        # By a hash of their names, so that the first so many tokens are of every part and no chapter stands alone.
        documents = sorted(read_corpus(side, part), key=lambda d: hashlib.sha256(d.name.encode()).digest())
        return Texts(
            record={"kind": "corpus", "name": corpus, **record(documents), "side": side}, read=lambda: iter(documents)
        )
    if text is not None:
        whole = from_file(text)
        return Texts(record={**whole.record, "side": side}, read=lambda: iter([_half(next(whole.read()), side)]))
    rows = from_dataset(dataset or "", column=column, split=split)
    return Texts(record={**rows.record, "side": side}, read=lambda: _rows(rows, side), streamed=True)


def contexts(model: HookedModel, texts: Texts, *, size: int, tokens: int, bos: bool | None) -> Iterator[list[int]]:
    """The ids of each context, of `tokens` tokens in all at most. Raises InputDataError if the text holds not one."""
    from interp.batch.contexts import Cutting, Tally, cut, special_tokens

    before, after = special_tokens(model, bos)
    cutting = Cutting(size=size, before=before, after=after, max_tokens=tokens)
    return (context.ids.tolist() for context in cut(texts, model, cutting, Tally()))


def text_record(model: HookedModel, texts: Texts, *, size: int, tokens: int, bos: bool | None) -> dict[str, Any]:
    """What a manifest says of contexts."""
    from interp.batch.contexts import special_tokens

    start = getattr(model.tokenizer, "bos_token_id", None)
    begins = start is not None and special_tokens(model, bos)[0][:1] == (start,)
    return {**texts.record, "context": size, "bos": begins, "most_tokens": tokens}


def _rows(texts: Texts, side: Side) -> Iterator[Document]:
    for document in texts.read():
        digest = hashlib.sha256(document.text.encode()).digest()
        held_out = int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * 2**64
        if held_out == (side == "held_out"):
            yield document


def _half(document: Document, side: Side) -> Document:
    """The first nine tenths of a text, or the rest, cut between two paragraphs (or words, or anywhere) at or before that place."""
    from interp.tasks.corpus import Document

    text = document.text
    place = int((1 - HELD_OUT_SHARE) * len(text))
    found = next((at for mark in ("\n\n", " ") if (at := text.rfind(mark, place // 2, place)) > 0), place)
    return Document(name=document.name, text=text[:found] if side == "train" else text[found:])
