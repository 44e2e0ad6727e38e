"""The streaming cache: the logits of the same edit with a whole cache, and memory that falls as it should."""

from __future__ import annotations

import pytest
import torch

HEADS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 4))  # llama: 3 query heads a group
SINKS, WINDOW = 2, 5


@pytest.fixture
def edit():
    from interp.interventions.streaming import Streaming

    return Streaming(sinks=SINKS, window=WINDOW, heads=HEADS)


@torch.no_grad()
def stepped(model, ids, prompt, chunk, cache):
    out = model.hf(ids[:, :prompt], use_cache=True, past_key_values=cache)
    logits = [out.logits]
    for start in range(prompt, ids.shape[1], chunk):
        out = model.hf(ids[:, start : start + chunk], past_key_values=out.past_key_values, use_cache=True)
        logits.append(out.logits)
    return torch.cat(logits, 1), out.past_key_values


@pytest.mark.parametrize(("prompt", "chunk"), [(3, 1), (17, 1), (13, 3)])
def test_logits_are_those_of_a_whole_cache_and_memory_is_what_can_be_seen(models, edit, prompt, chunk):
    from interp.interventions.streaming_cache import cache_bytes, streaming_cache

    model = models["llama"]
    ids = torch.tensor([model.encode("one two three four five, one two")])
    n, size = ids.shape[1], 10 * 4 * 2  # bytes of a key and a value of one head
    with model.edit(edit):
        whole, plain = stepped(model, ids, prompt, chunk, None)
        evicted, cache = stepped(model, ids, prompt, chunk, streaming_cache(model, edit))
    torch.testing.assert_close(evicted, whole, atol=1e-5, rtol=1e-5)
    assert cache_bytes(plain) == 3 * 2 * n * size
    # Layer 0 streams in group 0, layer 1 in both, layer 2 in one head of a group, which stays whole.
    assert cache_bytes(cache) == (3 * n + 3 * (SINKS + WINDOW - 1)) * size


def test_generation_runs_on_it(models, edit):
    from interp.interventions.streaming_cache import streaming_cache

    model = models["llama"]
    with model.edit(edit):
        plain = model.generate("one two three", max_new_tokens=9, do_sample=False)
        evicted = model.generate(
            "one two three", max_new_tokens=9, do_sample=False, past_key_values=streaming_cache(model, edit)
        )
    assert torch.equal(plain, evicted)


def test_misuse_is_an_error(models, edit):
    from interp.errors import EditError
    from interp.interventions.streaming import Streaming
    from interp.interventions.streaming_cache import streaming_cache

    model = models["llama"]
    ids = torch.tensor([model.encode("one two three four five")])
    cache = streaming_cache(model, edit)
    with pytest.raises(EditError, match="very object"), torch.no_grad():
        model.hf(ids, past_key_values=cache)
    with pytest.raises(EditError, match="one text"), model.edit(edit), torch.no_grad():
        model.hf(ids.repeat(2, 1), past_key_values=cache)
    for wrong in (Streaming(share=0.5), Streaming(phases=frozenset({"decode"}))):
        with pytest.raises(EditError, match="both phases"):
            streaming_cache(model, wrong)
    with pytest.raises(EditError, match="nothing to drop"):
        streaming_cache(models["mistral"], Streaming(sinks=0, window=3))
