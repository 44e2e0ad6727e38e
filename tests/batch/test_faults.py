"""What goes wrong with the text and the disk of a long scan: it is said in one sentence, finished shards are kept, and what is repaired goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.batch.scan import scan
from interp.batch.status import job_status
from interp.batch.texts import Texts, from_dataset, from_file
from interp.errors import InputDataError, OutputError
from interp.models.hooked import HookedModel
from interp.models.toy import tiny
from interp.tasks.corpus import Document

LINE = "the cat sat on the mat and looked at the other cat, number {}"
SETTINGS: dict[str, Any] = {"context": 48, "shard": 1, "thumbnails": 0, "collect": ["entropy"]}


@pytest.fixture(scope="module")
def llama() -> Iterator[HookedModel]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny("llama")
    torch.set_num_threads(threads)


@pytest.mark.parametrize("row", ['{"text": "cut sho', '{"text": null}', '{"other": "x"}', '{"text": "\\ud800"}'])
def test_a_corrupt_row_ends_the_scan_and_is_named(llama: HookedModel, tmp_path: Path, row: str) -> None:
    rows = [json.dumps({"text": LINE.format(i)}) for i in range(7)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([*rows[:5], row, *rows[5:]]) + "\n", encoding="utf-8")
    with pytest.raises(InputDataError, match=r"rows\.jsonl"):
        scan(llama, from_dataset(str(path), column="text"), out=tmp_path / "out", **SETTINGS)
    assert not (tmp_path / "out" / "stats.parquet").exists()


def test_a_source_that_breaks_off_keeps_its_finished_shards_and_goes_on(llama: HookedModel, tmp_path: Path) -> None:
    broken = [True]

    def read() -> Iterator[Document]:
        for i in range(7):
            if broken[0] and i == 5:
                raise InputDataError("the connection was lost after row 5")
            yield Document(name=str(i), text=LINE.format(i))

    texts = Texts(record={"kind": "stream", "name": "lossy"}, read=read, streamed=True)
    with pytest.raises(InputDataError, match="connection was lost"):
        scan(llama, texts, out=tmp_path / "out", **SETTINGS)
    status = job_status(tmp_path / "out")
    assert (status.state, status.shards) == ("stopped", 5)
    broken[0] = False
    scan(llama, texts, out=tmp_path / "out", **SETTINGS)
    scan(llama, texts, out=tmp_path / "whole", **SETTINGS)
    assert (tmp_path / "out" / "stats.parquet").read_bytes() == (tmp_path / "whole" / "stats.parquet").read_bytes()


def test_empty_texts_are_left_out_and_counted(llama: HookedModel, tmp_path: Path) -> None:
    texts = ["", LINE.format(1), "\n \t", LINE.format(2)]
    tokens = scan(llama, texts, out=tmp_path / "a", **SETTINGS).manifest["tokens"]
    assert (tokens["texts"], tokens["empty_texts"]) == (4, 2)
    with pytest.raises(InputDataError, match="none of which holds 16 tokens"):
        scan(llama, ["", "\n"], out=tmp_path / "b", **SETTINGS)


def test_a_text_longer_than_the_context_is_cut_and_nothing_of_it_lost(llama: HookedModel, tmp_path: Path) -> None:
    # 47 tokens of text and BOS: 200 bytes are 4 contexts and a rest of 12, which is dropped and counted
    tokens = scan(llama, "x" * 200, out=tmp_path, **SETTINGS).manifest["tokens"]
    assert (tokens["contexts"], tokens["tokens"]) == (4, 4 * 48)
    assert tokens["dropped"] == {"rests": 1, "tokens": 12, "shorter_than": 16}


def test_text_that_is_not_utf8(llama: HookedModel, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(LINE.encode() + b"\xff\xfe" + LINE.encode())
    with pytest.raises(InputDataError, match=r"a\.txt is not UTF-8: byte 61 is 0xff"):
        from_file(tmp_path / "a.txt")
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "' + b"\xff" * 30 + b'"}\n')
    with pytest.raises(InputDataError, match=r"a\.jsonl"):
        scan(llama, from_dataset(str(tmp_path / "a.jsonl"), column="text"), out=tmp_path / "out", **SETTINGS)


def test_an_output_that_cannot_be_written(llama: HookedModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for out in (tmp_path / "file", tmp_path / "file" / "inner"):
        with pytest.raises(OutputError, match=r"cannot write .*file"):
            scan(llama, LINE * 3, out=out, **SETTINGS)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
