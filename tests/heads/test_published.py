"""Published head files: facts of their authors' data come out again, and every format survives a round trip."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.errors import CorruptFileError, OptionError, ShapeError
from interp.heads import published as p

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "published"
SCORES = DATA / "retrieval_head.llama-2-7b-80k.json"
LLAMA2, LLAMA31 = (
    DATA / f"duo.{name}.{p.GATES_FILE}" for name in ("Llama-2-7B-32K-Instruct", "Meta-Llama-3.1-8B-Instruct")
)
PATTERNS = DATA / "minference.Llama_3.1_8B_Instruct_128k.json"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="no published head files in ../shared/data/published beside the checkout"
)


@pytest.fixture(scope="module")
def scores():
    return p.read_scores(SCORES)


@needs_data
def test_retrieval_head_facts(scores):
    assert scores.shape == (586, 32, 32)
    table = p.scores_result(scores, name="llama-2-7b-80k").frame
    assert len(table) == 1024
    assert (table.score >= 0.1).sum() == 33
    assert (table.score >= 0.2).sum() == 14
    assert (table.score >= 0.5).sum() == 6
    assert (table.score == 0).mean() == pytest.approx(0.70, abs=0.005)
    assert (table.active == 1).sum() == 12
    assert table.control.isna().all(), "the file has no control"


@needs_data
def test_retrieval_head_top(scores):
    top = p.scores_result(scores, name="llama-2-7b-80k").top(6)
    assert [(layer, head, round(score, 3)) for layer, head, score in top] == [
        (16, 19, 0.943), (11, 15, 0.920), (8, 26, 0.800), (6, 9, 0.618), (7, 12, 0.614), (17, 22, 0.557),
    ]  # fmt: skip


@needs_data
def test_duo_shares_and_retrieval_heads_among_gates(scores):
    gates = p.read_gates(LLAMA2)
    assert gates.shape == (32, 32)
    assert p.read_gates(LLAMA31).shape == (32, 8)
    assert round(p.full_share(gates), 3) == 0.436
    assert round(p.full_share(p.read_gates(LLAMA31)), 3) == 0.914
    retrieval = scores.mean(0) >= 0.1
    assert retrieval.sum() == 33
    assert gates[retrieval].min() >= 0.82


@needs_data
def test_minference_facts():
    patterns = p.read_patterns(PATTERNS)
    assert len(patterns) == 1024
    assert set(patterns.pattern) == {"vertical_and_slash"}
    budgets = patterns.groupby(["vertical", "slash"]).size().to_dict()
    assert budgets == {
        (100, 800): 297, (1000, 6096): 279, (30, 800): 175, (3500, 100): 149, (500, 700): 120, (100, 750): 4,
    }  # fmt: skip
    assert patterns.score.mean() == pytest.approx(0.924, abs=5e-4)
    assert patterns.score.min() == pytest.approx(0.440, abs=5e-4)


@needs_data
def test_round_trip_of_the_published_files(scores, tmp_path):
    np.testing.assert_array_equal(p.read_scores(p.write_scores(tmp_path / "scores.json", scores)), scores)
    assert json.loads((tmp_path / "scores.json").read_text()) == json.loads(SCORES.read_text())
    for path in (LLAMA2, LLAMA31):
        config = p.read_gates_config(path.with_name(path.name.replace(p.GATES_FILE, p.CONFIG_FILE)))
        assert (config["sink_size"], config["recent_size"]) == (128, 256)
        folder = p.write_gates(tmp_path / path.stem, p.read_gates(path), config)
        assert (folder / "full_attention_heads.tsv").read_bytes() == path.read_bytes()
        assert p.read_gates_config(folder) == config
    p.write_patterns(tmp_path / "patterns.json", p.read_patterns(PATTERNS))
    assert (tmp_path / "patterns.json").read_text() == PATTERNS.read_text().rstrip("\n")


def test_formats_by_hand(tmp_path):
    scores = np.arange(12, dtype=np.float64).reshape(2, 2, 3)  # two samples, two layers, three heads
    written = json.loads(p.write_scores(tmp_path / "s.json", scores).read_text())
    assert list(written) == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]
    assert written["1-1"] == [4.0, 10.0]
    p.write_gates(
        tmp_path / "duo", np.array([[1.0, 0.0, -0.25], [0.5, 0.75, 1.5]]), {"sink_size": 16, "recent_size": 64}
    )
    loaded = np.loadtxt(tmp_path / "duo" / "full_attention_heads.tsv", dtype=float, delimiter="\t")  # as Duo does
    np.testing.assert_array_equal(loaded, [[1.0, 0.0, -0.25], [0.5, 0.75, 1.5]])
    assert json.loads((tmp_path / "duo" / "config.json").read_text()) == {"sink_size": 16, "recent_size": 64}
    rows = [(1, 0, "block_sparse", 1000, 6096, 0.5), (0, 1, "stream_llm", 100, 800, 0.75), (0, 0, "dense", 0, 0, 1.0)]
    p.write_patterns(tmp_path / "m.json", pd.DataFrame(rows, columns=list(p.PATTERN_COLUMNS)))
    assert json.loads((tmp_path / "m.json").read_text()) == [
        {"0": ["dense", 0, 0, 1.0], "1": ["stream_llm", 100, 800, 0.75]},
        {"0": ["block_sparse", 1000, 6096, 0.5]},
    ]


def test_results_by_hand(tmp_path):
    scores = np.array([[[0.0, 0.2, 1.0]], [[0.0, 0.4, 0.0]]])
    frame = p.scores_result(scores, name="mine").frame
    np.testing.assert_allclose(frame.score, [0.0, 0.3, 0.5])
    np.testing.assert_allclose(frame.spread, [0.0, np.sqrt(0.02), np.sqrt(0.5)])
    assert list(frame.active) == [0.0, 1.0, 0.5]
    gates = p.gates_result(np.array([[1.2, -0.1], [0.3, 0.6]]), {"sink_size": 4}, name="mine", queries_per_group=3)
    np.testing.assert_array_equal(gates.frame.score, [1, 1, 1, 0, 0, 0, 0.3, 0.3, 0.3, 0.6, 0.6, 0.6])
    assert list(gates.frame["head"]) == [0, 1, 2, 3, 4, 5] * 2
    table = pd.DataFrame([(0, 0, "dense", 0, 0, 1.0), (0, 1, "dense", 0, 0, 0.5)], columns=list(p.PATTERN_COLUMNS))
    patterns = p.patterns_result(table, name="mine")
    assert patterns.top(1) == [(0, 0, 1.0)]
    for result in (p.scores_result(scores, name="mine"), gates, patterns):
        again = type(result).load(result.save(tmp_path / result.kind))
        pd.testing.assert_frame_equal(again.frame, result.frame)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "as JSON"),
        ("[]", "no Retrieval_Head file"),
        ('{"0": [1, 2]}', "wanted \"layer-head\""),
        ('{"0-0": [1, 2], "0-1": [1]}', "runs were mixed"),
        ('{"0-0": [1, 2], "1-1": [1, 2]}', "wanted 2 x 2 heads, got 2"),
    ],
)  # fmt: skip
def test_broken_score_files_are_refused(tmp_path, text, says):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(CorruptFileError, match=says):
        p.read_scores(tmp_path / "s.json")


def test_other_broken_files_and_tables_are_refused(tmp_path):
    (tmp_path / "g.tsv").write_text("1.0\tno\n")
    with pytest.raises(CorruptFileError, match="tab-separated"):
        p.read_gates(tmp_path / "g.tsv")
    (tmp_path / "config.json").write_text('{"sink_size": 16}')
    with pytest.raises(CorruptFileError, match="recent_size"):
        p.read_gates_config(tmp_path)
    with pytest.raises(OptionError, match="recent_size"):
        p.write_gates(tmp_path, np.ones((2, 3)), {"sink_size": 16})
    (tmp_path / "m.json").write_text('[{"0": ["dense", 1]}]')
    with pytest.raises(CorruptFileError, match="MInference"):
        p.read_patterns(tmp_path / "m.json")
    twice = pd.DataFrame([(0, 0, "dense", 0, 0, 1.0)] * 2, columns=list(p.PATTERN_COLUMNS))
    with pytest.raises(OptionError, match="each head once"):
        p.write_patterns(tmp_path / "m.json", twice)
    with pytest.raises(ShapeError, match="finite"):
        p.write_scores(tmp_path / "s.json", np.full((2, 1, 3), np.nan))
