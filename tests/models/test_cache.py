"""A cache folder is whole or absent, whatever happens: damage, kill -9 while it is written, two processes at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time

import pytest

from interp.errors import OutputError
from interp.models.cache import MANIFEST, cache_folder, ensure, fault, file_sha256

CONTENT = {"one.bin": bytes(range(256)) * 41, "two.json": b"{}"}
fork = multiprocessing.get_context("fork")


def fill(folder):
    for name, data in CONTENT.items():
        (folder / name).write_bytes(data)


def refuse(folder):
    raise AssertionError("a whole folder was built again")


def hidden(folder):
    return sorted(path.name for path in folder.parent.iterdir() if path.name.startswith(f".{folder.name}.partial"))


def test_a_folder_is_built_once_and_says_what_it_holds(tmp_path):
    folder = tmp_path / "models" / "m-1"
    assert fault(folder) == "absent"
    assert ensure(folder, fill=fill, record={"name": "m"}) == folder
    assert fault(folder) is None
    ensure(folder, fill=refuse, record={})
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["name"] == "m"
    assert {name: row["size"] for name, row in manifest["files"].items()} == {"one.bin": 10496, "two.json": 2}
    # sha256sum of the two bytes {}
    assert manifest["files"]["two.json"]["sha256"].startswith("44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e83")
    assert hidden(folder) == []


def cut(folder):
    (folder / "one.bin").write_bytes(CONTENT["one.bin"][:-1])


def flip(folder):
    data = bytearray(CONTENT["one.bin"])
    data[5000] ^= 1
    (folder / "one.bin").write_bytes(bytes(data))


def remove(folder):
    (folder / "two.json").unlink()


def add(folder):
    (folder / "added_tokens.json").write_text("{}")


def spoil_manifest(folder):
    (folder / MANIFEST).write_text('{"format": 1, "files": ')


def old_format(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"format": 0}))


@pytest.mark.parametrize("damage", [cut, flip, remove, add, spoil_manifest, old_format])
def test_damage_is_found_reported_and_repaired(damage, tmp_path, caplog):
    folder = tmp_path / "m"
    ensure(folder, fill=fill, record={})
    damage(folder)
    assert fault(folder) not in (None, "absent")
    ensure(folder, fill=fill, record={})
    assert "damaged" in caplog.text
    assert fault(folder) is None
    assert {name: (folder / name).read_bytes() for name in CONTENT} == CONTENT
    assert sorted(path.name for path in folder.iterdir()) == sorted([*CONTENT, MANIFEST])
    assert hidden(folder) == []


def test_a_file_that_is_open_survives_the_repair(tmp_path):
    folder = tmp_path / "m"
    ensure(folder, fill=fill, record={})
    with (folder / "one.bin").open("rb") as old:
        add(folder)
        ensure(folder, fill=fill, record={})
        assert old.read() == CONTENT["one.bin"]


def die_half_way(folder):
    def fill_and_die(partial):
        (partial / "one.bin").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    ensure(folder, fill=fill_and_die, record={})


def test_kill_while_writing_leaves_no_folder_and_no_litter_after_the_next_run(tmp_path):
    folder = tmp_path / "m"
    child = fork.Process(target=die_half_way, args=(folder,))
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    assert not folder.exists()
    assert len(hidden(folder)) == 1
    ensure(folder, fill=fill, record={})
    assert fault(folder) is None
    assert hidden(folder) == []


def build_slowly(folder, log):
    def slow(partial):
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.5)
        fill(partial)

    ensure(folder, fill=slow, record={})
    assert fault(folder) is None


def test_two_processes_build_once_and_both_get_a_whole_folder(tmp_path):
    folder, log = tmp_path / "m", tmp_path / "log"
    children = [fork.Process(target=build_slowly, args=(folder, log)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert log.read_text() == "built\n"


def test_an_error_while_filling_leaves_nothing(tmp_path):
    def fail(partial):
        (partial / "one.bin").write_bytes(b"half")
        raise RuntimeError("no weights")

    with pytest.raises(RuntimeError, match="no weights"):
        ensure(tmp_path / "m", fill=fail, record={})
    assert [path.name for path in tmp_path.iterdir()] == [".m.lock"]


def test_a_cache_that_cannot_be_written_says_which_variable_to_set(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="INTERP_CACHE"):
        ensure(tmp_path / "file" / "models" / "m", fill=fill, record={})


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("INTERP_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / "home" / ".cache" / "interp"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "interp"
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_a_changed_file_is_hashed_again(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"")
    assert file_sha256(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    path.write_bytes(b"abc")
    assert file_sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
