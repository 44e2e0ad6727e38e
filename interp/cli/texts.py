"""Texts on the command line: text files, and the one source of text that a command was given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import InputDataError, OptionError

if TYPE_CHECKING:
    from interp.batch.texts import Texts

Text = Annotated[Path | None, typer.Option("--text", help="UTF-8 file, read as one text.")]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Hub data set, a local .jsonl, .json, .parquet, .csv, .arrow or .txt file, or a folder of save_to_disk.",
    ),
]
Column = Annotated[
    str | None, typer.Option("--column", help="Column of the data set that holds the text; 'text' if left out.")
]
Template = Annotated[
    str | None,
    typer.Option("--template", help="Text to make of each row, with columns in braces: '{title}\\n{body}'."),
]
Chat = Annotated[
    str | None,
    typer.Option("--chat", help="Column that holds a list of messages, to be written in the model's chat format."),
]
Split = Annotated[str, typer.Option("--split", help="Split of the data set.")]
DataRevision = Annotated[
    str | None, typer.Option("--dataset-revision", help="Branch, tag or commit of a hub data set.")
]
Corpus = Annotated[
    str | None, typer.Option("--corpus", help="Text that comes with Python: topics, docstrings, comments or all.")
]
Sample = Annotated[
    float | None, typer.Option("--sample", help="Share of the texts to take, such as 0.1, drawn by --seed.")
]


def read_text(file: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        InputDataError: it cannot be read as text.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputDataError(f"{file} cannot be read as text ({error}); give a UTF-8 text file") from error


@dataclass(frozen=True, kw_only=True)
class TextChoice:
    """The source of text that a command was given, one value for each option.

    Raises:
        OptionError: none or several sources, or options that do not go together.
    """

    text: Path | None = None
    dataset: str | None = None
    corpus: str | None = None
    column: str | None = None
    template: str | None = None
    chat: str | None = None
    split: str = "train"
    revision: str | None = None
    sample: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        given = _given(("--text", self.text), ("--dataset", self.dataset), ("--corpus", self.corpus))
        if len(given) != 1:
            raise OptionError(
                f"give exactly one of --text FILE, --dataset NAME and --corpus PART; got {' and '.join(given) or 'none'}"
            )
        rows = _given(("--column", self.column), ("--template", self.template), ("--chat", self.chat))
        if len(rows) > 1:
            raise OptionError(f"{' and '.join(rows)} each say what a row's text is; give one of them")
        if rows and self.dataset is None:
            raise OptionError(f"{rows[0]} is about the rows of a data set; give --dataset with it")

    def open(self, tokenizer: Any = None) -> Texts:
        """The texts.

        Args:
            tokenizer: of the model, for --chat.

        Raises:
            OptionError: a template or share that is none, or a tokenizer without a chat template.
            InputDataError, OfflineError: the source cannot be read.
        """
        from interp.batch.texts import sampled

        texts = self._whole(tokenizer)
        return texts if self.sample is None else sampled(texts, self.sample, seed=self.seed)

    def _whole(self, tokenizer: Any) -> Texts:
        from interp.batch.templates import Chat as ChatRows
        from interp.batch.templates import Template as TemplateRows
        from interp.batch.texts import from_corpus, from_dataset, from_file

        if self.text is not None:
            return from_file(self.text)
        if self.dataset is None:
            return from_corpus(self.corpus or "topics")
        rows = self.column or "text"
        if self.template is not None:
            # A shell passes backslashes on as they are.
            rows = TemplateRows(pattern=self.template.replace("\\n", "\n").replace("\\t", "\t"))
        elif self.chat is not None:
            rows = ChatRows(column=self.chat, tokenizer=tokenizer)
        return from_dataset(self.dataset, column=rows, split=self.split, revision=self.revision)


def _given(*options: tuple[str, object]) -> list[str]:
    return [name for name, value in options if value is not None]
