"""Sources of text: read the same way each time, identified without machine paths, and clear about what is wrong with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from interp.batch.templates import Template
from interp.batch.texts import as_texts, from_corpus, from_dataset, from_file, sampled
from interp.errors import InputDataError, OfflineError, OptionError
from interp.tasks.corpus import Document

ROWS = ["first <b>text</b>", 'second, "quoted"', "third: é ☃"]


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps({"n": i, "body": t}) + "\n" for i, t in enumerate(ROWS)), encoding="utf-8")


def write_parquet(path: Path) -> None:
    pd.DataFrame({"n": range(3), "body": ROWS}).to_parquet(path)


def write_csv(path: Path) -> None:
    pd.DataFrame({"n": range(3), "body": ROWS}).to_csv(path, index=False)


@pytest.mark.parametrize(
    ("name", "write"), [("d.jsonl", write_jsonl), ("d.parquet", write_parquet), ("d.csv", write_csv)]
)
def test_local_data_sets(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    path = tmp_path / name
    write(path)
    texts = from_dataset(str(path), column="body")
    for _ in range(2):
        documents = list(texts.read())
        assert [d.text for d in documents] == ROWS
        assert [d.name for d in documents] == [f"{name}:{i}" for i in range(3)]
    assert texts.record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(tmp_path) not in json.dumps(dict(texts.record))


def test_local_lines(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one\ntwo\n", encoding="utf-8")
    assert [d.text for d in from_dataset(str(tmp_path / "lines.txt"), column="text").read()] == ["one", "two"]


def test_missing_column_lists_those_there_are(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl")
    with pytest.raises(InputDataError, match=r"d\.jsonl, row 0: there is no column 'text'; the columns are: n, body"):
        list(from_dataset(str(tmp_path / "d.jsonl"), column="text").read())


def test_a_column_of_numbers(tmp_path: Path) -> None:
    write_parquet(tmp_path / "d.parquet")
    with pytest.raises(InputDataError, match="row 0: column 'n' holds int, not text"):
        list(from_dataset(str(tmp_path / "d.parquet"), column="n").read())


def test_a_row_without_text(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"body": "fine"}\n{"body": null}\n', encoding="utf-8")
    with pytest.raises(InputDataError, match="row 1: column 'body' holds NoneType"):
        list(from_dataset(str(tmp_path / "d.jsonl"), column="body").read())


@pytest.mark.parametrize("content", [b'{"body": "fine"}\n{"body": "cut sho', b'{"body": "\xff\xfe"}\n', b"PAR1"])
def test_damaged_rows(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ("d.parquet" if content == b"PAR1" else "d.jsonl")
    path.write_bytes(content)
    with pytest.raises(InputDataError, match="cannot be read after"):
        list(from_dataset(str(path), column="body").read())


def test_unknown_data_set_without_network() -> None:
    with pytest.raises(OfflineError, match=r"'nobody/nothing' is no file here, and the hub does not answer"):
        from_dataset("nobody/nothing", column="text")


def test_impossible_data_set_names(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r"cannot read the data set .*gone\.jsonl"):
        from_dataset(str(tmp_path / "gone.jsonl"), column="text")
    with pytest.raises(InputDataError, match="neither as a file here nor on the hub"):
        from_dataset("not a name!", column="text")
    (tmp_path / "d.xml").write_text("<a/>", encoding="utf-8")
    with pytest.raises(InputDataError, match="its ending is none of"):
        from_dataset(str(tmp_path / "d.xml"), column="text")
    write_jsonl(tmp_path / "d.jsonl")
    with pytest.raises(InputDataError, match="only the split 'train'"):
        from_dataset(str(tmp_path / "d.jsonl"), column="body", split="test")


def test_hub_data_set_is_pinned_to_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    asked: list[Any] = []

    class Api:
        def dataset_info(self, name: str, *, revision: str | None, timeout: float) -> Any:
            asked.append((name, revision))
            return type("Info", (), {"sha": "c0ffee"})

    def load(name: str, **options: Any) -> list[dict[str, str]]:
        asked.append((name, options))
        return [{"text": "from the hub"}]

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(datasets, "load_dataset", load)
    texts = from_dataset("owner/set", column="text", split="test", revision="main")
    assert texts.record["revision"] == "c0ffee"
    assert [d.text for d in texts.read()] == ["from the hub"]
    assert asked == [("owner/set", "main"), ("owner/set", {"split": "test", "revision": "c0ffee", "streaming": True})]


def test_file_is_one_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufefféa\r\nb\n".encode())
    texts = from_file(path)
    assert [(d.name, d.text) for d in texts.read()] == [("a.txt", "éa\r\nb\n")]
    assert texts.record == {"kind": "file", "name": "a.txt", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(InputDataError, match="cannot read the text file"):
        from_file(path)
    path.write_bytes(b"abc\xe9def")
    with pytest.raises(InputDataError, match=r"a\.txt is not UTF-8: byte 3 is 0xe9"):
        from_file(path)
    path.write_bytes(b" \n\t\n")
    with pytest.raises(InputDataError, match="holds no text"):
        from_file(path)
    with pytest.raises(InputDataError, match="cannot read"):
        from_file(tmp_path)


def test_plain_texts() -> None:
    assert [d.text for d in as_texts("one").read()] == ["one"]
    assert [d.name for d in as_texts(["one", Document(name="n", text="two")]).read()] == ["text 0", "n"]
    assert as_texts(["a", "b"]).record != as_texts(["ab"]).record
    with pytest.raises(InputDataError, match="texts is empty"):
        as_texts([])


def test_corpus_parts() -> None:
    texts = from_corpus("topics")
    assert next(iter(texts.read())).name.startswith("topics/")
    assert set(texts.record) == {"kind", "name", "python", "sha256"}
    with pytest.raises(OptionError, match="corpus must be one of topics"):
        from_corpus("poems")


def test_arrow_files_and_saved_data_sets(tmp_path: Path) -> None:
    import datasets
    import pyarrow as pa

    table = pa.table({"n": range(3), "body": ROWS})
    with pa.OSFile(str(tmp_path / "d.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    datasets.Dataset(table).save_to_disk(str(tmp_path / "saved"), num_shards=2)
    for name in ("d.arrow", "saved"):
        texts = from_dataset(str(tmp_path / name), column="body")
        for _ in range(2):
            assert [(d.name, d.text) for d in texts.read()] == [(f"{name}:{i}", t) for i, t in enumerate(ROWS)]
    before = from_dataset(str(tmp_path / "saved"), column="body").record["sha256"]
    with next((tmp_path / "saved").glob("*.arrow")).open("ab") as file:
        file.write(b"x")
    assert from_dataset(str(tmp_path / "saved"), column="body").record["sha256"] != before


def test_rows_through_a_template(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl")
    texts = from_dataset(str(tmp_path / "d.jsonl"), column=Template(pattern="{n}: {body}"))
    assert [d.text for d in texts.read()] == [f"{i}: {t}" for i, t in enumerate(ROWS)]
    assert texts.record["template"] == "{n}: {body}" and "column" not in texts.record


def test_samples_are_the_same_each_time_and_nested() -> None:
    texts = as_texts([f"text {i}" for i in range(1000)])
    tenth, half = sampled(texts, 0.1, seed=5), sampled(texts, 0.5, seed=5)
    first = [d.text for d in tenth.read()]
    assert first == [d.text for d in tenth.read()]
    assert 70 <= len(first) <= 130  # binomial(1000, 0.1): three standard deviations
    places = [int(t.split()[1]) for t in first]
    assert places == sorted(places)
    assert set(first) < {d.text for d in half.read()}
    other = [d.text for d in sampled(texts, 0.1, seed=6).read()]
    assert len(set(first) & set(other)) < len(first) / 2
    records = [x.record for x in (texts, tenth, half, sampled(texts, 0.1, seed=6))]
    assert len({json.dumps(dict(r), sort_keys=True) for r in records}) == 4
    assert [d.text for d in sampled(texts, 1.0, seed=0).read()] == [d.text for d in texts.read()]
    for share in (0.0, -0.1, 1.5):
        with pytest.raises(OptionError, match="share above 0 and at most 1"):
            sampled(texts, share, seed=0)
