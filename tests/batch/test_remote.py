"""Places behind URLs: files appear whole, are listed at once, and a scan that writes to them gives the bytes of one that writes to a folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner, Result

from interp.batch.places import LocalPlace, Place, open_place
from interp.batch.remote import RemotePlace
from interp.batch.scan import scan
from interp.cli.main import app
from interp.errors import CorruptFileError, OptionError, OutputError
from interp.models.toy import tiny

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen, thirteen, thirteen. " * 4
START_SECONDS = 60.0


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URL of a bucket on an S3 server of this machine."""
    for package in ("s3fs", "moto.server"):
        pytest.importorskip(package, reason="s3fs or moto is not installed: pip install s3fs 'moto[s3,server]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    given = {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        try:
            until = time.monotonic() + START_SECONDS
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    assert server.poll() is None and time.monotonic() < until, "the S3 server did not start"
                    time.sleep(0.1)
            import s3fs

            s3fs.S3FileSystem().mkdir("scans")
            yield "s3://scans"
        finally:
            server.kill()
            server.wait()


def kept_promises(place: Place) -> None:
    """What the job relies on."""
    assert place.names() == set() and not place.has("000000.parquet")
    place.write("000000.parquet", b"first")
    place.write("a/000001.parquet", b"second")
    assert place.names() == {"000000.parquet", "a/000001.parquet"}
    assert place.has("a/000001.parquet") and not place.has("a")
    place.write("000000.parquet", b"anew")
    with place.open("000000.parquet") as file:
        assert file.seekable() and file.read() == b"anew"
    with pytest.raises(CorruptFileError, match=r"gone\.parquet cannot be read"):
        place.open("gone.parquet")


def test_folder(tmp_path: Path) -> None:
    kept_promises(LocalPlace(folder=tmp_path))
    assert open_place(f"file://{tmp_path}") == LocalPlace(folder=tmp_path)


def test_store_that_writes_whole() -> None:
    kept_promises(open_place(f"memory://{uuid.uuid4().hex}/parts"))


def test_file_system_that_needs_a_move(tmp_path: Path) -> None:
    kept_promises(RemotePlace(url=f"local://{tmp_path}/parts"))
    (tmp_path / "parts/.000002.parquet.77.tmp").write_bytes(b"cut sho")
    assert len(RemotePlace(url=f"local://{tmp_path}/parts").names()) == 2


@pytest.mark.medium
def test_s3(s3: str, tmp_path: Path) -> None:
    kept_promises(open_place(f"{s3}/promises"))
    model, settings = tiny("llama"), {"context": 64, "shard": 1, "thumbnails": 0}
    scan(model, TEXT, out=tmp_path / "folder", **settings)
    scan(model, TEXT, out=tmp_path / "s3", shards=f"{s3}/job/parts", **settings)
    assert (tmp_path / "s3/stats.parquet").read_bytes() == (tmp_path / "folder/stats.parquet").read_bytes()
    assert not list((tmp_path / "s3").rglob("[0-9]*.parquet"))
    place = open_place(f"{s3}/job/parts")
    shards = {name for name in place.names() if name.endswith(".parquet")}
    assert shards == {path.name for path in (tmp_path / "folder/parts").glob("*.parquet")}


@pytest.mark.medium
def test_a_job_on_s3_goes_on_by_its_folder(s3: str, tmp_path: Path) -> None:
    text, out = tmp_path / "a.txt", tmp_path / "out"
    text.write_text(TEXT, encoding="utf-8")

    def interp(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words])

    words = ("--context", 64, "--per-shard", 1, "--thumbnails", 0, "--statistics", "entropy", "-q")
    begun = interp("scan", "tiny/llama", "--text", text, "--out", out, "--shards", f"{s3}/again/parts", *words)
    assert begun.exit_code == 0, begun.stderr
    table, place = (out / "stats.parquet").read_bytes(), open_place(f"{s3}/again/parts")
    shards = len(place.names())
    (out / "manifest.json").unlink()
    fsspec.filesystem("s3").rm(f"{s3}/again/parts/000001.parquet")
    told = json.loads(interp("job", "status", out, "--json").stdout)
    assert (told["shards"], told["shards_total"], told["state"]) == (shards - 1, shards, "stopped")
    assert interp("job", "merge", out, "-q").exit_code == 3
    assert interp("job", "resume", out, "-q").exit_code == 0
    assert (out / "stats.parquet").read_bytes() == table
    assert len(place.names()) == shards
    for name in ("plan.json", "command.json"):
        assert f"{s3}/again/parts" in (kept := (out / "parts" / name).read_text(encoding="utf-8"))
        assert "nobody" not in kept and "nothing" not in kept, "no key is written down"


@pytest.mark.medium
def test_s3_bucket_that_is_not_there(s3: str) -> None:
    with pytest.raises(OutputError, match=r"cannot write 000000\.parquet to s3://nobodys/parts"):
        open_place("s3://nobodys/parts").write("000000.parquet", b"x")


def test_unknown_and_unwritable(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="gopher://old/place cannot be used"):
        open_place("gopher://old/place")
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot write a\.parquet to local://"):
        RemotePlace(url=f"local://{blocked}/parts").write("a.parquet", b"x")
    assert os.listdir(tmp_path) == ["file"]
