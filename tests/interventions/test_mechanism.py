"""How interventions act together: order, phases, memory, positions in padded and windowed caches, errors, saving."""

from __future__ import annotations

import json
import math

import pytest
import torch
from dense_edits import largest_error, play, soft

TEXT = "one two three, one"
HEADS = ((0, 1), (1, 4), (2, 3))


def kinds():
    import interp.interventions

    return interp.interventions


def logits(model, ids, *edits):
    with model.edit(*edits):
        return model.run(ids, collect=["entropy"], keep="none").logits


# ---------------------------------------------------------------------- composition
def all_stages(k):
    """One edit of each kernel stage, on the same heads."""
    return [
        k.ScaleValues(factor=0.7, keys=((2, 9),), heads=HEADS),
        k.KnockOut(rows=((6, None),), keys=(3,), heads=HEADS),
        k.Temperature(tau=1.7, heads=HEADS),
        k.LogBias(bias=0.9, keys=((4, 7),), heads=HEADS),
        k.InjectSink(logit=0.2, heads=HEADS),
        k.DeleteEdges(rows=((8, None),), keys=(5,), heads=HEADS),
        k.RemoveSinks(keys=(0,), how="drop", heads=HEADS),
        k.GateHeads(gate=1.3, heads=HEADS),
    ]


def staged(d):
    """The stages in the order that the protocol states: values, mask, multiplier, bias, sink logit, softmax, factors, gate."""
    rows, keys = d.rows[:, None], d.keys
    v = torch.where(((keys >= 2) & (keys < 9))[:, None], 0.7, 1.0) * d.v
    s = 1.7 * d.s + torch.where((keys >= 4) & (keys < 7), 0.9, 0.0)
    seen = d.seen & ~((rows >= 6) & (keys == 3))
    joined = torch.cat([s, torch.full_like(s[..., :1], 0.2)], -1)
    p = soft(joined, torch.cat([seen, torch.ones_like(seen[..., :1])], -1))[..., :-1]
    p = p.masked_fill(((rows >= 8) & (keys == 5)) | (keys == 0), 0.0)
    z = d.z.clone()
    for layer, head in HEADS:
        if layer == d.layer:
            z[:, head] = 1.3 * (p @ v)[:, head]
    return z


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_stages_have_an_order_of_their_own_whatever_the_order_given(models, family):
    model = models[family]
    ids = model.encode(TEXT)
    edits = all_stages(kinds())
    for order in (edits, edits[::-1], edits[3:] + edits[:3]):
        assert largest_error(play(model, ids, tuple(order), steps=2), staged) < 1e-5
    outer, inner = edits[:4], edits[4:]
    with model.edit(*outer), model.edit(*inner):
        nested = model.run(ids).logits
    torch.testing.assert_close(nested, logits(model, ids, *edits), atol=0, rtol=0)


def test_edits_of_z_follow_the_kernel_and_the_later_one_wins(models):
    k, model = kinds(), models["llama"]
    ids = model.encode(TEXT)
    z = model.head_outputs(model.encode("other words"), layers=[1])[1].mean((0, 2))
    gate, zero = k.GateHeads(gate={(1, 4): 0.5}), k.AblateHeads(heads=((1, 4),))
    mean = k.AblateHeads(heads=((1, 4),), kind="mean", replacement={1: z})
    alone = logits(model, ids, mean)
    for edits in ((gate, mean), (mean, gate), (zero, mean), (zero, gate, mean)):
        assert torch.equal(logits(model, ids, *edits), alone)
    assert torch.equal(logits(model, ids, mean, zero), logits(model, ids, zero))


def test_an_edit_that_reads_the_map_reads_it_behind_the_edits_before_it(models):
    k, model = kinds(), models["llama"]
    ids = model.encode(TEXT)
    sharp, target = k.Temperature(tau=3.0, heads=HEADS), k.TargetEntropy(target=0.5, heads=HEADS, tolerance=1e-6)
    torch.testing.assert_close(logits(model, ids, sharp, target), logits(model, ids, target), atol=1e-4, rtol=1e-4)
    # Behind the solution the multiplier acts on top of it.
    assert (logits(model, ids, target, sharp) - logits(model, ids, target)).abs().max() > 1e-2


def test_factor_sets_of_two_edits_are_refined_and_too_many_are_an_error(models):
    from interp.errors import EditError

    k, model = kinds(), models["llama"]
    cuts = [k.DeleteEdges(keys=(place, place + 1), layers=(0,)) for place in range(4)]
    ids = model.encode(TEXT)
    together = logits(model, ids, k.DeleteEdges(keys=((0, 4),), layers=(0,)))
    torch.testing.assert_close(logits(model, ids, *cuts[:3]), together, atol=1e-6, rtol=1e-6)
    with pytest.raises(EditError, match="4 apart"):
        logits(model, ids, *cuts)


# ---------------------------------------------------------------------- nothing left, nothing silent
def test_base_comes_back_bit_for_bit_after_every_kind_and_after_an_error(models):
    k, model = kinds(), models["gpt2"]
    ids = model.encode(TEXT)
    base = model.run(ids).logits
    for edit in [*all_stages(k), k.ACT(heads=HEADS), k.Streaming(window=3), k.TargetEntropy(target=0.4, layers=(1,))]:
        logits(model, ids, edit)
        assert torch.equal(model.run(ids).logits, base)
        with pytest.raises(RuntimeError, match="mine"), model.edit(edit):
            raise RuntimeError("mine")
        assert torch.equal(model.run(ids).logits, base)
    assert torch.equal(logits(model, ids), base)


def test_edits_that_name_nothing_in_the_text_never_acted(models):
    from interp.errors import EditError

    k, model = kinds(), models["llama"]
    ids = model.encode(TEXT)
    behind = len(ids)
    for edit in (
        k.KnockOut(keys=(behind,)),
        k.DeleteEdges(rows=(behind,), keys=(0,)),
        k.RemoveSinks(keys=(behind, behind + 3)),
        k.LogBias(bias=1.0, keys=((behind, None),)),
        k.ScaleValues(factor=2.0, keys=(behind,)),
        k.Temperature(tau=2.0, phases=frozenset({"decode"})),
        k.Schedule(edit=k.Temperature(tau=2.0), steps=(1, 3)),
    ):
        with pytest.raises(EditError, match="never acted") as said:
            logits(model, ids, edit)
        assert edit.name in str(said.value)


def test_layers_heads_and_values_that_make_no_sense_are_errors(models):
    from interp.errors import EditError

    k, model = kinds(), models["llama"]
    for edit in (k.Temperature(tau=2.0, layers=(3,)), k.GateHeads(gate={(0, 6): 1.0}), k.ACT(heads=((-1, 0),))):
        with pytest.raises(EditError, match="do not exist"), model.edit(edit):
            pass
    ids = model.encode(TEXT)
    for make, said in (
        (lambda: k.Temperature(tau=-1.0), "at least 0"),
        (lambda: k.Temperature(rule="logn-ratio"), "needs reference"),
        (lambda: k.Temperature(tau=2.0, layers=()), "empty"),
        (lambda: k.Temperature(tau=2.0, heads=((0, 0),), layers=(0,)), "not both"),
        (lambda: k.Temperature(tau={(0, 0): 2.0}, layers=(0,)), "say which heads"),
        (lambda: k.KnockOut(), "rows=, keys="),
        (lambda: k.KnockOut(keys=(-1,)), "no position"),
        (lambda: k.KnockOut(keys=((4, 4),)), "no position"),
        (lambda: k.GateHeads(), "one of them"),
        (lambda: k.InjectSink(), "give logit="),
        (lambda: k.TargetEntropy(target=1.2), "targets in"),
        (lambda: k.Streaming(window=0), "window >= 1"),
        (lambda: k.LogBias(bias=math.inf, keys=(0,)), "bias must be"),
        (lambda: k.ReplacePattern(by="permuted"), "needs keys"),
        (lambda: k.ReplacePattern(by="permuted", keys=((3, None),)), "no end"),
        (lambda: k.VAR(group=((2, None),), sinks=(0,)), "no end"),
        (lambda: k.ACT(beta=1.5), "beta"),
        (lambda: k.PatchPattern(source={}), "empty"),
        (lambda: k.Schedule(edit=k.Temperature(tau=2.0)), "give layers="),
        (lambda: k.pasta(((0, 9),), prompt=9), "nothing is penalised"),
        (lambda: k.delete_tokens([1, 2], (2,)), "do not fit"),
        (lambda: logits(model, ids, k.RouteHeads(keep=6)), "changes nothing"),
        (lambda: logits(model, ids, k.PatchPattern(source=k.queries_and_keys(model, ids[:-1]))), "same number"),
        (lambda: logits(model, ids, k.GateHeads(tokens={0: torch.ones(6, 3)})), "3 positions are given"),
    ):
        with pytest.raises(EditError, match=said):
            make()


def test_edits_of_a_prompt_refuse_to_decode_unless_told_to_leave_new_tokens_alone(models):
    from interp.errors import EditError

    k, model = kinds(), models["llama"]
    ids = model.encode(TEXT)
    prompt = ids[:-2]
    z, other = model.head_outputs(prompt)[1], k.queries_and_keys(model, prompt[::-1])
    only = frozenset({"prefill"})
    for make in (
        lambda **phases: k.AblateHeads(heads=((1, 0),), kind="resample", replacement={1: z + 1}, **phases),
        lambda **phases: k.PatchPattern(source=other, **phases),
        lambda **phases: k.GateHeads(tokens={0: torch.ones(6, len(prompt)) / 2}, **phases),
    ):
        with pytest.raises(EditError, match="prefill"):
            play(model, ids, (make(),), steps=2)
        played = play(model, ids, (make(phases=only),), steps=2)
        assert (played.logits - play(model, ids, (), steps=2).logits).abs().max() > 1e-3
    for edit in (k.ACT(heads=HEADS), k.TargetEntropy(target=0.5, per="head"), k.Schedule(edit=k.ACT(), steps=(0, 2))):
        with torch.no_grad():
            cache = model.hf(torch.tensor([prompt]), use_cache=True).past_key_values
        with pytest.raises(EditError, match="inside this context"), model.edit(edit), torch.no_grad():
            model.hf(torch.tensor([ids[-2:-1]]), past_key_values=cache)


def test_a_schedule_counts_steps_and_keeps_to_layers(models):
    k, model = kinds(), models["llama"]
    ids = model.encode(TEXT)
    edit = k.Schedule(edit=k.AblateHeads(heads=tuple((layer, 2) for layer in range(3))), layers=(1, 3), steps=(1, 3))
    played = play(model, ids, (edit,), steps=4)
    for number, out in enumerate(played.outs):
        step, layer = divmod(number, 3)
        assert bool((out[:, 2] == 0).all()) == (layer >= 1 and step in (1, 2)), (step, layer)


# ---------------------------------------------------------------------- positions
def test_positions_are_those_of_the_text_under_padding_on_either_side(models):
    k, model = kinds(), models["llama"]
    long, short = model.encode(TEXT), model.encode("two three")
    edits = (
        k.KnockOut(rows=((5, None),), keys=((1, 3),), layers=(0, 2)),
        k.Temperature(tau=0.7, rule="logn", layers=(1,)),
        k.ReplacePattern(by="previous", heads=((0, 3),)),
        k.ACT(heads=HEADS, threshold=1.2),
        k.Streaming(sinks=1, window=4, heads=((2, 5),)),
    )
    alone = logits(model, short, *edits)
    n, m = len(short), len(long)
    with model.edit(*edits):
        right = model.run([long, short])[1].logits
        ids = torch.tensor([long, [0] * (m - n) + short])
        real = torch.tensor([[1] * m, [0] * (m - n) + [1] * n])
        with torch.no_grad():
            left = model.hf(ids, attention_mask=real, position_ids=(real.cumsum(1) - 1).clamp(min=0)).logits[1, m - n :]
    torch.testing.assert_close(right[:n], alone, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(left, alone, atol=2e-5, rtol=1e-4)


def test_positions_hold_where_a_sliding_cache_has_dropped_keys(models):
    k, model = kinds(), models["mistral"]
    ids = model.encode(TEXT)  # its window is 8 tokens
    assert len(ids) > 16
    edits = (
        k.KnockOut(rows=((9, None),), keys=((7, 12),), layers=(0,)),
        k.LogBias(bias=1.1, keys=((11, 14),), heads=((1, 2),)),
        k.ReplacePattern(by="previous", heads=((0, 3),)),
        k.Temperature(tau=0.5, rule="logn", heads=((1, 5),)),
    )
    whole, parts = play(model, ids, edits), play(model, ids, edits, steps=7)
    torch.testing.assert_close(parts.logits, whole.logits, atol=5e-5, rtol=1e-4)


# ---------------------------------------------------------------------- saving
def every_kind(k, model, ids):
    other = k.queries_and_keys(model, ids[::-1], layers=[1])
    z = model.head_outputs(ids[::-1], layers=[1])[1].mean((0, 2))
    return [
        *all_stages(k),
        k.AblateHeads(heads=((1, 0),), kind="mean", replacement={1: z}),
        k.RouteHeads(keep=4, layers=(0,)),
        k.GateHeads(tokens={0: torch.linspace(0, 1, 6 * len(ids)).reshape(6, -1)}),
        k.Temperature(tau={(0, 2): 1.5}, rule="ssa", reference=1.5),
        k.TargetEntropy(target=0.8, unit="nats", per="head", heads=((2, 1),)),
        k.Streaming(sinks=1, window=6, share=0.25, layers=(2,)),
        k.LogBias(bias={(0, 0): -math.inf}, keys=((1, 3), 7)),
        k.PatchPattern(source=other, heads=((1, 5),)),
        k.FreezePattern(layers=(0,)),
        k.ReplacePattern(by="permuted", keys=((2, 6),), seed=5, heads=((0, 5),)),
        k.ACT(heads=((1, 2),), detection="code", threshold=0.07, receivers="others"),
        k.VAR(group=((2, 8),), sinks={2: (0, 4)}, mass=0.1),
        k.InjectSink(keys={2: torch.full((6, 10), 0.1)}),
        k.Schedule(edit=k.Temperature(tau=0.5, phases=frozenset({"prefill"})), layers=(1, 2), steps=(0, None)),
    ]


def test_saved_interventions_come_back_and_do_the_same(models):
    k, model = kinds(), models["llama"]
    from interp.interventions.saved import KINDS

    ids = model.encode(TEXT)
    edits = every_kind(k, model, ids)
    assert {type(e).__name__ for e in edits} == set(KINDS)
    text = k.to_json(edits)
    loaded = k.from_json(text)
    assert [e.name for e in loaded] == [e.name for e in edits]
    assert k.to_json(loaded) == text
    for before, after in zip(edits, loaded, strict=True):
        assert torch.equal(logits(model, ids, before), logits(model, ids, after)), before.name


def test_a_saved_file_that_is_none_is_refused():
    from interp.errors import CorruptFileError, EditError

    k = kinds()
    good = json.loads(k.to_json([k.Temperature(tau=2.0)]))["interventions"][0]
    for rows, error, said in (
        ([good | {"kind": "os.system"}], EditError, "unknown"),
        ([good | {"fields": {"tau": 2.0, "shell": "ls"}}], EditError, "shell"),
        ([good | {"fields": {"tau": -2.0}}], EditError, "at least 0"),
        ([{"kind": "Temperature"}], CorruptFileError, "no saved interventions"),
        ([good | {"fields": {"tau": {"number": "seven"}}}], CorruptFileError, "no saved interventions"),
        ({"a": 1}, CorruptFileError, "no saved interventions"),
    ):
        with pytest.raises(error, match=said):
            k.from_json(json.dumps({"interventions": rows}))
    with pytest.raises(CorruptFileError, match="no saved interventions"):
        k.from_json("[1, 2")
    with pytest.raises(EditError, match="too large"):
        k.to_json([k.GateHeads(tokens={0: torch.zeros(2, 2**20)})])


def test_a_run_says_which_interventions_were_in_force(models):
    k, model = kinds(), models["llama"]
    edit = k.Temperature(tau=2.0, heads=((0, 1),))
    with model.edit(edit):
        said = model.run(TEXT).manifest["settings"]["interventions"]
    assert [(row["name"], row["phases"]) for row in said] == [("Temperature(2: 0.1)", ["decode", "prefill"])]
    assert model.run(TEXT).manifest["settings"]["interventions"] == []
