"""What must hold between interventions and the model: identities, closed forms, gradients (methods section 13, tests 5 to 7)."""

from __future__ import annotations

import pytest
import torch
from dense_edits import play

TEXT = "red blue, red blue, re"
HEADS = ((0, 1), (1, 0), (1, 4), (2, 3))


def kinds():
    import interp.interventions

    return interp.interventions


def logits(model, ids, *edits):
    with model.edit(*edits):
        return model.run(ids, collect=["entropy"], keep="none").logits


@pytest.fixture(params=["llama", "gpt2"])
def model(models, request):
    return models[request.param]


def test_pattern_patch_from_the_same_run_reproduces_it_bit_for_bit(model):
    k = kinds()
    ids = model.encode(TEXT)
    base = model.run(ids).logits
    own = k.queries_and_keys(model, ids)
    assert torch.equal(logits(model, ids, k.PatchPattern(source=own)), base)
    torch.testing.assert_close(logits(model, ids, k.PatchPattern(source=own, heads=HEADS)), base, atol=1e-5, rtol=1e-5)


def test_pattern_patch_takes_weights_from_one_run_and_values_from_the_other(model):
    k = kinds()
    ids = model.encode(TEXT)
    other = ids[:1] + ids[:0:-1]
    source = k.queries_and_keys(model, other)
    patched = play(model, ids, (k.PatchPattern(source=source, heads=HEADS),))
    for call, out in zip(patched.calls, patched.outs, strict=True):
        layer, group = call.site.layer, call.q.shape[1] // call.k.shape[1]
        q, keys = (x.double() for x in source[layer])
        scale = q.shape[-1] ** -0.5
        for at, h in HEADS:
            if at == layer:
                s = scale * q[0, h] @ keys[0, h // group].T
                p = s.masked_fill(~torch.ones_like(s, dtype=torch.bool).tril(), -torch.inf).softmax(-1)
                torch.testing.assert_close(out[0, h].double(), p @ call.v[0, h // group].double(), atol=1e-5, rtol=0)


def test_knock_out_by_mask_equals_the_subtraction_form(model):
    """o' = (o - oE) / (1 - ME) where ME < 0.99, with the DeleteEdges output as o - oE."""
    k = kinds()
    ids = model.encode(TEXT)
    where = {"rows": ((6, None),), "keys": ((2, 5),), "layers": (0,)}
    masked, deleted = (play(model, ids, (kind(**where),)).outs[0].double() for kind in (k.KnockOut, k.DeleteEdges))
    call = play(model, ids, ()).calls[0]
    group = call.q.shape[1] // call.k.shape[1]
    s = call.q.double() @ call.k.double().repeat_interleave(group, 1).mT * call.q.shape[3] ** -0.5
    p = s.masked_fill(~torch.ones_like(s, dtype=torch.bool).tril(), -torch.inf).softmax(-1)
    mass = torch.where(torch.arange(len(ids)) >= 6, p[..., 2:5].sum(-1), 0.0)[..., None]
    ok = (mass < 0.99).expand_as(masked)
    assert ok.float().mean() > 0.9
    torch.testing.assert_close(masked[ok], (deleted / (1 - mass))[ok], atol=1e-6, rtol=1e-5)


def test_act_with_beta_one_or_without_sinks_is_the_model_itself(model):
    k = kinds()
    ids = model.encode(TEXT)
    base = model.run(ids).logits
    assert torch.equal(logits(model, ids, k.ACT(heads=HEADS, threshold=1e6)), base)
    torch.testing.assert_close(
        logits(model, ids, k.ACT(heads=HEADS, beta=1.0, threshold=1.2)), base, atol=1e-5, rtol=1e-5
    )


def test_act_stays_exact_where_nearly_all_mass_is_on_sinks(model):
    """Sinks hold 1 - 1e-7 and more: float32 has no digits left in 1 - M, the rest must come out in proportion all the same."""
    k = kinds()
    ids = model.encode(TEXT)
    strong = k.LogBias(bias=30.0, keys=(0, 1), layers=(0,))
    act = k.ACT(layers=(0,), beta=0.25, spared="none", threshold=1.0)
    played = play(model, ids, (strong, act))
    call = played.calls[0]
    group = call.q.shape[1] // call.k.shape[1]
    s = call.q.double() @ call.k.double().repeat_interleave(group, 1).mT * call.q.shape[3] ** -0.5
    s = s.masked_fill(~torch.ones_like(s, dtype=torch.bool).tril(), -torch.inf)
    s[..., :2] += 30.0
    p = s.softmax(-1)
    rest = p[..., 2:].sum(-1)
    assert 0 < float(rest[..., 3:].median()) < 1e-7
    p[..., 2:, :2] *= 0.25
    p[..., 2:, 2:] *= (1 + 0.75 * (1 - rest) / rest)[..., 2:, None]
    want = p @ call.v.double().repeat_interleave(group, 1)
    torch.testing.assert_close(played.outs[0].double(), want, atol=1e-5, rtol=0)


def test_the_same_key_set_dropped_or_with_zero_values_is_one_thing(model):
    k = kinds()
    ids = model.encode(TEXT)
    drop, zero = (logits(model, ids, k.RemoveSinks(keys=(0, 4), how=how, layers=(1, 2))) for how in ("drop", "zero"))
    torch.testing.assert_close(drop, zero, atol=1e-5, rtol=1e-5)
    assert (drop - logits(model, ids, k.RemoveSinks(keys=(0, 4), how="mask", layers=(1, 2)))).abs().max() > 1e-3


def test_deleting_leading_tokens_equals_masking_them_under_rotary_positions_only(models):
    k = kinds()
    for family, same in (("llama", True), ("gpt2", False)):
        model = models[family]
        ids = model.encode(TEXT)
        left = k.delete_tokens(ids, ((0, 2),))
        assert left == ids[2:]
        gap = (logits(model, ids, k.RemoveSinks(keys=((0, 2),)))[2:] - model.run(left).logits).abs().max()
        assert (gap < 5e-5) == same


def test_a_row_that_sees_nothing_but_removed_sinks_gives_zero(model):
    k = kinds()
    out = play(model, model.encode(TEXT), (k.RemoveSinks(keys=(0, 1), layers=(0,)),)).outs[0]
    assert bool((out[:, :, :2] == 0).all()) and bool(out.isfinite().all()) and bool((out[:, :, 2] != 0).any())


def test_target_entropy_is_what_statistics_then_measure(model):
    k = kinds()
    ids = model.encode(TEXT)
    with model.edit(k.TargetEntropy(target=0.35)):
        measured = model.run(ids, collect=["normalised_entropy"]).stats["normalised_entropy"][..., 1:]
    torch.testing.assert_close(measured, torch.full_like(measured, 0.35), atol=1e-4, rtol=0)
    with model.edit(k.TargetEntropy(target={(1, 2): 1.1}, unit="nats", per="head")):
        entropy = model.run(ids, collect=["entropy"]).stats["entropy"][1, 2, 1:]
    assert abs(float(entropy.mean()) - 1.1) < 1e-4


def test_a_sink_logit_is_measured_and_equals_a_key_without_value(model):
    k = kinds()
    ids = model.encode(TEXT)
    size = play(model, ids, ()).calls[0].q.shape[3]
    with model.edit(k.InjectSink(logit=0.0, layers=(1,))):
        run = model.run(ids, layers=[1], collect=["learned_sink_mass", "first_token_mass"])
    assert 0 < float(run.stats["learned_sink_mass"][0, :, -1].min()) < 1
    zero_key = k.InjectSink(keys={1: torch.zeros(model.heads, size)})
    torch.testing.assert_close(run.logits, logits(model, ids, zero_key), atol=1e-5, rtol=1e-5)


def test_a_frozen_pattern_changes_no_output_and_stops_gradients_through_queries_and_keys(model):
    k = kinds()
    ids = model.encode(TEXT)
    assert torch.equal(logits(model, ids, k.FreezePattern()), model.run(ids).logits)

    def gradients(*edits):
        found = {}

        def take(call, attended):
            if call.site.layer == 1:
                x = torch.autograd.grad(attended.out.square().sum(), embedding, retain_graph=True)[0]
                found["embedding"] = x

        embedding = model.hf.get_input_embeddings().weight
        with model.edit(*edits), torch.enable_grad():
            model.probe(ids, take)
        return found["embedding"]

    free, frozen, some = gradients(), gradients(k.FreezePattern()), gradients(k.FreezePattern(heads=HEADS))
    assert (free - frozen).abs().max() > 1e-4
    assert (free - some).abs().max() > 1e-5 and (some - frozen).abs().max() > 1e-5
    # A pattern that is uniform by definition has no gradient to lose.
    uniform = k.ReplacePattern(by="uniform")
    torch.testing.assert_close(gradients(uniform), gradients(uniform, k.FreezePattern()), atol=1e-6, rtol=1e-5)


def test_streaming_within_its_window_is_the_model_itself(model):
    k = kinds()
    ids = model.encode(TEXT)
    base = model.run(ids).logits
    assert torch.equal(logits(model, ids, k.Streaming(sinks=4, window=len(ids) - 4)), base)
    assert not torch.equal(logits(model, ids, k.Streaming(sinks=3, window=len(ids) - 4)), base)


def test_streaming_keeps_to_a_window_that_the_model_has_already(models):
    from interp.errors import EditError

    k, model = kinds(), models["mistral"]  # window 8
    ids = model.encode(TEXT)
    base = model.run(ids).logits
    torch.testing.assert_close(logits(model, ids, k.Streaming(sinks=0, window=11)), base, atol=1e-5, rtol=1e-5)
    with pytest.raises(EditError, match="already"):
        logits(model, ids, k.Streaming(sinks=2, window=5))
    narrow = logits(model, ids, k.Streaming(sinks=0, window=5))
    assert torch.equal(logits(model, ids, k.Streaming(sinks=0, window=6), k.Streaming(sinks=0, window=5)), narrow)


def test_zero_tuning_has_its_closed_form(model):
    """p'_0 = gamma p_0 / D and all else p_j / D with D = (gamma - 1) p_0 + 1, as statistics measure it."""
    k = kinds()
    ids = model.encode(TEXT)
    names = ["first_token_mass", "current_token_mass"]
    before = {name: x[0, :, 1:] for name, x in model.run(ids, layers=[0], collect=names).stats.items()}
    with model.edit(k.zero_tuning(2.5)):
        after = {name: x[0, :, 1:] for name, x in model.run(ids, layers=[0], collect=names).stats.items()}
    d = 1 + 1.5 * before["first_token_mass"]
    torch.testing.assert_close(after["first_token_mass"], 2.5 * before["first_token_mass"] / d, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(after["current_token_mass"], before["current_token_mass"] / d, atol=1e-6, rtol=1e-5)
