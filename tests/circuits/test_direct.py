"""Direct logit attribution: heads from the weights of a Llama by hand, and parts that add up in every family."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from eager_llama import eager, values

from interp.circuits.direct import direct_logit_attribution
from interp.errors import OptionError, UnsupportedModelError
from interp.models.toy import tiny
from interp.tasks.prompt import Prompt


def test_heads_are_z_times_output_times_norm_times_unembedding(pairs_of):
    prompts = pairs_of(2, 11)
    result = direct_logit_attribution(tiny("llama"), prompts)
    hf = eager()
    for n, prompt in enumerate(prompts):
        with torch.no_grad():
            stream = []
            handle = hf.model.norm.register_forward_pre_hook(
                lambda _, args, stream=stream: stream.append(args[0][0, -1])
            )
            logits = hf(torch.tensor([prompt.ids])).logits[0, -1]
            handle.remove()
            scale = (stream[0].square().mean() + hf.model.norm.variance_epsilon).rsqrt()
            direction = (
                (hf.lm_head.weight[prompt.answer[0]] - hf.lm_head.weight[prompt.wrong[0]])
                * hf.model.norm.weight
                * scale
            )
            z = values(hf, prompt.ids)
            expected = [
                float(hf.model.layers[layer].self_attn.o_proj.weight[:, 10 * h : 10 * h + 10] @ z[layer][0, -1, 10 * h : 10 * h + 10] @ direction)
                for layer in range(3) for h in range(6)
            ]  # fmt: skip
            embedding = float(hf.model.embed_tokens.weight[prompt.ids[-1]] @ direction)
        np.testing.assert_allclose(result.arrays["samples"][n], expected, atol=2e-4)
        assert result.arrays["embedding"][n] == pytest.approx(embedding, abs=2e-4)
        assert result.arrays["logit_difference"][n] == pytest.approx(
            float(logits[prompt.answer[0]] - logits[prompt.wrong[0]]), abs=2e-4
        )


@pytest.mark.parametrize(
    "family", ["gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi", "gpt_oss"]
)
def test_parts_add_up_to_the_logit_difference(pairs_of, family):
    prompts = [*pairs_of(3, 11), *pairs_of(2, 7)]
    result = direct_logit_attribution(tiny(family), prompts, batch=2)
    arrays = result.arrays
    total = arrays["samples"].sum(1) + arrays["mlps"].sum(1) + arrays["embedding"] + arrays["biases"]
    np.testing.assert_allclose(total, arrays["logit_difference"], atol=1e-4)
    parts = result.manifest["parts"]
    assert parts["sum"] == pytest.approx(parts["logit difference"], abs=1e-4)
    assert parts["largest error"] < 1e-4
    assert abs(parts["heads"]) > 1e-3
    assert (abs(parts["biases"]) > 1e-3) == (family in ("gpt2", "gpt_neox", "opt", "phi", "gpt_oss"))


@pytest.mark.medium
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_bridge_around_the_model_changes_nothing(pairs_of, family):
    plain, bridged = tiny(family), tiny(family)
    assert bridged.bridge is not None
    expected, found = (direct_logit_attribution(model, pairs_of(2, 11)) for model in (plain, bridged))
    np.testing.assert_allclose(found.arrays["samples"], expected.arrays["samples"], atol=1e-4)


def test_the_model_is_left_as_it_was(pairs_of):
    model = tiny("gpt2")
    ids = torch.tensor([pairs_of(1, 11)[0].ids])
    before = model.hf(ids).logits
    direct_logit_attribution(model, pairs_of(2, 11))
    assert torch.equal(model.hf(ids).logits, before)
    assert all(p.grad is None for p in model.hf.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.hf.modules())


def test_the_planted_head_writes_the_answer(copying):
    model, where, prompts = copying
    result = direct_logit_attribution(model, prompts)
    score = result.frame.set_index(["layer", "head"])["score"]
    assert score[where["retrieval"]] == pytest.approx(result.manifest["parts"]["logit difference"], rel=0.05)
    assert score.drop(where["retrieval"]).abs().max() < 0.1
    control = result.frame.set_index(["layer", "head"])["control"]
    assert abs(control[where["retrieval"]]) < 0.1 * score[where["retrieval"]]


def test_what_has_no_logit_difference_is_refused(pairs_of):
    with pytest.raises(OptionError, match="no wrong answer"):
        direct_logit_attribution(tiny("llama"), [Prompt(ids=(9, 10), answer=(11,))])
    with pytest.raises(UnsupportedModelError):
        direct_logit_attribution(tiny("bert"), pairs_of(1, 7))
