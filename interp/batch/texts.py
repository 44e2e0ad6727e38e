"""`Texts`: where the text of a scan comes from, as often as it is asked for, and what a plan says of it (never a machine path)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from interp.batch.templates import Rendering, rendering
from interp.errors import InputDataError, OfflineError, OptionError
from interp.tasks.corpus import Document, Part, corpus, topics
from interp.tasks.corpus import record as corpus_record

BUILDERS: Final = {
    ".jsonl": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".arrow": "arrow",
    ".txt": "text",
}
"""Endings of local files that `datasets` reads, and its builder for each; a `.txt` file gives one text per line, in column `text`."""

SAVED: Final = "state.json"
"""A file that tells a folder of `Dataset.save_to_disk`."""

HUB_TIMEOUT = 10.0
"""Seconds to wait for the hub's answer."""

Record = Mapping[str, str | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Texts:
    """A source of texts.

    Attributes:
        record: what identifies the text in a plan: kind, name, hash or revision. No machine path.
        read: starts from the beginning on each call and gives the texts in the same order.
        streamed: read piece by piece because it may be larger than memory; its length is then not counted beforehand.
    """

    record: Record
    read: Callable[[], Iterator[Document]]
    streamed: bool = False


def as_texts(texts: Texts | str | Sequence[str | Document]) -> Texts:
    """A text, or a list of texts or documents, as a source.

    Raises:
        InputDataError: nothing in it, or something that is not text.
    """
    if isinstance(texts, Texts):
        return texts
    given = [texts] if isinstance(texts, str) else list(texts)
    if not given:
        raise InputDataError("texts is empty; give at least one text")
    wrong = next((i for i, x in enumerate(given) if not isinstance(x, str | Document)), None)
    if wrong is not None:
        raise InputDataError(
            f"texts[{wrong}] is a {type(given[wrong]).__name__}; every text must be a str or a Document"
        )
    documents = [x if isinstance(x, Document) else Document(name=f"text {i}", text=x) for i, x in enumerate(given)]
    digest = corpus_record(documents)["sha256"]
    return Texts(record={"kind": "texts", "sha256": digest}, read=lambda: iter(documents))


def sampled(texts: Texts, share: float, *, seed: int) -> Texts:
    """A share of the texts, drawn by a hash of the seed and a text's place: the same ones each time, in their order, without a look ahead.

    Raises:
        OptionError: the share is not between 0 and 1.
    """
    if not 0.0 < share <= 1.0:
        raise OptionError(f"sample must be a share above 0 and at most 1, such as 0.1; got {share}")

    def chosen(place: int) -> bool:
        digest = hashlib.sha256(f"{seed}:{place}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < share * 2**64

    return Texts(
        record={**texts.record, "sample": f"{share:g} by seed {seed}"},
        read=lambda: (document for place, document in enumerate(texts.read()) if chosen(place)),
        streamed=texts.streamed,
    )


def from_file(path: str | Path) -> Texts:
    """A UTF-8 file as one text, its line ends as they are.

    Raises:
        InputDataError: it cannot be read, is not UTF-8, or is empty.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputDataError(
            f"cannot read the text file {path}: {error.strerror}; give the path of a readable file"
        ) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputDataError(
            f"{path.name} is not UTF-8: byte {error.start} is 0x{content[error.start]:02x}; convert the file, for example with iconv"
        ) from error
    if not text.strip():
        raise InputDataError(f"{path.name} holds no text; give a file with something in it")
    document = Document(name=path.name, text=text)
    digest = hashlib.sha256(content).hexdigest()
    return Texts(record={"kind": "file", "name": path.name, "sha256": digest}, read=lambda: iter([document]))


def from_corpus(part: str = "topics") -> Texts:
    """The text that comes with Python: "topics" (whole), or "docstrings", "comments" or "all" without repeated paragraphs.

    Raises:
        OptionError: an unknown part.
    """
    chosen = next((p for p in get_args(Part) if p == part), None)
    if chosen is None:
        raise OptionError(f"corpus must be one of {', '.join(get_args(Part))}; got {part!r}")
    documents = topics() if chosen == "topics" else corpus(part=chosen)
    record = {"kind": "corpus", "name": part, **corpus_record(documents)}
    return Texts(record=record, read=lambda: iter(documents))


def from_dataset(name: str, *, column: str | Rendering, split: str = "train", revision: str | None = None) -> Texts:
    """A data set through Hugging Face `datasets`, streamed row by row; each row is a text.

    Args:
        name: a local .jsonl, .json, .parquet, .csv, .arrow or .txt file, a folder that `save_to_disk` wrote, or a data set's name on the hub.
        column: which column holds the text; or a `Template` or `Chat` (`interp.batch.templates`) that makes it of the row.
        split: which split of a hub data set; a local file or folder has only "train".
        revision: branch, tag or commit of a hub data set; the plan records the commit.

    Raises:
        InputDataError: no such file, data set, split or column, or rows that hold no text (raised when they are met).
        OfflineError: it would have to come from the hub, which cannot be reached.
    """
    made, path = rendering(column), Path(name)
    if path.suffix.lower() in BUILDERS or path.is_file() or (path / SAVED).exists():
        return _from_local(path, made, split)
    commit = _hub_commit(name, revision)
    record = {"kind": "dataset", "name": name, **made.record(), "split": split, "revision": commit}
    return Texts(
        record=record,
        streamed=True,
        read=lambda: _rows(name, made, lambda d: d.load_dataset(name, split=split, revision=commit, streaming=True)),
    )


def _from_local(path: Path, made: Rendering, split: str) -> Texts:
    folder, builder = path.is_dir(), BUILDERS.get(path.suffix.lower())
    if builder is None and not folder:
        raise InputDataError(
            f"{path.name}: its ending is none of {', '.join(BUILDERS)}; rename it, or use --text for plain text"
        )
    if split != "train":
        raise InputDataError(f"a local file has only the split 'train'; got {split!r}")
    try:
        digest = _sha256(sorted(path.glob("*.arrow")) if folder else [path])
    except OSError as error:
        raise InputDataError(
            f"cannot read the data set {path}: {error.strerror}; give a readable file, or a hub name"
        ) from error
    record = {"kind": "dataset", "name": path.name, **made.record(), "split": split, "sha256": digest}

    def opened(datasets: Any) -> Any:
        if folder:
            return datasets.load_from_disk(str(path))
        return datasets.load_dataset(builder, data_files=str(path), split="train", streaming=True)

    return Texts(record=record, streamed=True, read=lambda: _rows(path.name, made, opened))


def _sha256(files: Sequence[Path]) -> str:
    """Hash of the contents of files, one after the other."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _rows(name: str, made: Rendering, opened: Callable[[Any], Any]) -> Iterator[Document]:
    """The texts of a data set, each named by its row; whatever `datasets` raises is said in one sentence."""
    import datasets

    number = 0
    try:
        for number, row in enumerate(opened(datasets)):
            yield Document(name=f"{name}:{number}", text=made.render(row, f"{name}, row {number}"))
    except (InputDataError, OfflineError):
        raise
    except ConnectionError as error:
        raise OfflineError(
            f"data set {name!r} cannot be fetched: {_first_line(error)}; check the network, or give a local file"
        ) from error
    except Exception as error:  # datasets, pyarrow and json raise a zoo of types for bad data
        raise InputDataError(f"data set {name!r} cannot be read after {number} rows: {_first_line(error)}") from error


def _hub_commit(name: str, revision: str | None) -> str | None:
    """The commit that a hub data set's revision stands for now, so that resuming reads the same rows."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]  (the one name that httpx has in hub 1.x and 2.x)
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return HfApi().dataset_info(name, revision=revision, timeout=HUB_TIMEOUT).sha
    except GatedRepoError as error:
        raise InputDataError(
            f"the hub shows data set {name!r} only to people who accepted its terms; do so, then run `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise InputDataError(
            f"data set {name!r} has no revision {revision!r} on the hub; see its page's history"
        ) from error
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise InputDataError(
            f"there is no data set {name!r}, neither as a file here nor on the hub; known file endings are {', '.join(BUILDERS)}"
        ) from error
    except (HTTPError, OSError) as error:
        raise OfflineError(
            f"data set {name!r} is no file here, and the hub does not answer ({_first_line(error)}); give a local file, or connect"
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
