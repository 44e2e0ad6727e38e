"""A real run of the default model at 32,768 tokens, one layer kept and no logits: tiles against float64 softmax rows of the kept queries and keys."""

from __future__ import annotations

import numpy as np
import pytest

TOKENS, LAYER, HEAD = 32768, 3, 2


@pytest.mark.slow
def test_tiles_of_a_real_run_at_32768_tokens() -> None:
    import interp
    from interp.tasks.corpus import corpus
    from interp.widgets.views.attention_map import AttentionMapView
    from interp.widgets.views.map_source import TILE

    model = interp.load("smollm2-135m")
    ids = model.encode("\n".join(d.text for d in corpus(part="topics")))
    ids = (ids * (1 + TOKENS // len(ids)))[:TOKENS]
    run = model.run(ids, layers=[LAYER], logits="none", collect=["entropy"])
    assert run.logits is None
    shown = AttentionMapView(run.attention[LAYER, HEAD], maps=run.attention)
    tiles = shown.source.a
    record = run.record(LAYER)
    assert record.q is not None
    assert record.k is not None
    heads = record.q.shape[1] // record.k.shape[1]
    scale = record.scale if record.scale is not None else record.q.shape[3] ** -0.5
    q, k = record.q[0, HEAD].double(), record.k[0, HEAD // heads].double()
    start = 20224  # a whole pixel of level 7, so that one block of rows checks every level
    logits = scale * (q[start : start + 128] @ k.T)
    hidden = np.arange(TOKENS)[None] > np.arange(start, start + 128)[:, None]
    weights = np.exp(logits.numpy())
    weights = np.where(hidden, 0.0, weights)
    weights /= weights.sum(1, keepdims=True)
    for level in range(tiles.levels + 1):
        side = 1 << level
        blocks = weights[:side].reshape(1, side, -1, side)
        row = (start >> level) % TILE
        across = range(-(-(start + 128) // (TILE * side)))
        for mode, expected in (("peak", blocks.max((1, 3))[0]), ("mass", blocks.sum(3).mean(1)[0])):
            found = np.concatenate([tiles.tile(level, start // (TILE * side), x, mode)[row] for x in across])
            np.testing.assert_allclose(found, expected[: len(found)], rtol=2e-4, atol=1e-8)
    answer, _ = shown.serve(shown.source, {"op": "value", "q": start, "k": 0})
    assert answer["weight"] == pytest.approx(weights[0, 0], rel=1e-4)
    assert answer["entropy"] == pytest.approx(float(run.stats["entropy"][0, HEAD, start]), rel=1e-4)
