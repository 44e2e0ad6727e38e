"""A head's circuits in short, against dense float64 products and planted heads."""

from __future__ import annotations

import pytest
import torch

from interp.heads.summary import ov_sizes, qk_sizes, strongest_pairs, written
from interp.heads.weights import read_weights
from interp.models.planted import planted
from interp.models.toy import tiny


@pytest.fixture(scope="module")
def model():
    return planted("retrieval", "sink", seed=2)


def test_the_copying_head_raises_what_it_attends_to(model) -> None:
    hooked, places = model
    ids = [3, 41, 96]
    found = written(read_weights(hooked), *places["retrieval"], ids)
    assert [w.source for w in found] == ids
    for one in found:
        assert one.raised[0][0] == one.source
        assert one.raised[0][1] > 3 * one.raised[1][1]
        assert [v for _, v in one.raised] == sorted((v for _, v in one.raised), reverse=True)
        assert [v for _, v in one.lowered] == sorted(v for _, v in one.lowered)


def test_singular_values_are_those_of_the_products() -> None:
    hooked = tiny("llama")  # grouped queries
    weights = read_weights(hooked)
    block = hooked.hf.model.layers[1].self_attn
    head = hooked.heads - 1
    group = head * hooked.hf.config.num_key_value_heads // hooked.heads
    size = block.head_dim
    q = block.q_proj.weight[head * size : (head + 1) * size].double()
    k, v = (p.weight[group * size : (group + 1) * size].double() for p in (block.k_proj, block.v_proj))
    o = block.o_proj.weight[:, head * size : (head + 1) * size].double()
    torch.testing.assert_close(
        torch.from_numpy(ov_sizes(weights, 1, head)), torch.linalg.svdvals(o @ v)[:size], rtol=1e-4, atol=1e-6
    )
    found = qk_sizes(hooked, 1, head)
    assert found is not None
    torch.testing.assert_close(torch.from_numpy(found), torch.linalg.svdvals(q.T @ k)[:size], rtol=1e-4, atol=1e-6)


def test_pairs_of_a_previous_token_head(model) -> None:
    hooked, places = model
    ids = [5, 9, 5, 9, 7, 11, 5, 9, 30, 31]
    run = hooked.run(ids, collect=[], keep="qk", logits="none")
    pairs = strongest_pairs(run, *places["previous"], count=5)
    assert all(p.query == p.key + 1 and p.key > 0 for p in pairs)
    named = [(ids[p.query], ids[p.key]) for p in pairs]
    assert len(set(named)) == len(named) == 5
    sink = strongest_pairs(run, *places["sink"], count=5)
    assert all(p.weight < 0.01 for p in sink)  # it looks at the first key, which is left out
