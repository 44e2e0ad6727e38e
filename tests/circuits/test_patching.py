"""Activation and attribution patching against hooks on an eager float64 model, one cell at a time, and against planted circuits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from eager_llama import difference, eager, hooked, projection, put, values

from interp.circuits.activation_patching import activation_patching
from interp.circuits.attribution_patching import attribution_patching
from interp.circuits.cells import cells_of, chunks
from interp.circuits.pairs import paired, places
from interp.errors import OptionError, UnsupportedModelError
from interp.models.toy import tiny
from interp.tasks.prompt import Prompt

SIZE = 10  # of a head of the tiny Llama: 6 query heads on 2 key heads, 3 layers


def one_by_one(prompts, kind, label, direction):
    """Effects [prompt, cell] by one eager run each."""
    hf = eager()
    clean = np.array([difference(hf, p.ids, p) for p in prompts])
    corrupt = np.array([difference(hf, p.corrupt, p) for p in prompts])
    effects = []
    for prompt, a, b in zip(prompts, clean, corrupt, strict=True):
        base, source, before = (
            (prompt.corrupt, prompt.ids, b) if direction == "denoise" else (prompt.ids, prompt.corrupt, a)
        )
        other = values(hf, source, kind)
        row = []
        for layer in range(3):
            for head in range(2 if kind in "kv" else 6):
                with hooked(projection(hf, layer, kind), kind, put(other[layer], head, places(prompt, label), SIZE)):
                    row.append(difference(hf, base, prompt) - before)
        effects.append(row)
    return np.array(effects) / (clean - corrupt).mean(), clean, corrupt


@pytest.mark.parametrize("kind", ["z", "q", "k", "v"])
@pytest.mark.parametrize(("label", "direction"), [("all", "denoise"), ("two", "noise"), ("end", "denoise")])
def test_every_cell_is_one_run_of_the_eager_model(pairs_of, kind, label, direction):
    prompts = [*pairs_of(2, 11), *pairs_of(1, 13)]
    result = activation_patching(
        tiny("llama"), prompts, sites=(kind,), positions="all" if label == "all" else [label], direction=direction
    )
    expected, clean, corrupt = one_by_one(prompts, kind, label, direction)
    np.testing.assert_allclose(result.arrays["clean"], clean, atol=1e-4)
    np.testing.assert_allclose(result.arrays["corrupt"], corrupt, atol=1e-4)
    np.testing.assert_allclose(result.arrays["samples"], expected, atol=3e-4)
    np.testing.assert_allclose(result.frame["score"], expected.mean(0), atol=3e-4)
    np.testing.assert_allclose(result.frame["spread"], expected.std(0, ddof=1), atol=3e-4)
    assert np.abs(expected).max() > 0.05


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "gpt_neox", "gpt_oss", "opt", "mistral"])
def test_batched_is_one_by_one(pairs_of, family):
    model = tiny(family)
    given = {"sites": ("z", "k"), "positions": ("two", "end")}
    together = activation_patching(model, pairs_of(3, 13), **given)
    alone = activation_patching(model, pairs_of(3, 13), batch=1, **given)
    # In logits, because the gap is small by chance in some families.
    found, expected = (x.arrays["samples"] * x.manifest["settings"]["gap"] for x in (together, alone))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(expected).max() > 0.01


def test_each_position_by_itself(pairs_of):
    model, prompts = tiny("llama"), pairs_of(2, 7)
    by_place = activation_patching(model, prompts, positions="each").frame
    assert by_place["position"].unique().tolist() == [str(n) for n in range(7)]
    named = activation_patching(model, prompts, positions=["end"]).frame
    last = by_place[by_place["position"] == "6"]
    np.testing.assert_allclose(last["score"], named["score"], atol=1e-6)
    with pytest.raises(OptionError, match="one length"):
        activation_patching(model, [*prompts, *pairs_of(1, 11)], positions="each")


def test_a_corruption_that_changes_nothing_has_no_effect(pairs_of):
    prompts = pairs_of(2, 11)
    same = Prompt(ids=prompts[0].ids, corrupt=prompts[0].ids, answer=(20,), wrong=(90,))
    result = activation_patching(tiny("llama"), [same, prompts[1]], sites=("z", "q", "k", "v"))
    np.testing.assert_allclose(result.arrays["samples"][0], 0.0, atol=1e-6)
    assert np.abs(result.arrays["samples"][1]).max() > 0.01
    with pytest.raises(OptionError, match="takes nothing away"):
        activation_patching(tiny("llama"), [same])


def test_the_control_has_the_values_of_another_pair(pairs_of):
    prompts = pairs_of(3, 11)
    result = activation_patching(tiny("llama"), prompts, control="other pair")
    turned = [
        Prompt(ids=prompts[(n - 1) % 3].ids, corrupt=p.corrupt, answer=p.answer, wrong=p.wrong)
        for n, p in enumerate(prompts)
    ]
    other = activation_patching(tiny("llama"), turned)
    gap, of_other = (x.manifest["settings"]["gap"] for x in (result, other))
    np.testing.assert_allclose(result.frame["control"], other.frame["score"] * of_other / gap, atol=1e-5)
    assert result.frame["control"].abs().max() > 0.01
    assert activation_patching(tiny("llama"), prompts[:1], control="other pair").frame["control"].isna().all()


def test_cells_of_a_pass_are_bounded(pairs_of):
    model = tiny("llama")
    (pairs,) = paired(model, pairs_of(2, 11), most=7)
    cells = cells_of(model, ["z"], ["all"])
    found = list(chunks(cells, pairs, 9))
    assert max(map(len, found)) * 2 <= 9
    assert sorted(n for some in found for n in some) == list(range(18))


# ------------------------------------------------------------------ planted circuits
@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_patching_finds_the_planted_heads_and_no_others(copying, direction):
    model, where, prompts = copying
    table = activation_patching(model, prompts, direction=direction).frame.set_index(["layer", "head"])
    planted = {where["previous"], where["retrieval"]}
    sign = 1 if direction == "denoise" else -1
    for head, score in table["score"].items():
        if head in planted:
            assert sign * score > 0.9, head
        else:
            assert abs(score) < 0.1, head


def test_patching_finds_where_the_planted_heads_write(copying):
    model, where, prompts = copying
    table = activation_patching(model, prompts, positions=["found", "asked", "end"]).frame.set_index(
        ["layer", "head", "position"]
    )
    score = table["score"]
    assert score[(*where["previous"], "found")] > 0.9
    assert score[(*where["retrieval"], "end")] > 0.9
    for other in ((*where["previous"], "asked"), (*where["previous"], "end"), (*where["retrieval"], "found")):
        assert abs(score[other]) < 0.1


# ------------------------------------------------------------------ first order
@pytest.mark.parametrize("kind", ["z", "q", "k", "v"])
@pytest.mark.parametrize("steps", [None, 3])
def test_attribution_is_delta_times_the_eager_gradient(pairs_of, kind, steps):
    prompts = pairs_of(2, 11)
    result = attribution_patching(tiny("llama"), prompts, sites=(kind,), positions=["two"], steps=steps)
    hf, expected = eager(), []
    gap = result.manifest["settings"]["gap"]
    for prompt in prompts:
        here, there = values(hf, prompt.corrupt, kind), values(hf, prompt.ids, kind)
        ends = [hf.model.embed_tokens(torch.tensor([ids])).detach() for ids in (prompt.corrupt, prompt.ids)]
        slopes = {layer: torch.zeros_like(x) for layer, x in here.items()}
        for share in [0.0] if steps is None else [1 / 6, 3 / 6, 5 / 6]:
            noted = {}

            def note(x, layer, noted=noted):
                x.retain_grad()
                noted[layer] = x
                return x

            handles = [hooked(projection(hf, n, kind), kind, lambda x, n=n: note(x, n)) for n in range(3)]
            for handle in handles:
                handle.__enter__()
            logits = hf(inputs_embeds=((1 - share) * ends[0] + share * ends[1]).requires_grad_()).logits[0, -1]
            (logits[prompt.answer[0]] - logits[prompt.wrong[0]]).backward()
            for handle in handles:
                handle.__exit__(None, None, None)
            for layer, x in noted.items():
                slopes[layer] += x.grad / (1 if steps is None else steps)
        row = [((there[n] - here[n]) * slopes[n])[0, 3:5].view(2, -1, SIZE).sum((0, 2)) for n in range(3)]
        expected.append(torch.cat(row).detach().numpy() / gap)
    np.testing.assert_allclose(result.arrays["samples"], np.array(expected), atol=3e-4)
    assert np.abs(expected).max() > 0.01


def test_attribution_is_patching_to_first_order(pairs_of):
    """Where clean and corrupted prompts differ by little, the error is of second order: a tenth of the difference, a hundredth of the error."""
    errors = []
    for size in (0.1, 0.01):
        model = tiny("llama")
        prompts = []
        with torch.no_grad():
            weight = model.hf.double().model.embed_tokens.weight
            for prompt in pairs_of(2, 11):
                # The corrupted token is a near copy of the clean one at position 4.
                ids, near = prompt.ids, 262 - prompt.ids[4] % 50
                weight[near] = weight[ids[4]] + size * weight[prompt.corrupt[4]]
                prompts.append(Prompt(ids=ids, corrupt=(*ids[:4], near, *ids[5:]), answer=(20,), wrong=(90,)))
        exact, first = (
            tool(model, prompts, sites=("z", "q", "k", "v")).arrays["samples"]
            for tool in (activation_patching, attribution_patching)
        )
        assert np.abs(exact).max() > 0.05
        errors.append(np.abs(exact - first).max())
    assert errors[1] < 0.15 * errors[0]  # relative to the gap, which shrinks with the difference


def test_both_have_the_same_signs_and_units(copying):
    model, where, prompts = copying
    for direction in ("denoise", "noise"):
        first = attribution_patching(model, prompts, direction=direction).frame.set_index(["layer", "head"])["score"]
        assert np.sign(first[where["retrieval"]]) == (1 if direction == "denoise" else -1)
        assert abs(abs(first[where["retrieval"]]) - 1) < 0.2  # the last head that writes: linear but for the final norm


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sites": ()}, "sites"),
        (
            {"positions": ["nowhere"]},
            "no position 'nowhere' in this prompt; there are: all, each, answer, end, late, two",
        ),
        ({"positions": "two"}, "positions must be"),
        ({"steps": 0}, "steps"),
    ],
)
def test_impossible_options_are_refused(pairs_of, options, said):
    with pytest.raises(OptionError, match=said):
        attribution_patching(tiny("llama"), pairs_of(2, 7), **options)


def test_unfit_prompts_and_models_are_refused(pairs_of):
    bare = Prompt(ids=(9, 10, 11), answer=(12,), wrong=(13,))
    with pytest.raises(OptionError, match="no corruption"):
        activation_patching(tiny("llama"), [bare])
    with pytest.raises(OptionError, match="no wrong answer"):
        activation_patching(tiny("llama"), [Prompt(ids=(9, 10), corrupt=(9, 11), answer=(12,), wrong=(12,))])
    with pytest.raises(UnsupportedModelError):
        activation_patching(tiny("bert"), pairs_of(1, 7))
