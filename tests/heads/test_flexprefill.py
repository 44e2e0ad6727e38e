"""FlexPrefill: divergence and block choices by hand, every quantity against a dense float64 computation, planted heads."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
import torch

from interp.errors import OptionError, UnsupportedModelError
from interp.heads.flexprefill import count_to_cover, divergence, flexprefill, query_aware_blocks, vertical_slash_blocks
from interp.models.planted import planted
from interp.models.toy import tiny

IDS = np.random.default_rng(11).integers(7, 263, size=(2, 61)).tolist()


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


# ---------------------------------------------------------------------- by hand
def test_divergence_by_hand():
    assert divergence(row(1.0, 0.0), row(0.0, 1.0)).item() == pytest.approx(sqrt(log(2)))
    assert divergence(row(0.5, 0.5), row(0.5, 0.5)).item() == 0.0
    # m = (3/4, 1/4): 1/2 (1/2 ln 2/3 + 1/2 ln 2) + 1/2 ln 4/3
    want = sqrt(0.25 * log(2 / 3) + 0.25 * log(2) + 0.5 * log(4 / 3))
    assert divergence(row(0.5, 0.5), row(1.0, 0.0)).item() == pytest.approx(want)
    assert divergence(row(1.0, 0.0), row(0.5, 0.5)).item() == pytest.approx(want), "symmetric"


def test_a_share_that_underflows_does_not_make_it_nan():
    nothing = row(1.0, 0.0, 0.0)
    assert divergence(nothing, nothing).item() == 0.0
    tiny_share = torch.tensor([[1.0, 1e-45, 0.0]])
    assert torch.isfinite(divergence(tiny_share, torch.tensor([[1.0, 0.0, 0.0]]))).all()


def test_count_to_cover_by_hand():
    x = row(0.05, 0.5, 0.25, 0.2)
    # 0.5, 0.75, 0.95: two stay within 0.9 and the third passes it
    assert count_to_cover(x, 0.9).item() == 3
    assert count_to_cover(x, 0.4).item() == 1
    assert count_to_cover(x, 0.75).item() == 3, "as the released code: reaching is not passing"
    assert count_to_cover(x, 0.999).item() == 4


def test_vertical_slash_blocks_by_hand():
    one, two = torch.tensor([1]), torch.tensor([2])
    vertical, slash = row(0.0, 0.1, 0.6, 0.3), row(0.0, 0.1, 0.2, 0.7)
    least = vertical_slash_blocks(vertical, slash, (one, one))
    assert least.int().tolist() == [[[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]]]
    more = vertical_slash_blocks(vertical, slash, (two, one))
    assert more.int().tolist() == [[[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]], "and key block 2"
    far = vertical_slash_blocks(vertical, row(0.0, 0.1, 0.7, 0.2), (one, two))
    assert far.int().tolist() == [[[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 1]]], "and block diagonal 2"


def test_query_aware_blocks_by_hand():
    hidden = -torch.inf
    scores = torch.tensor([[[0.0, hidden], [log(3.0), 0.0]]], dtype=torch.float64)
    # shares 1, 3/4, 1/4 of two rows: 1 and 1.75 stay within 0.9 * 2
    assert query_aware_blocks(scores, 0.9).int().tolist() == [[[1, 0], [1, 0]]]
    assert query_aware_blocks(scores, 0.8).int().tolist() == [[[1, 0], [0, 0]]]


# ---------------------------------------------------------------------- dense
@torch.no_grad()
def eager(hf, ids):
    """Attention [layer, head, query, key] in float64 by transformers' own eager attention; `hf` is changed."""
    hf = hf.double()
    hf.set_attn_implementation("eager")
    return torch.stack([p[0] for p in hf(torch.tensor([ids]), output_attentions=True).attentions]).numpy()


def softmax(x):
    e = np.exp(x - x[np.isfinite(x)].max())
    return e / e.sum()


def dense(attention, q, k, *, b, tau, gamma, least):
    """Everything about one head, with loops over blocks and pairs of blocks."""
    n = len(attention)
    blocks = range(n // b)
    last = attention[-b:]
    columns = last.mean(0)
    diagonals = np.array([sum(last[r, n - b + r - d] for r in range(b) if n - b + r >= d) for d in range(n)]) / b
    true = np.array([columns[c * b : (c + 1) * b].sum() for c in blocks])
    means = [(q[c * b : (c + 1) * b].mean(0), k[c * b : (c + 1) * b].mean(0)) for c in blocks]
    scale = q.shape[1] ** -0.5
    guess = softmax(np.array([means[-1][0] @ m[1] for m in means]) * scale)

    def js(p, r):
        m = (p + r) / 2
        return sqrt(sum(0.5 * x * log(x / y) for z in (p, r) for x, y in zip(z, m, strict=True) if x > 0))

    d = js(guess, true)
    counts = []
    for x in (columns, diagonals):
        total, count = 0.0, 0
        while total <= gamma and count < n:
            total += np.sort(x)[::-1][count]
            count += 1
        counts.append(count)
    aware = d < tau
    sums = true.copy(), np.array([diagonals[c * b : (c + 1) * b].sum() for c in blocks])
    chosen = []
    for x, count in zip(sums, counts, strict=True):
        x[0] = np.inf
        number = least if aware else min(max(count // b + 1, least), len(blocks))
        chosen.append(set(np.argsort(-x, kind="stable")[:number].tolist()))
    kept = {(r, c) for r in blocks for c in blocks if c <= r and (c in chosen[0] or r - c in chosen[1])}
    if aware:
        shares = {}
        for r in blocks:
            line = softmax(np.array([means[r][0] @ means[c][1] for c in range(r + 1)]) * scale)
            shares |= {(r, c): line[c] for c in range(r + 1)}
        total = 0.0
        for pair in sorted(shares, key=shares.__getitem__, reverse=True):
            total += shares[pair]
            if total > gamma * len(blocks):
                break
            kept.add(pair)
    half = len(blocks) * (len(blocks) + 1) / 2
    return {
        "score": d,
        "control": js(np.full(len(blocks), 1 / len(blocks)), true),
        "query_aware": float(aware),
        "vertical": counts[0],
        "slash": counts[1],
        "computed": len(kept) / half,
        "computed_all": len(kept) / len(blocks) ** 2,
        "coverage": sum(true[c] for c in blocks if (blocks[-1], c) in kept),
    }


@pytest.mark.parametrize("tau", [0.25, 0.0, 1.0])
def test_every_quantity_is_that_of_the_dense_map(tau):
    model = tiny("llama")
    result = flexprefill(model, IDS, tokens=61, block=7, tau=tau, gamma=0.8, min_budget=9)
    assert result.manifest["settings"]["tokens"] == 56, "whole blocks"
    for text, ids in enumerate(IDS):
        ids = ids[:56]
        maps = eager(tiny("llama").release(), ids)
        run = model.run(ids, collect=[])
        for layer in range(model.layers):
            for head in range(model.heads):
                source = run.attention[layer, head].source
                q, k = (x[0, 0].double().numpy() for x in (source.q, source.k))
                want = dense(maps[layer, head], q, k, b=7, tau=tau, gamma=0.8, least=2)
                got = {name: x[text, layer, head] for name, x in result.arrays.items()}
                assert got == pytest.approx(want, abs=1e-5), (text, layer, head)
    frame = result.frame
    assert {"vertical_slash"} == set(frame.pattern) if tau == 0.0 else "query_aware" in set(frame.pattern)
    np.testing.assert_allclose(frame.score, result.arrays["score"].mean(0).reshape(-1))
    np.testing.assert_allclose(frame.spread, result.arrays["score"].std(0, ddof=1).reshape(-1))


# ---------------------------------------------------------------------- planted heads
def test_planted_heads_choose_as_they_should():
    model, places = planted()
    words = (1 + np.random.default_rng(2).integers(96, size=(2, 256))).tolist()
    result = flexprefill(model, words, tokens=256, block=16, min_budget=16)
    frame = result.frame.set_index(["layer", "head"])
    uniform = frame.loc[places["uniform"]]
    assert uniform.pattern == "query_aware" and uniform.score < 0.05
    assert uniform.score == pytest.approx(uniform.control, abs=1e-6), (
        "its pooled estimate is the one that knows nothing"
    )
    for kind, vertical, slash in (("sink", 1, None), ("previous", None, 1)):
        row = frame.loc[places[kind]]
        assert row.pattern == "vertical_slash" and row.score > 0.1, kind
        assert row.vertical == (vertical or row.vertical) and row.slash == (slash or row.slash)
        assert row.coverage > 0.9
    # first key block and block diagonal, two of them at the first block of rows
    assert frame.loc[places["sink"]].computed < 0.4
    assert 2 * frame.computed_all.max() <= 17 / 16


def test_what_cannot_be_measured_is_refused():
    model, _ = planted("sink")
    with pytest.raises(OptionError, match="61 tokens have 0 whole blocks of 128"):
        flexprefill(model, [[5] * 61])
    with pytest.raises(OptionError, match="0 < gamma < 1"):
        flexprefill(model, [[5] * 61], gamma=1.0)
    with pytest.raises(UnsupportedModelError, match="later tokens"):
        flexprefill(tiny("bert"), IDS[:1], block=7)
