"""Files are whole or absent, whatever happens while they are written; a folder has one user at a time; Ctrl-C has two steps."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from interp.batch.files import make_folder, read_json, write_file, write_json
from interp.batch.interrupt import two_step_interrupts
from interp.batch.lock import locked
from interp.errors import CorruptFileError, OutputError


def test_json_round_trip(tmp_path: Path) -> None:
    record = {"a": [1, None, 2.5], "é": "<b>"}
    write_json(tmp_path / "a.json", record)
    assert read_json(tmp_path / "a.json") == record


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_damaged_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "no permission"), (errno.EIO, "choose")]
)
def test_a_failed_write_changes_nothing(tmp_path: Path, number: int, words: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before", encoding="utf-8")

    def write(temporary: Path) -> None:
        temporary.write_text("aft", encoding="utf-8")
        raise OSError(number, os.strerror(number))

    with pytest.raises(OutputError, match=rf"cannot write a\.txt: .*{words}"):
        write_file(path, write)
    assert path.read_text(encoding="utf-8") == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_ctrl_c_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        temporary.write_text("half", encoding="utf-8")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "a.txt", write)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "inner"):
        with pytest.raises(OutputError, match="choose another folder"):
            make_folder(folder)


def test_one_user_at_a_time(tmp_path: Path) -> None:
    words = rf"another process \(number {os.getpid()}\) is working on"
    with locked(tmp_path), pytest.raises(OutputError, match=words), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_killed_user_leaves_the_folder_free(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom interp.batch.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=f"number {holder.pid}"), locked(tmp_path):
            pass
        holder.kill()
        holder.wait()
    with locked(tmp_path):
        pass


def test_lock_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"), locked(tmp_path / "gone"):
        pass


def test_first_ctrl_c_asks_and_second_aborts() -> None:
    before = signal.getsignal(signal.SIGINT)
    told: list[str] = []
    with two_step_interrupts(lambda: told.append("once")) as state:
        assert not state.asked
        signal.raise_signal(signal.SIGINT)
        assert state.asked
        assert told == ["once"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_handler_is_put_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="inner"), two_step_interrupts(lambda: None):
        raise ValueError("inner")
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_leave_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with two_step_interrupts(lambda: None) as state:
            seen.extend([signal.getsignal(signal.SIGINT), state.asked])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, False]
