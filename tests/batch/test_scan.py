"""The whole scan on a tiny model: its numbers against dense float64 attention, its files, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interp.batch.events import Event
from interp.batch.interrupt import ScanInterruptedError
from interp.batch.lock import locked
from interp.batch.result import ScanResult, open_scan
from interp.batch.scan import scan
from interp.batch.texts import Texts, as_texts, from_dataset
from interp.errors import InputDataError, OptionError, OutputError, PlanMismatchError, UnsupportedModelError
from interp.maps.thumbnail import load_thumbnails
from interp.models.hooked import HookedModel
from interp.models.toy import tiny, tiny_parts
from interp.stats.catalogue import names
from interp.tasks.corpus import Document

BOS = 1
CONTEXT = 53
TEXTS = [
    "The <script>alert(1)</script> cat sat on the mat; the cat sat on the hat. " * 2,
    "A short one, but long enough.",
    "tiny",
    "Do the same thing again and again and again, and the same thing happens again.",
]
SETTINGS: dict[str, Any] = {"context": CONTEXT, "shard": 2}


@pytest.fixture(scope="module")
def llama() -> Iterator[HookedModel]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny("llama")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def done(llama: HookedModel, tmp_path_factory: pytest.TempPathFactory) -> ScanResult:
    return scan(llama, TEXTS, out=tmp_path_factory.mktemp("scan") / "done", **SETTINGS)


def contexts_by_hand() -> list[list[int]]:
    """The contexts of TEXTS, cut here once more: bytes have the ids 7 to 262 in the order of GPT-2's byte alphabet."""
    llama = tiny_parts("llama")
    assert llama.tokenizer is not None
    cut = []
    for text in TEXTS:
        ids = [llama.tokenizer.convert_tokens_to_ids(t) for t in llama.tokenizer.tokenize(text)]
        pieces = [ids[i : i + CONTEXT - 1] for i in range(0, len(ids), CONTEXT - 1)]
        cut += [[BOS, *piece] for piece in pieces if len(piece) >= 16]
    return cut


@pytest.fixture(scope="module")
def dense() -> list[tuple[np.ndarray, np.ndarray]]:
    """(ids, attention [layer, head, query, key]) of each context in float64, from Hugging Face's own eager attention."""
    hf = tiny_parts("llama").hf.double()
    hf.set_attn_implementation("eager")
    out = []
    for ids in contexts_by_hand():
        with torch.no_grad():
            attentions = hf(torch.tensor([ids]), output_attentions=True).attentions
        out.append((np.array(ids), torch.stack([a[0] for a in attentions]).numpy()))
    return out


def dense_values(name: str, ids: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The defined values of a statistic in one context, [layer, head, value], by its definition."""
    n = len(ids)
    if name == "first_token_mass":
        return p[..., 0]
    if name == "previous_token_mass":
        return np.stack([p[:, :, i, i - 1] for i in range(1, n)], axis=-1)
    if name == "normalised_entropy":
        terms = np.where(p > 0, -p * np.log(np.where(p > 0, p, 1)), 0)
        return np.stack([terms[:, :, i].sum(-1) / np.log(i + 1) for i in range(1, n)], axis=-1)
    if name == "mean_distance":
        i, j = np.indices((n, n))
        return (p * (i - j)).sum(-1)
    if name == "induction_mass":
        rows = [i for i in range(n) if ids[i] in ids[:i]]
        after = [[j for j in range(1, i + 1) if ids[j - 1] == ids[i]] for i in rows]
        return np.stack([p[:, :, i, js].sum(-1) for i, js in zip(rows, after, strict=True)], axis=-1)
    if name == "received_mass":
        return p.sum(-2)
    if name == "alpha":
        return np.stack([p[:, :, :, j].sum(-1) / (n - j) for j in range(n - 15)], axis=-1)
    assert name == "first_token_alpha"
    return p[..., 0].mean(-1, keepdims=True)


@pytest.mark.parametrize(
    "name",
    [
        *("first_token_mass", "previous_token_mass", "normalised_entropy", "mean_distance"),
        *("induction_mass", "received_mass", "alpha", "first_token_alpha"),
    ],
)
def test_numbers_are_those_of_dense_attention(done: ScanResult, dense: list[Any], name: str) -> None:
    together = np.concatenate([dense_values(name, ids, p) for ids, p in dense], axis=-1)
    frame = done.frame[done.frame.statistic == name]
    layers, heads = together.shape[:2]
    assert list(zip(frame.layer, frame["head"], strict=True)) == [(i, h) for i in range(layers) for h in range(heads)]
    assert set(frame["count"]) == {together.shape[-1]}
    for column, wanted in (
        ("value", together.mean(-1)),
        ("std", together.std(-1, ddof=1)),
        ("min", together.min(-1)),
        ("max", together.max(-1)),
    ):
        got = frame[column].to_numpy().reshape(layers, heads)
        scale = max(1.0, float(np.abs(wanted).max()))
        assert np.abs(got - wanted).max() < 1e-5 * scale, column


def test_everything_is_measured_by_default(done: ScanResult) -> None:
    assert set(names()) - {"learned_sink_mass"} == set(done.statistics)
    assert done.frame["value"].notna().mean() > 0.95


def test_files_and_manifest(done: ScanResult) -> None:
    folder = done.folder
    assert {p.name for p in folder.iterdir()} == {"stats.parquet", "manifest.json", "report.html", "parts"}
    parts = {p.name for p in (folder / "parts").iterdir()} - {".lock"}
    assert parts == {"plan.json", "000000.parquet", "000001.parquet", "000002.parquet", "maps.safetensors", "maps.json"}
    cut = contexts_by_hand()
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest == json.loads(json.dumps(done.manifest))
    tokens = manifest["tokens"]
    assert tokens["tokens"] == sum(map(len, cut))
    assert tokens["contexts"] == len(cut) == 6
    assert tokens["distinct_tokens"] == len({i for ids in cut for i in ids})
    # 150 bytes leave a rest of 46 after two contexts of 52, 78 one of 26; "tiny" is too short.
    assert tokens["dropped"] == {"rests": 1, "tokens": 4, "shorter_than": 16}
    assert manifest["shards"] == 3
    assert manifest["model"]["name"] == "tiny/llama-0"
    assert manifest["statistics"]["induction_mass"]["formula"].startswith("sum of p_ij")
    assert manifest["backends"]
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["threads"] == 1
    assert manifest["tokens_per_second"] > 0
    assert manifest["key"] == json.loads((folder / "parts" / "plan.json").read_text(encoding="utf-8"))["key"]


def test_no_file_names_a_place_on_this_machine(done: ScanResult) -> None:
    for path in done.folder.rglob("*"):
        if path.is_file() and path.name != ".lock":
            content = path.read_bytes()
            for place in (str(done.folder.parent), str(Path.home()), str(Path(__file__).parents[2])):
                assert place.encode() not in content, (path.name, place)


def test_result_opens_again(done: ScanResult) -> None:
    again = open_scan(done.folder)
    pd.testing.assert_frame_equal(again.frame, done.frame)
    assert again.report.exists()
    top = again.top("first_token_mass", 4)
    values = again.frame[again.frame.statistic == "first_token_mass"].sort_values("value", ascending=False)
    assert [(t.layer, t.head) for t in top] == list(zip(values.layer[:4], values["head"][:4], strict=True))
    assert [t.value for t in top] == values["value"][:4].tolist()
    with pytest.raises(OptionError, match="no statistic 'nothing'; it has: entropy"):
        again.top("nothing")


def test_pictures_are_exact(done: ScanResult, dense: list[Any]) -> None:
    pictures = load_thumbnails(done.folder / "parts" / "maps")
    heads = [(p.layer, p.head) for p in pictures if p.pool == "exact"]
    assert len(heads) == 6 == len(set(heads))
    top = done.top("first_token_mass", 1)[0]
    assert heads[0] == (top.layer, top.head)
    ids, p = dense[0]
    for picture in pictures:
        (i0, i1), (j0, j1) = picture.rows, picture.cols
        cells = p[picture.layer, picture.head, i0:i1, j0:j1]
        # The first context has 53 tokens, less than the 96 pixels of a tile: every pixel is a cell.
        assert np.abs(picture.weights - cells).max() < 1e-5
        if picture.pool == "exact":
            assert picture.weights.shape == (48, 48)
            assert picture.row_tokens == tiny("llama").tokens(ids[i0:i1].tolist())
            assert picture.col_tokens == tiny("llama").tokens(ids[j0:j1].tolist())


def test_a_finished_scan_is_not_run_again(done: ScanResult, llama: HookedModel) -> None:
    before = (done.folder / "stats.parquet").stat().st_mtime_ns
    events: list[Event] = []
    again = scan(llama, TEXTS, out=done.folder, progress=events.append, **SETTINGS)
    assert [e.kind for e in events] == ["done"]
    assert events[0].message == "already done"
    assert (done.folder / "stats.parquet").stat().st_mtime_ns == before
    assert again.manifest == json.loads(json.dumps(done.manifest))
    with pytest.raises(OutputError, match="holds a scan already"):
        scan(llama, TEXTS, out=done.folder, resume="never", **SETTINGS)


def test_a_lost_report_is_written_again(done: ScanResult, llama: HookedModel) -> None:
    page = done.report.read_text(encoding="utf-8")
    done.report.unlink()
    scan(llama, TEXTS, out=done.folder, resume="require", **SETTINGS)
    assert done.report.read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"context": 52}, "context: 53 / 52"),
        ({"shard": 3}, "shard: 2 / 3"),
        ({"layers": [0]}, r"layers: \[0, 1, 2\] / \[0\]"),
        ({"bos": False}, 'bos: .*/ "forced off"'),
        ({"join": True}, "join: false / true"),
        ({"max_tokens": 90}, "max_tokens: null / 90"),
        ({"collect": ["entropy"]}, "statistics: "),
    ],
)
def test_another_plan_is_refused(done: ScanResult, llama: HookedModel, change: dict[str, Any], named: str) -> None:
    before = {p: p.stat().st_mtime_ns for p in done.folder.rglob("*") if p.name != ".lock"}
    with pytest.raises(PlanMismatchError, match=named):
        scan(llama, TEXTS, out=done.folder, **{**SETTINGS, **change})
    assert before == {p: p.stat().st_mtime_ns for p in done.folder.rglob("*") if p.name != ".lock"}


def test_another_text_and_another_model_are_refused(done: ScanResult, llama: HookedModel) -> None:
    with pytest.raises(PlanMismatchError, match=r"text\.sha256"):
        scan(llama, [*TEXTS[:-1], TEXTS[-1] + "!"], out=done.folder, **SETTINGS)
    with pytest.raises(PlanMismatchError, match=r'model\.name: "tiny/llama-0" / "tiny/llama-1"'):
        scan(tiny("llama", seed=1), TEXTS, out=done.folder, **SETTINGS)


def test_models_wrapped_by_hand_are_known_by_their_weights(tmp_path: Path) -> None:
    from interp.models.hooked import wrap

    options = {**SETTINGS, "collect": ["entropy"], "thumbnails": 0}
    for seed in (0, 1):
        parts = tiny_parts("llama", seed=seed)
        model = wrap(parts.hf, parts.tokenizer)
        if seed == 0:
            scan(model, TEXTS[0], out=tmp_path, **options)
            continue
        with pytest.raises(PlanMismatchError, match=r"model\.weights_sha256"):
            scan(model, TEXTS[0], out=tmp_path, **options)


def test_layers_and_statistics_can_be_chosen(llama: HookedModel, done: ScanResult, tmp_path: Path) -> None:
    result = scan(llama, TEXTS, out=tmp_path, layers=[2, 0], collect=["alpha", "entropy"], thumbnails=0, **SETTINGS)
    assert set(result.frame.layer) == {0, 2}
    assert result.statistics == ("alpha", "entropy")
    wanted = done.frame[done.frame.layer.isin([0, 2]) & done.frame.statistic.isin(["alpha", "entropy"])]
    both = result.frame.merge(wanted, on=["layer", "head", "statistic"], suffixes=("", "_all"))
    assert len(both) == len(result.frame) == len(wanted)
    assert np.allclose(both["value"], both["value_all"], rtol=1e-6)
    assert load_thumbnails(tmp_path / "parts" / "maps") == []


def test_a_context_is_never_longer_than_the_model_allows(tmp_path: Path) -> None:
    gpt2 = tiny("gpt2")
    limit = gpt2.context_length
    assert limit is not None and limit < 2048
    result = scan(gpt2, "word " * limit, out=tmp_path, max_tokens=limit + 20, collect=["entropy"], thumbnails=0)
    assert result.manifest["plan"]["context"] == limit
    assert result.manifest["tokens"]["contexts"] == 2


def test_an_encoder_is_scanned_with_its_special_tokens(tmp_path: Path) -> None:
    bert = tiny("bert")
    result = scan(bert, TEXTS, out=tmp_path, context=40, collect=["entropy", "special_mass"])
    special = result.manifest["plan"]["special_tokens"]
    assert (len(special["before"]), len(special["after"])) == (1, 1)
    assert result.frame[result.frame.statistic == "special_mass"]["value"].gt(0).all()


@pytest.mark.parametrize("family", ["t5", "whisper", "vit"])
def test_models_that_do_not_read_one_text(tmp_path: Path, family: str) -> None:
    with pytest.raises(UnsupportedModelError, match="scan takes decoder-only and encoder-only"):
        scan(tiny(family), "text " * 20, out=tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"layers": [3]},
        {"layers": [-1]},
        {"layers": []},
        {"collect": ["nothing"]},
        {"collect": []},
        {"collect": ["span:needle"]},
        {"context": 3},
        {"shard": 0},
        {"max_tokens": 1},
    ],
)
def test_impossible_options(llama: HookedModel, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        scan(llama, TEXTS, out=tmp_path / "never", **{**SETTINGS, **wrong})
    assert not (tmp_path / "never").exists()


def test_nothing_to_resume(llama: HookedModel, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds nothing to resume"):
        scan(llama, TEXTS, out=tmp_path, resume="require", **SETTINGS)


def test_a_folder_with_foreign_files(llama: HookedModel, tmp_path: Path) -> None:
    (tmp_path / "stats.parquet").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"holds stats\.parquet but no plan\.json"):
        scan(llama, TEXTS, out=tmp_path, **SETTINGS)
    assert (tmp_path / "stats.parquet").read_bytes() == b"mine"


def test_an_output_that_cannot_be_written(llama: HookedModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot write"):
        scan(llama, TEXTS, out=tmp_path / "file" / "inner", **SETTINGS)


def test_two_scans_in_one_folder(llama: HookedModel, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    with locked(tmp_path / "parts"), pytest.raises(OutputError, match="another process"):
        scan(llama, TEXTS, out=tmp_path, **SETTINGS)


@pytest.mark.parametrize("texts", [[""], ["  \n "], ["short"]])
def test_too_little_text(llama: HookedModel, tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(InputDataError, match="none of which holds 16 tokens"):
        scan(llama, texts, out=tmp_path / "never", **SETTINGS)


def test_ctrl_c_finishes_the_shard_and_the_next_call_the_rest(
    llama: HookedModel, done: ScanResult, tmp_path: Path
) -> None:
    events: list[Event] = []

    def press(event: Event) -> None:
        events.append(event)
        if [e.kind for e in events].count("context") == 1 and event.kind == "context":
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(ScanInterruptedError) as caught:
        scan(llama, TEXTS, out=tmp_path, progress=press, **SETTINGS)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert [e.kind for e in events] == ["plan", "context", "notice", "context", "shard", "interrupted"]
    assert caught.value.event.shards == 1
    assert not (tmp_path / "stats.parquet").exists()
    with pytest.raises(OutputError, match="not finished: run the same"):
        open_scan(tmp_path)

    events.clear()
    scan(llama, TEXTS, out=tmp_path, progress=events.append, resume="require", **SETTINGS)
    assert [e.kind for e in events] == [*("plan", "shard", *["context", "context", "shard"] * 2, "done")]
    assert events[-1].shards == events[-1].shards_total == 3
    assert events[-1].tokens == events[-1].tokens_total == done.manifest["tokens"]["tokens"]
    assert events[-1].measured == sum(len(ids) for ids in contexts_by_hand()[2:])
    assert (tmp_path / "stats.parquet").read_bytes() == (done.folder / "stats.parquet").read_bytes()


def test_second_ctrl_c_aborts_at_once(llama: HookedModel, tmp_path: Path) -> None:
    def press(event: Event) -> None:
        if event.kind in ("context", "notice"):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        scan(llama, TEXTS, out=tmp_path, progress=press, **SETTINGS)
    assert not isinstance(caught.value, ScanInterruptedError)
    assert not list((tmp_path / "parts").glob("[0-9]*"))


def test_a_full_disk_keeps_finished_shards(
    llama: HookedModel, done: ScanResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    real = os.fsync

    def full_after_one_shard(handle: int) -> None:
        if "shard" in [e.kind for e in events]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_after_one_shard)
        with pytest.raises(OutputError, match=r"cannot write 000001\.parquet: the disk is full"):
            scan(llama, TEXTS, out=tmp_path, progress=events.append, **SETTINGS)
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == [".lock", "000000.parquet", "plan.json"]
    events.clear()
    scan(llama, TEXTS, out=tmp_path, progress=events.append, **SETTINGS)
    assert [e.kind for e in events].count("context") == 4
    assert (tmp_path / "stats.parquet").read_bytes() == (done.folder / "stats.parquet").read_bytes()


def test_a_deleted_shard_is_measured_again(llama: HookedModel, done: ScanResult, tmp_path: Path) -> None:
    scan(llama, TEXTS, out=tmp_path, **SETTINGS)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "parts" / "000001.parquet").unlink()
    events: list[Event] = []
    scan(llama, TEXTS, out=tmp_path, progress=events.append, **SETTINGS)
    assert [e.kind for e in events].count("context") == 2
    assert (tmp_path / "stats.parquet").read_bytes() == (done.folder / "stats.parquet").read_bytes()


def test_a_streamed_text_gives_the_same_numbers(llama: HookedModel, done: ScanResult, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"body": t}) + "\n" for t in TEXTS), encoding="utf-8")
    events: list[Event] = []
    texts = from_dataset(str(path), column="body")
    result = scan(llama, texts, out=tmp_path / "out", progress=events.append, **SETTINGS)
    assert events[0].tokens_total is None and events[0].shards_total is None
    pd.testing.assert_frame_equal(result.frame, done.frame)
    assert result.manifest["tokens"]["ids_sha256"] == done.manifest["tokens"]["ids_sha256"]


def test_a_streamed_text_that_changed_meanwhile(llama: HookedModel, tmp_path: Path) -> None:
    current = list(TEXTS)
    texts = Texts(
        record={"kind": "stream", "name": "changing"},
        read=lambda: (Document(name=str(i), text=t) for i, t in enumerate(current)),
        streamed=True,
    )
    scan(llama, texts, out=tmp_path, **SETTINGS)
    (tmp_path / "manifest.json").unlink()
    current[0] = current[0].replace("cat", "dog")
    with pytest.raises(PlanMismatchError, match=r"000000\.parquet measured another text"):
        scan(llama, texts, out=tmp_path, **SETTINGS)


def test_sources_are_read_anew_each_time() -> None:
    texts = as_texts(TEXTS)
    assert [d.text for d in texts.read()] == [d.text for d in texts.read()] == TEXTS
