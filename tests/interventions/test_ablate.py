"""Head ablation against the same change made by hand on Hugging Face's own eager attention."""

from __future__ import annotations

import contextlib

import pytest
import torch

TEXT = "one two three, one two three, and four"


@pytest.fixture
def model():
    import interp

    return interp.tiny("llama")


@pytest.fixture
def eager():
    """The same weights with eager attention, unhooked."""
    import interp

    hf = interp.tiny("llama").release()
    hf.set_attn_implementation("eager")
    return hf


@contextlib.contextmanager
def z_replaced(hf, layer, head, make):
    """Replace z of one head, in front of o_proj; `make(v [B, Hkv, N, D])` gives what to put there, [B, N, D] or a number."""
    attention = hf.model.layers[layer].self_attn
    size = attention.head_dim
    seen = {}

    def keep_values(module, inputs, output):
        seen["v"] = output.view(*output.shape[:2], -1, size).transpose(1, 2)

    def change(module, inputs):
        z = inputs[0].clone()
        z[..., head * size : (head + 1) * size] = make(seen["v"])
        return (z,)

    handles = [attention.v_proj.register_forward_hook(keep_values), attention.o_proj.register_forward_pre_hook(change)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def eager_logits(hf, ids):
    with torch.no_grad():
        return hf(torch.tensor([ids]), use_cache=False).logits[0]


@pytest.mark.parametrize(("layer", "head"), [(0, 1), (1, 5), (2, 3)])
def test_zero_and_uniform_equal_the_change_made_by_hand(model, eager, layer, head):
    from interp.interventions.ablate import AblateHeads

    ids = model.encode(TEXT)
    group = head // (model.heads // 2)
    running_mean = lambda v: v[:, group].cumsum(1) / torch.arange(1, v.shape[2] + 1)[None, :, None]  # noqa: E731
    for kind, make in (("zero", lambda v: 0.0), ("uniform", running_mean)):
        with model.edit(AblateHeads(heads=((layer, head),), kind=kind)):
            ours = model.run(ids).logits
        with z_replaced(eager, layer, head, make):
            theirs = eager_logits(eager, ids)
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)
        assert (ours - model.run(ids).logits).abs().max() > 1e-3


def test_mean_and_resample_put_other_outputs_in_place(model, eager):
    from interp.interventions.ablate import AblateHeads

    ids, other = model.encode(TEXT), model.encode("quite another text that is at least as long as it")
    z = model.head_outputs(other[: len(ids)], layers=[1])[1]
    assert z.shape == (1, 6, len(ids), 10)
    for kind, replacement, put in (
        ("mean", z.mean((0, 2)), z.mean((0, 2))[4]),
        ("resample", z, z[0, 4]),
    ):
        with model.edit(AblateHeads(heads=((1, 4),), kind=kind, replacement={1: replacement})):
            ours = model.run(ids).logits
        with z_replaced(eager, 1, 4, lambda v, put=put: put):
            theirs = eager_logits(eager, ids)
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


def test_prefill_and_decode_with_a_cache_give_the_same_logits(model):
    from interp.interventions.ablate import AblateHeads

    ids = torch.tensor([model.encode(TEXT)])
    for kind in ("zero", "uniform"):
        with model.edit(AblateHeads(heads=((0, 2), (2, 1)), kind=kind)), torch.no_grad():
            whole = model.hf(ids, use_cache=False).logits
            step = model.hf(ids[:, :-3], use_cache=True)
            parts = [step.logits]
            for i in range(ids.shape[1] - 3, ids.shape[1]):
                step = model.hf(ids[:, i : i + 1], past_key_values=step.past_key_values, use_cache=True)
                parts.append(step.logits)
        torch.testing.assert_close(torch.cat(parts, 1), whole, atol=2e-5, rtol=1e-5)


def test_nothing_is_left_behind_on_exit_and_on_error(model):
    from interp.interventions.ablate import AblateHeads

    base = model.run(TEXT).logits
    with pytest.raises(RuntimeError, match="mine"), model.edit(AblateHeads(heads=((0, 0),))):
        model.run(TEXT)
        raise RuntimeError("mine")
    assert torch.equal(model.run(TEXT).logits, base)
    with model.edit():
        assert torch.equal(model.run(TEXT).logits, base)


def test_edits_compose_in_the_order_of_their_contexts(model):
    from interp.interventions.ablate import AblateHeads

    z = model.head_outputs(model.encode("other words"), layers=[1])[1].mean((0, 2))
    zero = AblateHeads(heads=((1, 0),), kind="zero")
    mean = AblateHeads(heads=((1, 0),), kind="mean", replacement={1: z})
    with model.edit(zero, mean):
        together = model.run(TEXT).logits
    with model.edit(zero), model.edit(mean):
        nested = model.run(TEXT).logits
    with model.edit(mean):
        last_wins = model.run(TEXT).logits
    assert torch.equal(together, nested)
    assert torch.equal(together, last_wins)


def test_a_foreign_model_is_not_edited(model):
    import interp
    from interp.interventions.ablate import AblateHeads

    other = interp.tiny("llama", seed=7)
    base = other.run(TEXT).logits
    with model.edit(AblateHeads(heads=((0, 0),))):
        model.run(TEXT)
        assert torch.equal(other.run(TEXT).logits, base)


def test_edits_that_cannot_act_are_errors(model):
    from interp.errors import EditError
    from interp.interventions.ablate import AblateHeads

    with pytest.raises(EditError, match="never acted"), model.edit(AblateHeads(heads=((0, 0),))):
        pass
    for heads in (((3, 0),), ((0, 6),), ((-1, 0),)):
        with pytest.raises(EditError, match="do not exist"), model.edit(AblateHeads(heads=heads)):
            pass
    with pytest.raises(EditError, match="no heads"):
        AblateHeads(heads=())
    with pytest.raises(EditError, match="needs replacement"):
        AblateHeads(heads=((0, 0),), kind="mean")
    with pytest.raises(EditError, match="takes no replacement"):
        AblateHeads(heads=((0, 0),), replacement={0: torch.zeros(6, 10)})
    with pytest.raises(EditError, match="no outputs for layers"):
        AblateHeads(heads=((0, 0), (1, 0)), kind="mean", replacement={0: torch.zeros(6, 10)})
    # Under the tests' type checks a wrong word is a TypeError already.
    with pytest.raises((EditError, TypeError), match="erase"):
        AblateHeads(heads=((0, 0),), kind="erase")
