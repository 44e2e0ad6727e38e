"""The command that began a job, kept in its folder, so that `interp job resume | merge DIR` can run it again.

`parts/command.json` (`command.json` for several models) holds the values of the command's options, with files and folders as paths relative to the
job's folder. The plan beside it says what is measured, and never where.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from interp.errors import CorruptFileError, OutputError

if TYPE_CHECKING:
    from interp.batch.events import Event, Watcher

COMMAND: Final = "command.json"
FOLDING: Final = "interp.folding"
"""Key of the click context's `meta` that `interp job` sets when it runs a command again: whether nothing is to be measured."""
OUT: Final = "out"
NAMES: Final = ("model", "others", "dataset")
"""Options that are names or paths, whichever there is."""
PLACES: Final = ("shards",)
"""Options that are URLs or paths of folders, which need not be there yet."""
HERE_FROM: Final = "./"
"""What a kept path among them begins with, which no other name does."""


def folding(context: Any) -> bool:
    """Whether the command at hand is to fold what is there, and measure nothing."""
    return bool(context.meta.get(FOLDING))


def remembering(context: Any, out: Path, watcher: Watcher) -> Watcher:
    """A watcher that also keeps the command at hand in the job's folder (`out`), once the job has taken the folder."""
    if FOLDING in context.meta:
        return watcher  # it is the one that is kept there
    words, given = context.command_path.split()[1:], dict(context.params)

    def watch(event: Event) -> None:
        if event.kind == "plan":
            _keep(out, event.key, words, given)
        watcher(event)

    return watch


def command_again(folder: Path) -> tuple[list[str], dict[str, Any]]:
    """The words and options of the command that began a job, with `folder` as where its results go.

    Raises:
        OutputError: the folder holds no job that a command began.
        CorruptFileError: the file is damaged.
    """
    path = _command_file(folder)
    if not path.exists() and _command_file(folder.parent) == folder.parent / COMMAND:
        raise OutputError(f"{folder} is that of one of several models; give the folder of all of them, {folder.parent}")
    if not path.exists():
        raise OutputError(
            f"{folder} holds no job that a command began ({path.relative_to(folder)} is missing); call the same Python function again to go on"
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        files = {name: _each(value, lambda x: _place(folder, x)) for name, value in record["files"].items()}
        named = {name: _each(value, lambda x: _found(x, folder)) for name, value in record["named"].items()}
        options = record["options"] | named | files
        return list(record["words"]), options | {OUT: folder}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFileError(
            f"{path.name} cannot be read ({error}); run the command that began the job again"
        ) from error


def _command_file(folder: Path) -> Path:
    """Where the command of a job is kept, or of the jobs of several models."""
    from interp.batch.result import MODELS_FILE, PARTS

    return folder / COMMAND if (folder / MODELS_FILE).exists() else folder / PARTS / COMMAND


def _keep(out: Path, key: str, words: list[str], given: Mapping[str, Any]) -> None:
    """Write the command, whole or not at all, unless one that began the same plan is there."""
    from interp.batch.files import read_json, write_json

    path = _command_file(out)
    if path.exists() and read_json(path).get("key") == key:
        return
    files = {name: value for name, value in given.items() if name != OUT and _are_paths(value)}
    named = {name: _each(given[name], lambda x: _named(x, out)) for name in NAMES if given.get(name)}
    places = {name: str(given[name]).removeprefix("file://") for name in PLACES if given.get(name)}
    named |= {name: x if "://" in x else _relative(x, out) for name, x in places.items()}
    rest = {name: value for name, value in given.items() if name not in {OUT, *files, *named}}
    paths = {name: _each(value, lambda x: os.path.relpath(x, out)) for name, value in files.items()}
    write_json(path, {"key": key, "words": words, "files": paths, "named": named, "options": rest})


def _are_paths(value: Any) -> bool:
    """Whether an option's value is a path, or some of them."""
    return isinstance(value, Path) or (isinstance(value, (list, tuple)) and any(isinstance(x, Path) for x in value))


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """A changed value, or a list of them."""
    return [change(one) for one in value] if isinstance(value, (list, tuple)) else change(value)


def _place(folder: Path, relative: str) -> Path:
    return Path(os.path.normpath(folder / relative))


def _named(name: str, out: Path) -> str:
    return _relative(name, out) if os.path.exists(name) else name


def _relative(path: str, out: Path) -> str:
    return f"{HERE_FROM}{os.path.relpath(path, out)}"


def _found(name: str, folder: Path) -> str:
    return os.path.normpath(folder / name) if name.startswith(HERE_FROM) else name
