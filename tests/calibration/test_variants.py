"""One-head variants: the batched ones equal whole runs, the screen is the derivative, and the model is left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from calibration_prompts import option_logprob, random_prompts
from torch import nn

import interp
from interp.calibration import act, temperature, var, zerotune
from interp.calibration.variants import (
    base_run,
    check_entrance,
    option_scores,
    screen,
    variant_states,
)
from interp.errors import CaptureError
from interp.interventions import ACT, Temperature
from interp.interventions.readout import Readout
from interp.models.blocks import decoder_blocks

METHODS = {
    "act": act((0.4,), detection="code", threshold=0.12, spared="first-key"),
    "act, all others": act((0.0, 0.7), detection="code", threshold=0.12, spared="none", receivers="others"),
    "var": var(((2, 9),), (0.3,), sinks=(0, 3), mass=0.05, rho=0.9),
    "zerotune": zerotune((0.1, 9.0)),
    "temperature": temperature((0.3, 2.5)),
}
PROMPTS = random_prompts(3, 17)


def every(model, method):
    return [
        (layer, h, s) for layer in range(model.layers) for h in range(model.heads) for s in range(len(method.settings))
    ]


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("llama", "act"),
        ("gpt2", "act, all others"),
        ("gpt2", "var"),
        ("llama", "zerotune"),
        ("gemma2", "temperature"),
    ],
)
def test_batched_variants_equal_whole_runs(models, family, name):
    model, method = models[family], METHODS[name]
    readout = Readout(model)
    base = base_run(readout, PROMPTS, method, range(model.layers))
    unchanged = [option_logprob(model, p)[0] for p in PROMPTS]
    moved = 0.0
    for layer in range(model.layers):
        changes = [(h, s) for at, h, s in every(model, method) if at == layer]
        states = variant_states(readout, base, layer, [*changes, None])
        torch.testing.assert_close(states[-1], base.states, rtol=1e-5, atol=1e-5)
        for (head, s), mine in zip(changes, states, strict=False):
            logprob, correct = option_scores(readout, PROMPTS, mine)
            edits = method.edits({(layer, head): method.settings[s]})
            expected = [option_logprob(model, p, edits) for p in PROMPTS]
            np.testing.assert_allclose(logprob.detach(), [x for x, _ in expected], atol=1e-5, rtol=0)
            assert correct.tolist() == [right for _, right in expected]
            moved += sum(abs(x - b) for (x, _), b in zip(expected, unchanged, strict=True))
    assert moved > 0.05, "none of the variants changes anything, so their equality says nothing"


def test_the_screen_is_the_derivative_as_beta_goes_to_1():
    model = interp.tiny("gpt2", seed=3)  # Llama's norms compute in float32 whatever the dtype
    model.hf.double()
    small = 2.0**-14  # 1 - small is a float32 too

    def method(beta):
        return act((beta,), detection="code", threshold=0.12, spared="first-key")

    gain, logprob, _ = screen(Readout(model), PROMPTS, method(0.4), range(model.layers))
    base = [option_logprob(model, p)[0] for p in PROMPTS]
    np.testing.assert_allclose(logprob, base, atol=1e-10)
    slopes = np.array(
        [
            [
                [(option_logprob(model, p, method(1 - small).edits({(layer, h): 1 - small}))[0] - b) / small for h in range(model.heads)]
                for layer in range(model.layers)
            ]
            for p, b in zip(PROMPTS, base, strict=True)
        ]
    )  # fmt: skip
    assert np.abs(slopes).max() > 0.05
    np.testing.assert_allclose(gain[..., 0] / 0.6, slopes, atol=5e-4)


def test_the_screen_needs_no_parameter_that_wants_a_gradient():
    model = interp.tiny("gpt2", seed=1)
    wanted = screen(Readout(model), PROMPTS, METHODS["temperature"], [1])[0]
    model.hf.requires_grad_(False)
    torch.testing.assert_close(screen(Readout(model), PROMPTS, METHODS["temperature"], [1])[0], wanted)
    assert all(p.grad is None for p in model.hf.parameters())


def test_gains_are_on_top_of_the_edits_in_force(models):
    model, method = models["llama"], METHODS["temperature"]
    readout = Readout(model)
    outer = Temperature(tau=0.5, layers=(0,))
    with model.edit(outer):
        base = base_run(readout, PROMPTS, method, [0])
        found = option_scores(readout, PROMPTS, variant_states(readout, base, 0, [(1, 1)])[0])[0]
    expected = [option_logprob(model, p, [outer, *method.edits({(0, 1): 2.5})])[0] for p in PROMPTS]
    np.testing.assert_allclose(found.detach(), expected, atol=1e-5)


def test_nothing_is_left_behind(models):
    model, method = models["llama"], METHODS["temperature"]
    readout, blocks = Readout(model), list(decoder_blocks(model))
    before = model.run(list(PROMPTS[0].ids)).logits
    base = base_run(readout, PROMPTS, method, [1])
    variant_states(readout, base, 1, [(0, 0)])
    with pytest.raises(IndexError):
        variant_states(readout, base, 1, [(0, 0), (99, 0)])
    assert [a is b for a, b in zip(decoder_blocks(model), blocks, strict=True)] == [True] * model.layers
    assert torch.equal(model.run(list(PROMPTS[0].ids)).logits, before)


def test_layers_below_are_not_run_again(models):
    model, method = models["gpt2"], METHODS["temperature"]
    readout = Readout(model)
    base = base_run(readout, PROMPTS, method, [1])
    ran = []
    handles = [b.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, b in enumerate(decoder_blocks(model))]
    variant_states(readout, base, 1, [(0, 0), (1, 0), (2, 1)])
    for handle in handles:
        handle.remove()
    assert ran == list(range(1, model.layers))


def test_a_model_with_more_than_a_residual_stream_is_refused(models):
    model = models["llama"]
    readout = Readout(model)
    base = base_run(readout, PROMPTS, METHODS["temperature"], [1])
    check_entrance(readout, base, 1)
    base.entered[1] = torch.randn_like(base.entered[1])
    with pytest.raises(CaptureError, match="ends elsewhere"):
        check_entrance(readout, base, 1)


def test_blocks_are_those_of_the_decoder(models):
    for model in models.values():
        blocks = decoder_blocks(model)
        assert isinstance(blocks, nn.ModuleList)
        assert len(blocks) == model.layers


def test_edits_of_several_settings():
    edits = METHODS["act, all others"].edits({(1, 2): 0.7, (0, 1): 0.0, (0, 3): 0.7})
    assert [(e.heads, e.beta) for e in edits if isinstance(e, ACT)] == [(((0, 1),), 0.0), (((0, 3), (1, 2)), 0.7)]
