"""Real English text that every machine has: the documentation that ships with CPython, with a fixed held-out split.

Three parts: the reference topics behind `help()`, the docstrings of the standard library, and its comments. A document is one topic,
or all docstrings (or comments) of one module. The texts differ between versions of Python, so records of measurements name the version
and the hash.

Left out: tests, installed packages, tables of data, and the packages that Linux distributions ship apart (so that they may be missing).
Sections that the documentation prints under several topics, and comments that are copied between modules, stand in `corpus` once: a
paragraph seen before is dropped, so no paragraph is both in the training and in the held-out part.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import io
import platform
import sysconfig
import tokenize
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, get_args

import pandas as pd

from interp.errors import InputDataError, OptionError

Split = Literal["train", "held_out", "all"]
Part = Literal["topics", "docstrings", "comments", "all"]
Tokenizer = Callable[..., Mapping[str, Any]]
"""A Hugging Face tokenizer, as this module calls it (naming the class would import transformers)."""

HELD_OUT_SHARE: Final = 0.1
REPEATED_FROM: Final = 80
"""Characters from which a paragraph that occurred before is dropped from `corpus`; shorter ones are headings and phrases."""

_NOT_PROSE = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "pydoc_data", "encodings"}
_SHIPPED_APART = {"distutils", "ensurepip", "idlelib", "lib2to3", "tkinter", "turtledemo"}
_DIRECTIVES = ("!", "-*-", "vim:", "pragma:", "type:", "noqa", "flake8")


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text of the corpus; `name` is its part and topic or module, as in "docstrings/json.decoder"."""

    name: str
    text: str

    @property
    def part(self) -> str:
        """Which part of the corpus it belongs to: topics, docstrings or comments."""
        return self.name.partition("/")[0]

    @property
    def split(self) -> Literal["train", "held_out"]:
        """The side it is on for good: by hash of the topic or module, so a module's docstrings and comments stay together."""
        digest = hashlib.sha256(self.name.partition("/")[2].encode()).digest()
        return "held_out" if int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * 2**64 else "train"


@lru_cache(maxsize=1)
def topics() -> tuple[Document, ...]:
    """The reference topics behind `help()`, one document each, by name, whole (topics share sections).

    Raises:
        InputDataError: if this Python came without them.
    """
    try:
        from pydoc_data.topics import topics as texts
    except ImportError as error:
        raise InputDataError(
            "this Python lacks its documentation topics (pydoc_data); use a full CPython, or give --text"
        ) from error
    return tuple(Document(name=f"topics/{name}", text=text.strip()) for name, text in sorted(texts.items()))


@lru_cache(maxsize=1)
def docstrings() -> tuple[Document, ...]:
    """The docstrings of each module of the standard library, in the order of the source, joined by blank lines."""
    return tuple(_documents("docstrings", _module_docstrings))


@lru_cache(maxsize=1)
def comments() -> tuple[Document, ...]:
    """The comment blocks of each module of the standard library, without the marks, joined by blank lines."""
    return tuple(_documents("comments", _module_comments))


@lru_cache(maxsize=1)
def _all() -> tuple[Document, ...]:
    return tuple(_without_repeats((*topics(), *docstrings(), *comments())))


def corpus(split: Split = "all", part: Part = "all") -> tuple[Document, ...]:
    """The corpus without repeated paragraphs: topics, docstrings and comments, or one of them, of one side of the split.

    Args:
        split: "train" (about 90 % of the documents), "held_out" or "all".
        part: "topics", "docstrings", "comments" or "all".

    Raises:
        OptionError: an unknown split or part.
    """
    for name, given, known in (("split", split, get_args(Split)), ("part", part, get_args(Part))):
        if given not in known:
            raise OptionError(f"{name} must be one of {', '.join(known)}; got {given!r}")
    return tuple(d for d in _all() if split in ("all", d.split) and part in ("all", d.part))


def describe(tokenizer: Tokenizer | None = None) -> pd.DataFrame:
    """Size of the corpus: one row per part and split, and the totals; `frame.attrs` holds the Python version and the text's hash.

    Args:
        tokenizer: counts tokens and distinct tokens (without special tokens); those columns are left out without one.

    Returns:
        Columns part, split, documents, characters and, with a tokenizer, tokens and distinct_tokens (all int64).
    """
    documents = corpus()
    rows = []
    ids = [_ids(tokenizer, d.text) for d in documents] if tokenizer is not None else []
    for part in get_args(Part):
        for split in get_args(Split):
            chosen = [i for i, d in enumerate(documents) if part in ("all", d.part) and split in ("all", d.split)]
            row: dict[str, str | int] = {"part": part, "split": split, "documents": len(chosen)}
            row["characters"] = sum(len(documents[i].text) for i in chosen)
            if ids:
                row["tokens"] = sum(len(ids[i]) for i in chosen)
                row["distinct_tokens"] = len(set().union(*(ids[i] for i in chosen)))
            rows.append(row)
    frame = pd.DataFrame(rows)
    frame.attrs.update(record(documents))
    return frame


def record(documents: Iterable[Document]) -> dict[str, str]:
    """What a manifest says of documents of this corpus: the Python they came with, and a hash of names and texts."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(f"{document.name}\0{document.text}\0".encode())
    return {"python": platform.python_version(), "sha256": digest.hexdigest()}


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _documents(part: str, read: Callable[[str], Iterable[str]]) -> Iterator[Document]:
    for name, source in _modules():
        text = "\n\n".join(read(source))
        if text:
            yield Document(name=f"{part}/{name}", text=text)


@lru_cache(maxsize=1)
def _modules() -> tuple[tuple[str, str], ...]:
    """Dotted name and source of the modules of the standard library that are read, by name."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        machine_made = any(p.startswith(("_sysconfigdata", "config-", "lib-dynload", "sitecustomize")) for p in parts)
        if machine_made or (_NOT_PROSE | _SHIPPED_APART) & set(parts):
            continue
        try:
            with tokenize.open(path) as file:
                source = file.read()
        except (OSError, SyntaxError, UnicodeDecodeError):
            continue
        found.append((".".join(parts).removesuffix(".__init__"), source))
    return tuple(sorted(found))


def _module_docstrings(source: str) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    nodes = [
        n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    for node in sorted(nodes, key=lambda n: getattr(n, "lineno", 0)):
        text = ast.get_docstring(node)
        if text:
            yield text.strip()


def _module_comments(source: str) -> Iterator[str]:
    """Runs of comments on consecutive lines of their own or at line ends, each run one paragraph or more."""
    block: list[str] = []
    last = -1
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type != tokenize.COMMENT:
                continue
            if token.start[0] != last + 1 and block:
                yield from _paragraph(block)
                block = []
            block.append(token.string.lstrip("#").removeprefix(" ").rstrip())
            last = token.start[0]
    except (tokenize.TokenError, SyntaxError):
        pass
    yield from _paragraph(block)


def _paragraph(lines: list[str]) -> Iterator[str]:
    kept = [line for line in lines if not line.startswith(_DIRECTIVES)]
    text = inspect.cleandoc("\n".join(kept)).strip()
    if sum(c.isalpha() for c in text) >= len(text) / 2 and " " in text:
        yield text


def _without_repeats(documents: Iterable[Document]) -> Iterator[Document]:
    seen: set[str] = set()
    for document in documents:
        kept = []
        for paragraph in document.text.split("\n\n"):
            words = " ".join(paragraph.split())
            if len(words) >= REPEATED_FROM:
                if words in seen:
                    continue
                seen.add(words)
            kept.append(paragraph)
        text = "\n\n".join(kept).strip()
        if text:
            yield Document(name=document.name, text=text)
