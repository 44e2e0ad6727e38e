"""Planted heads do, to the given precision, what their names say; shown by transformers' eager maps in float64."""

from __future__ import annotations

import pytest
import torch

from interp.errors import OptionError
from interp.models.planted import HEADS, LAYERS, VOCAB, planted_parts


@torch.no_grad()
def maps(hf, ids, dtype=torch.float64):
    """Attention [layer, head, query, key] of one text."""
    hf = hf.to(dtype)
    hf.set_attn_implementation("eager")
    return torch.stack([pattern[0] for pattern in hf(ids[None], output_attentions=True).attentions])


def wanted(kind, ids):
    """Mask [query, key] of what a head of that kind attends to, with the queries for which the kind says something."""
    n = len(ids)
    i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
    before = torch.cat([torch.tensor([-1]), ids[:-1]])
    target = {
        "previous": j == i - 1,
        "duplicate": (ids[:, None] == ids[None, :]) & (j < i),
        "sink": j == 0 * i,
        "induction": (ids[:, None] == before[None, :]) & (j <= i),
    }
    target["retrieval"] = target["induction"]
    queries = target[kind].any(-1)
    queries[0] = False
    return target[kind], queries


def mass(patterns, kind, ids):
    """Mean mass [layer, head] on what the kind attends to."""
    target, queries = wanted(kind, ids)
    assert queries.sum() > 10
    return (patterns * target).sum(-1)[..., queries].mean(-1)


def random_ids(n, seed):
    return torch.randint(1, VOCAB, (n,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_named_head_does_it_on_every_row_and_no_other_head_does(seed):
    parts, places = planted_parts(seed=seed)
    ids = random_ids(131, seed)
    patterns = maps(parts.hf, ids)
    for kind in ("previous", "duplicate", "sink", "induction", "retrieval"):
        target, queries = wanted(kind, ids)
        alike = {"induction", "retrieval"} if kind in {"induction", "retrieval"} else {kind}
        assert (patterns[places[kind]] * target).sum(-1)[queries].min() > 0.95, kind
        scores = mass(patterns, kind, ids)
        for other in alike:
            scores[places[other]] = 0.0
        assert scores.max() < 0.2, kind


@pytest.mark.parametrize("n", [2, 53, 1024])
def test_the_previous_token_head_holds_at_every_length_in_float32(n):
    parts, places = planted_parts("previous")
    pattern = maps(parts.hf, random_ids(n, 7), torch.float32)[places["previous"]]
    assert pattern.diagonal(-1).min() > 0.95


def test_the_uniform_head_is_uniform_to_the_last_bits_and_the_free_heads_nearly():
    parts, places = planted_parts(seed=5)
    ids = random_ids(61, 5)
    patterns = maps(parts.hf, ids)
    even = torch.tril(torch.ones(61, 61, dtype=torch.float64)) / torch.arange(1, 62)[:, None]
    assert (patterns[places["uniform"]] - even).abs().max() < 1e-15
    taken = set(places.values())
    for layer in range(LAYERS):
        for head in range(HEADS):
            if (layer, head) not in taken:
                ratio = patterns[layer, head, -1] * 61
                assert 0.2 < ratio.min() < 0.9
                assert 1.1 < ratio.max() < 5.0


def test_a_token_without_a_match_leaves_duplicate_heads_on_themselves_and_induction_heads_spread():
    parts, places = planted_parts()
    ids = torch.randperm(VOCAB - 1, generator=torch.Generator().manual_seed(0))[:41] + 1
    patterns = maps(parts.hf, ids)
    assert patterns[places["duplicate"]].diagonal().min() > 0.95
    assert patterns[places["induction"]][-1, 0] < 1e-9
    rest = patterns[places["induction"]][-1, 1:] * 40
    assert 0.4 < rest.min() < rest.max() < 2.0


@torch.no_grad()
def test_generation_continues_a_repeated_text_only_through_the_retrieval_head():
    words = torch.randperm(VOCAB - 1, generator=torch.Generator().manual_seed(3))[:37] + 1
    prompt = torch.cat([words, words[:5]])[None]
    copying, _ = planted_parts("retrieval", seed=9)
    out = copying.hf.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=32, do_sample=False)
    assert torch.equal(out[0, 37:], words)
    logits = copying.hf(prompt).logits[0, -1]
    assert logits.topk(2).values.diff().abs() > 5.0
    mute, _ = planted_parts("induction", seed=9)
    assert mute.hf(prompt).logits.abs().max() < 3.0


@torch.no_grad()
def test_induction_reads_the_previous_token_head():
    parts, places = planted_parts("induction", seed=4)
    assert set(places) == {"previous", "induction"}
    ids = random_ids(101, 4)
    assert mass(maps(parts.hf, ids), "induction", ids)[places["induction"]] > 0.95
    layer, head = places["previous"]
    parts.hf.transformer.h[layer].attn.c_proj.weight[head * 120 : (head + 1) * 120] = 0.0
    assert mass(maps(parts.hf, ids), "induction", ids)[places["induction"]] < 0.2


def test_heads_move_with_the_seed_and_words_are_tokens():
    found = {tuple(sorted(planted_parts(seed=seed)[1].items())) for seed in range(3)}
    assert len(found) == 3
    parts, places = planted_parts()
    assert all((layer == 1) == (kind in {"induction", "retrieval"}) for kind, (layer, _) in places.items())
    assert parts.tokenizer("w7 w96 w7").input_ids == [7, 96, 7]
    assert parts.tokenizer.decode([7, 96]) == "w7 w96"


def test_an_unknown_kind_is_refused_with_the_list():
    with pytest.raises(OptionError, match="previous, duplicate, sink, uniform, induction, retrieval; got previus"):
        planted_parts("previus")
