"""Sparse patterns: recalls against dense float64 masks written out cell by cell, against masked lse, and planted heads in their class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.errors import InputDataError, OptionError, UnsupportedModelError
from interp.heads import pattern_masks as masks
from interp.heads.pattern_masks import Candidate, equal_candidates, published_candidates
from interp.heads.patterns import patterns
from interp.heads.published import read_patterns, write_patterns
from interp.models.planted import HEADS, LAYERS, planted
from interp.models.toy import tiny
from interp.results import Result

TOKENS = 97
FIRST = 16
MINE = (
    Candidate(pattern="stream_llm", vertical=3, slash=5),
    Candidate(pattern="vertical_and_slash", vertical=4, slash=7),
    Candidate(pattern="vertical_and_slash", vertical=11, slash=2),
    Candidate(pattern="block_sparse", vertical=2, slash=8),
)
WINDOWS = {"llama": 10**9, "gpt2": 10**9, "mistral": 8}
IDS = np.random.default_rng(3).integers(7, 263, size=(2, TOKENS)).tolist()


@torch.no_grad()
def eager(hf, ids):
    """Attention [layer, head, query, key] in float64 by transformers' own eager attention; `hf` is changed."""
    hf = hf.double()
    hf.set_attn_implementation("eager")
    return torch.stack([p[0] for p in hf(torch.tensor([ids]), output_attentions=True).attentions]).numpy()


def written_out(attention, q, k, candidate):
    """The mask of one head as bool [query, key], by the words of MInference's search."""
    n = len(attention)
    i, j = np.indices((n, n))
    if candidate.pattern == "stream_llm":
        return (j < candidate.vertical) | (i - j < candidate.slash)
    if candidate.pattern == "vertical_and_slash":
        last = attention[-64:]
        columns = last.sum(0)
        slashes = np.array([np.diagonal(last, n - 64 - d).sum() for d in range(n)])
        columns[0] = slashes[0] = np.inf  # 30 of 30,000 are forced, so one of 97
        chosen = [
            np.argsort(-x, kind="stable")[:c] for x, c in ((columns, candidate.vertical), (slashes, candidate.slash))
        ]
        return np.isin(j, chosen[0]) | np.isin(i - j, chosen[1])
    size = candidate.slash
    seen = attention > 0
    mask = np.zeros((n, n), dtype=bool)
    for a in range(0, n, size):
        products = {
            b: q[a : a + size].mean(0) @ k[b : b + size].mean(0)
            for b in range(0, n, size)
            if seen[a : a + size, b : b + size].any()
        }
        for b in sorted(products, key=products.__getitem__, reverse=True)[: candidate.vertical]:
            mask[a : a + size, b : b + size] = True
    return mask


@pytest.fixture(scope="module", params=list(WINDOWS))
def measured(request):
    """Family, result, and by (text, layer, head) its dense map, queries and keys."""
    model = tiny(request.param)
    result = patterns(model, IDS, candidates=MINE, tokens=TOKENS, from_row=FIRST - 3)
    dense = {}
    for text, ids in enumerate(IDS):
        run = model.run(ids, collect=[])
        maps = eager(tiny(request.param).release(), ids)
        for layer in range(model.layers):
            for head in range(model.heads):
                source = run.attention[layer, head].source
                dense[text, layer, head] = (
                    maps[layer, head],
                    source.q[0, 0].double().numpy(),
                    source.k[0, 0].double().numpy(),
                )
    return request.param, result, dense


def test_recall_kept_and_control_are_those_of_masks_written_out(measured):
    family, result, dense = measured
    i, j = np.indices((TOKENS, TOKENS))
    window = WINDOWS[family]
    assert result.manifest["settings"]["from_row"] == FIRST, "rounded up to a block"
    for (text, layer, head), (attention, q, k) in dense.items():
        seen = (j <= i) & (i - j < window)
        for number, candidate in enumerate(MINE):
            mask = written_out(attention, q, k, candidate) & seen
            where = text, number, layer, head
            kept = mask[FIRST:].sum(-1)
            assert result.arrays["kept"][where] == pytest.approx(kept.mean()), (where, candidate)
            want = (attention * mask)[FIRST:].sum(-1).mean()
            assert result.arrays["recall"][where] == pytest.approx(want, abs=2e-6), (where, candidate)
            assert result.arrays["control"][where] == pytest.approx((kept / seen[FIRST:].sum(-1)).mean()), where


def test_the_table_names_the_true_winner(measured):
    _, result, _ = measured
    recall = result.arrays["recall"]
    mean = recall.mean(0)
    frame = result.frame.set_index(["layer", "head"])
    for (layer, head), row in frame.iterrows():
        best = int(mean[:, layer, head].argmax())
        c = MINE[best]
        assert (row.pattern, row.vertical, row.slash, row.budget) == (c.pattern, c.vertical, c.slash, c.keys)
        assert row.score == pytest.approx(mean[best, layer, head])
        assert row.spread == pytest.approx(recall[:, best, layer, head].std(ddof=1))
        assert row.label == (c.pattern if row.score >= 0.9 else "dense")
        assert row.recall_a_shape == pytest.approx(mean[0, layer, head])
        assert row.recall_vertical_slash == pytest.approx(mean[1:3, layer, head].max())
        assert row.recall_block_sparse == pytest.approx(mean[3, layer, head])


def test_recall_is_that_of_masked_lse_and_the_complement_has_the_rest():
    model = tiny("llama")
    ids = IDS[0]
    draw = np.random.default_rng(1)
    blocks = -(-TOKENS // 8)
    random = torch.tensor(draw.random((model.heads, blocks, blocks)) < 0.4)
    found, sums = {}, []

    def take(call, attended):
        def mass(mask):
            return (replace(call, mask=mask).attend(None, "auto").lse - attended.lse).exp()[0]

        found[call.site.layer] = mass(call.mask.sink_window(3, 5))[:, FIRST:].mean(-1)
        sums.append(mass(call.mask.blocks(random, 8)) + mass(call.mask.blocks(~random, 8)))

    with torch.no_grad():
        model.probe(ids, take)
    result = patterns(model, [ids], candidates=MINE[:1], tokens=TOKENS, from_row=FIRST)
    want = torch.stack([found[layer] for layer in sorted(found)]).numpy()
    np.testing.assert_allclose(result.arrays["recall"][0, 0], want, atol=1e-6)
    np.testing.assert_allclose(torch.stack(sums).numpy(), 1.0, atol=1e-5)


def test_a_learned_sinks_share_belongs_to_no_mask():
    everything = Candidate(pattern="stream_llm", vertical=1, slash=TOKENS)
    result = patterns(tiny("gpt_oss"), IDS[:1], candidates=[everything], tokens=TOKENS, from_row=0)
    np.testing.assert_allclose(result.arrays["recall"], 1.0, atol=1e-6)
    np.testing.assert_allclose(result.arrays["control"], 1.0)
    assert result.frame.spread.isna().all(), "one text has no spread"


# ---------------------------------------------------------------------- planted heads
PERIOD = 89
TWICE = (1 + np.random.default_rng(5).permutation(96)[:PERIOD]).tolist() * 3


@pytest.mark.parametrize("seed", [0, 3])
def test_planted_heads_are_in_their_class(seed):
    model, places = planted(seed=seed)
    result = patterns(model, [TWICE, TWICE[7:] + TWICE[:7]], tokens=3 * PERIOD, from_row=96)
    frame = result.frame.set_index(["layer", "head"])
    for kind in ("previous", "sink"):
        row = frame.loc[places[kind]]
        assert row.pattern == row.label == "stream_llm", kind
        assert row.score > 0.99
    for kind in ("induction", "retrieval", "duplicate"):
        row = frame.loc[places[kind]]
        assert row.pattern == row.label == "vertical_and_slash", kind
        assert row.score > 0.9 and row.recall_a_shape < 0.1
    uniform = frame.loc[places["uniform"]]
    assert uniform.label == "dense"
    assert uniform.score == pytest.approx(uniform.control, abs=1e-5)
    others = frame.drop(index=list(places.values()))
    assert (others.label == "dense").all() and len(others) == LAYERS * HEADS - len(places)


def test_equal_candidates_keep_equally_many_keys():
    model, _ = planted("uniform")
    frame = patterns(model, [TWICE], tokens=3 * PERIOD).frame
    assert set(frame.budget) == {32}
    result = patterns(model, [TWICE], tokens=3 * PERIOD, candidates="equal", budget=64)
    kept = result.arrays["kept"][0]
    assert (kept <= 64).all()
    assert kept[0].min() == 64, "from the first row that counts on, an A-shape is full"


def test_a_dense_label_follows_its_threshold_and_the_winner_stays():
    model, places = planted("previous", "uniform")
    ids = [TWICE]
    low, high = (patterns(model, ids, tokens=267, dense_below=x).frame.set_index(["layer", "head"]) for x in (0.0, 1.1))
    assert (low.label == low.pattern).all()
    assert (high.label == "dense").all()
    assert (low.pattern == high.pattern).all()
    assert high.pattern[places["previous"]] == "stream_llm"


def test_the_table_goes_into_an_minference_file(tmp_path):
    model, places = planted()
    result = patterns(model, [TWICE], tokens=267, from_row=96)
    back = read_patterns(write_patterns(tmp_path / "heads.json", result.table)).set_index(["layer", "head"])
    assert back.pattern[places["sink"]] == "stream_llm"
    assert back.pattern[places["retrieval"]] == "vertical_and_slash"
    np.testing.assert_array_equal(back.vertical, result.frame.vertical)
    again = Result.load(result.save(tmp_path / "result"))
    assert again.kind == "heads.patterns" and list(again.table.label) == list(result.table.label)
    np.testing.assert_array_equal(again.arrays["recall"], result.arrays["recall"])


# ---------------------------------------------------------------------- the masks by hand
def test_published_sizes_and_their_equal_form():
    listed = [(c.pattern, c.vertical, c.slash) for c in published_candidates(30_000)]
    assert listed == [
        ("stream_llm", 100, 800),
        ("vertical_and_slash", 30, 800),
        ("vertical_and_slash", 100, 750),
        ("vertical_and_slash", 500, 700),
        ("vertical_and_slash", 3500, 100),
        ("block_sparse", 117, 32),  # an eighth of 938 blocks
    ]
    equal = equal_candidates(256)
    assert {c.keys for c in equal} == {256}
    assert [(c.vertical, c.slash) for c in equal] == [(28, 228), (9, 247), (30, 226), (107, 149), (249, 7), (8, 32)]


def test_strongest_by_hand():
    sums = torch.tensor([[0.1, 0.0, 5.0, 2.0, 5.0], [1.0, 1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    assert masks.strongest(sums, 3, 1).tolist() == [[0, 2, 4], [0, 1, 2]]
    assert masks.strongest(sums, 2, 3).tolist() == [[0, 1], [0, 1]]
    assert sums[0, 0] == 0.1, "the input is not changed"


def test_blocks_by_hand():
    x = torch.tensor([[[1.0], [3.0], [10.0], [20.0], [7.0]]])
    assert masks.pooled(x, 2).flatten().tolist() == [2.0, 15.0, 7.0]
    assert masks.reachable(4, 3, 4, x.device).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    # one more key back is seen: row 6 sees key 2
    assert masks.reachable(4, 3, 5, x.device).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1]]
    products = torch.tensor([[[1.0, -torch.inf], [0.5, 0.7]]])
    assert masks.strongest_blocks(products, 1).int().tolist() == [[[1, 0], [0, 1]]]
    assert masks.strongest_blocks(products, 2).int().tolist() == [[[1, 0], [1, 1]]]


@pytest.mark.parametrize("reach", [1, 5, 23])
def test_kept_keys_are_counted_as_in_a_mask(reach):
    n, size = 23, 4
    i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
    seen = (j <= i) & (i - j < reach)
    columns, diagonals = torch.tensor([0, 6, 7, 20]), torch.tensor([0, 2, 9, 22])
    lines = (torch.isin(j, columns) | torch.isin(i - j, diagonals)) & seen
    rows, keys = masks.crossings(columns, diagonals, 0, n, reach)
    assert masks.keys_on_lines(columns, diagonals, rows, n, reach).tolist() == lines.sum(1).tolist()
    both = torch.isin(j, columns) & torch.isin(i - j, diagonals) & seen
    assert sorted(zip(rows.tolist(), keys.tolist(), strict=True)) == [tuple(x) for x in both.nonzero().tolist()]
    late, _ = masks.crossings(columns, diagonals, 8, n, reach)
    assert sorted(late.tolist()) == sorted(r for r in rows.tolist() if r >= 8)
    kept = (torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.5) & masks.reachable(
        6, size, reach, i.device
    )
    full = kept.repeat_interleave(size, 1).repeat_interleave(size, 2)[:, :n, :n] & seen
    assert masks.keys_in_blocks(kept, size, n, reach).tolist() == full.sum(-1).tolist()


# ---------------------------------------------------------------------- what cannot be measured
def test_what_cannot_be_measured_is_refused():
    model, _ = planted("sink")
    with pytest.raises(OptionError, match="multiple of the 32 keys of a block, got 33"):
        patterns(model, [TWICE], budget=33)
    with pytest.raises(OptionError, match="rows from 288 on count, and the texts have 267 tokens"):
        patterns(model, [TWICE], budget=288)
    with pytest.raises(OptionError, match='budget is for candidates="equal"'):
        patterns(model, [TWICE], candidates="published", budget=64)
    with pytest.raises(OptionError, match="blocks of one size, got \\[8, 16\\]"):
        blocks = [Candidate(pattern="block_sparse", vertical=1, slash=s) for s in (16, 8)]
        patterns(model, [TWICE], candidates=blocks)
    with pytest.raises(OptionError, match="candidates is empty"):
        patterns(model, [TWICE], candidates=[])
    with pytest.raises(OptionError, match="must be at least 1, got 0 and 4"):
        Candidate(pattern="stream_llm", vertical=0, slash=4)
    with pytest.raises(OptionError, match="texts of 1068 tokens, and the model reads 1024"):
        patterns(model, [TWICE * 4])
    with pytest.raises(InputDataError, match="at least two tokens"):
        patterns(model, [[5]])
    with pytest.raises(UnsupportedModelError, match="layer 0 attends to later tokens"):
        patterns(tiny("bert"), IDS[:1], tokens=TOKENS)


def test_texts_come_as_text_or_ids_and_are_cut_to_the_shortest():
    model, _ = planted("sink")
    as_text = " ".join(f"w{i}" for i in TWICE)
    one = patterns(model, as_text, tokens=200)
    two = patterns(model, torch.tensor(TWICE), tokens=200)
    np.testing.assert_array_equal(one.arrays["recall"], two.arrays["recall"])
    said = []
    cut = patterns(model, [TWICE, TWICE[:200]], progress=lambda done, total: said.append((done, total)))
    assert cut.manifest["settings"]["tokens"] == 200
    assert said == [(1, 2), (2, 2)]
    np.testing.assert_array_equal(cut.arrays["recall"][0], one.arrays["recall"][0])
