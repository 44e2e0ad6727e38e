"""Gates as DuoAttention trains them: endpoints and mixtures against dense float64, the loss by hand, resumption, planted heads, files."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.llama.modeling_llama import LlamaRMSNorm

import interp
from interp.errors import (
    CorruptFileError,
    EditError,
    InputDataError,
    OptionError,
    OutputError,
    PlanMismatchError,
    ShapeError,
)
from interp.heads import duo_state, published
from interp.heads.duo_data import passkeys
from interp.heads.duo_gates import PAPER, STATE, GateTraining, gate_loss, train_gates
from interp.heads.duo_mixing import GateMix, frozen, key_heads, own_windows, student_states, teacher_states
from interp.heads.streaming import streaming_heads
from interp.models.planted import planted
from interp.tasks.prompt import Prompt

SINKS, WINDOW = 3, 5
TOKENS = 31
TINY = GateTraining(steps=7, sinks=SINKS, window=WINDOW, lr=0.05, seed=1)


@pytest.fixture(scope="module")
def llama():
    return interp.tiny("llama")


def in_float64(hf):
    """A Llama in float64 throughout: its own norms round to float32 whatever the dtype."""
    for norm in [m for m in hf.double().modules() if isinstance(m, LlamaRMSNorm)]:
        norm.forward = lambda x, norm=norm: norm.weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return hf


@pytest.fixture(scope="module")
def precise():
    model = interp.tiny("llama")
    in_float64(model.hf)
    return model


def tiny_prompt(step: int) -> Prompt:
    ids = tuple(np.random.default_rng([7, step]).integers(3, 263, TOKENS).tolist())
    return Prompt(ids=ids, answer=(), rows={"labels": tuple(range(19, TOKENS))})


def plainly(sinks: int | None) -> torch.Tensor:
    """Final hidden states of the same weights by torch's own attention in float64, under a dense mask written cell by cell."""
    hf = in_float64(interp.tiny("llama").release())
    hf.set_attn_implementation("sdpa")
    seen = torch.tensor(
        [[j <= i and (sinks is None or j < sinks or i - j < WINDOW) for j in range(TOKENS)] for i in range(TOKENS)]
    )
    mask = torch.zeros(TOKENS, TOKENS, dtype=torch.float64).masked_fill(~seen, -torch.inf)[None, None]
    with torch.no_grad():
        return hf.model(torch.tensor([tiny_prompt(0).ids]), attention_mask=mask).last_hidden_state[0]


def mix_of(model, gates, full):
    ids = tiny_prompt(0).ids
    outputs = teacher_states(model, ids)[1] if full == "code" else None
    mix = GateMix(gates=gates, sinks=SINKS, window=WINDOW, full=outputs)
    with torch.no_grad():
        return student_states(model, ids, mix)


# ------------------------------------------------------------------ the mixture
@pytest.mark.parametrize("full", ["code", "paper"])
def test_gates_of_one_are_the_model_and_gates_of_zero_stream(precise, llama, full):
    whole, cut = plainly(None), plainly(SINKS)
    assert (whole - cut).abs().max() > 1e-2
    torch.testing.assert_close(mix_of(precise, torch.ones(3, 2), full), whole, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        mix_of(precise, torch.zeros(3, 2), full), cut, rtol=0, atol=1e-6
    )  # norms round to float32
    teacher = teacher_states(llama, tiny_prompt(0).ids)[0]
    assert torch.equal(mix_of(llama, torch.ones(3, 2), full), teacher), "exactly, in float32 too"


@pytest.mark.parametrize("full", ["code", "paper"])
def test_each_group_is_mixed_by_its_own_gate(precise, full):
    """One layer's outputs by hand: query heads 0-2 read key head 0, 3-5 key head 1."""
    gates = torch.tensor([[0.25, 0.75], [0.5, 0.0], [1.0, 0.125]])
    ids = tiny_prompt(0).ids
    reference = teacher_states(precise, ids)[1]
    mix = GateMix(gates=gates, sinks=SINKS, window=WINDOW, full=reference if full == "code" else None)
    got = {}
    with torch.no_grad(), precise.edit(mix):
        precise.probe(list(ids), lambda call, attended: got.update({call.site.layer: (call, attended.out[0])}))
    i, j = np.indices((TOKENS, TOKENS))
    causal = j <= i
    near = causal & ((j < SINKS) | (i - j < WINDOW))
    for layer, (call, out) in got.items():
        q, k, v = (x[0].numpy() for x in (call.q, call.k, call.v))
        for head in range(6):
            s = q[head] @ k[head // 3].T / np.sqrt(10)
            full_out, stream = (
                (w := np.where(seen, np.exp(s), 0)) / w.sum(-1, keepdims=True) @ v[head // 3] for seen in (causal, near)
            )
            if full == "code":
                full_out = reference[layer][0, head].numpy()
            a = float(gates[layer, head // 3])
            np.testing.assert_allclose(out[head].numpy(), a * full_out + (1 - a) * stream, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("full", ["code", "paper"])
def test_loss_by_hand_and_its_gradient_by_finite_differences(precise, full):
    gates = torch.tensor([[0.5, 0.75], [0.25, 0.875], [0.375, 0.625]], dtype=torch.float64, requires_grad=True)
    prompt = tiny_prompt(0)
    sizes = {"sinks": SINKS, "window": WINDOW, "full": full}
    with frozen(precise.hf):
        loss = gate_loss(precise, gates, prompt, **sizes)
        (slope,) = torch.autograd.grad(loss, gates)
    teacher, student = plainly(None), mix_of(precise, gates.detach(), full)
    wanted = np.mean([np.mean((teacher[i] - student[i]).numpy() ** 2) for i in range(19, TOKENS)])
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-5)  # the loss is summed in float32
    for place in ((0, 0), (1, 1), (2, 0)):
        values = []
        for step in (1e-3, -1e-3):
            moved = gates.detach().clone()
            moved[place] += step
            there = mix_of(precise, moved, full)[19:]
            values.append(float((plainly(None)[19:] - there).square().mean()))
        assert float(slope[place]) == pytest.approx((values[0] - values[1]) / 2e-3, rel=1e-4)


def test_the_full_term_differs_between_the_forms(precise):
    """Only in what a mixed layer above a streaming one reads: the reference's states or its own."""
    gates = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    code, paper = mix_of(precise, gates, "code"), mix_of(precise, gates, "paper")
    assert (code - paper).abs().max() > 1e-4
    layer_0_alone = torch.tensor([[0.5, 0.5], [0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(mix_of(precise, layer_0_alone, "code"), mix_of(precise, layer_0_alone, "paper"))


def test_recomputed_blocks_give_the_same_gradient_and_leave_no_trace(llama):
    gates = torch.full((3, 2), 0.5, requires_grad=True)
    found = []
    for memory in ("keep", "recompute"):
        with frozen(llama.hf):
            loss = gate_loss(llama, gates, tiny_prompt(0), sinks=SINKS, window=WINDOW, memory=memory)
            found.append((loss.detach(), torch.autograd.grad(loss, gates)[0]))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert not any("forward" in vars(m) for m in llama.hf.modules())
    assert not llama.hf.training
    assert all(p.requires_grad for p in llama.hf.parameters())


@pytest.mark.parametrize("full", ["code", "paper"])
def test_a_layer_with_a_window_of_its_own_is_left_as_it_is(full):
    model = interp.tiny("gemma2")
    own = [own_windows(model)[layer] for layer in range(model.layers)]
    local = torch.tensor([window is not None for window in own])
    size = 3 * max(window or 0 for window in own)
    prompt = Prompt(ids=tuple(range(3, 3 + size)), answer=(), rows={"labels": tuple(range(size - 9, size))})
    gates = torch.full((model.layers, key_heads(model)), 0.5, requires_grad=True)
    with frozen(model.hf):
        loss = gate_loss(model, gates, prompt, sinks=1, window=2, full=full)
        (slope,) = torch.autograd.grad(loss, gates)
    assert (slope[local] == 0).all()
    assert (slope[~local] != 0).all()
    assert 0 < int(local.sum()) < model.layers


def test_gates_that_do_not_fit_the_model_are_refused(llama):
    for shape in ((2, 2), (3, 4), (3,)):
        with (
            pytest.raises(EditError, match=r"wanted gates \[3, key-value heads\]"),
            llama.edit(GateMix(gates=torch.ones(shape), sinks=1, window=2)),
        ):
            pass


# ------------------------------------------------------------------ training
def test_the_learning_rate_ramps_over_the_first_and_last_fifth():
    training = GateTraining(steps=50, lr=2.0)
    rates = [training.rate(t) for t in range(50)]
    np.testing.assert_allclose(rates[:10], 0.2 * np.arange(1, 11))
    assert rates[10:40] == [2.0] * 30
    np.testing.assert_allclose(rates[40:], 0.2 * np.arange(10, 0, -1))
    assert GateTraining(steps=200, lr=1.0).rate(0) == 0.1, "never below a tenth"
    assert (PAPER.steps, PAPER.sinks, PAPER.window, PAPER.lr, PAPER.penalty) == (2000, 128, 256, 0.02, 0.05)
    assert (len(PAPER.lengths), PAPER.passkeys, PAPER.size) == (50, 10, 32)


def test_two_steps_of_adam_by_hand(llama, tmp_path):
    training = dataclasses.replace(TINY, steps=2, penalty=0.5)
    result = train_gates(llama, tmp_path, training, prompts=tiny_prompt)
    a, m, v = np.ones((3, 2)), 0.0, 0.0
    for t in range(2):
        gates = torch.tensor(a, dtype=torch.float32, requires_grad=True)
        with frozen(llama.hf):
            loss = gate_loss(llama, gates, tiny_prompt(t), sinks=SINKS, window=WINDOW)
            (slope,) = torch.autograd.grad(loss, gates)
        assert result.arrays["loss"][t] == pytest.approx(float(loss.detach()), rel=1e-4, abs=1e-12)
        g = slope.double().numpy() + 0.5 / 6
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        a = a - training.rate(t) * (m / (1 - 0.9 ** (t + 1))) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
        a = a.clip(0, 1)
        np.testing.assert_allclose(result.arrays["path"][t], a, atol=1e-6)


def test_an_interrupted_training_ends_with_the_same_gates(llama, tmp_path, monkeypatch):
    whole = train_gates(llama, tmp_path / "whole", TINY, prompts=tiny_prompt)
    assert len(np.unique(whole.arrays["gates"])) >= 5, "gates that differ, or the comparison would say little"
    monkeypatch.setattr("interp.heads.duo_gates.SAVE_SECONDS", 0.0)

    class Stop(Exception):
        pass

    def stop(done, total):
        assert total == 7
        if done in (2, 5):
            raise Stop

    for _ in range(2):
        with pytest.raises(Stop):
            train_gates(llama, tmp_path / "parts", TINY, prompts=tiny_prompt, progress=stop)
    seen = []
    parts = train_gates(
        llama, tmp_path / "parts", TINY, prompts=tiny_prompt, progress=lambda done, total: seen.append(done)
    )
    assert seen == [6, 7], "it went on where it was"
    for name in ("gates", "path", "loss"):
        np.testing.assert_array_equal(parts.arrays[name], whole.arrays[name])
    again = train_gates(llama, tmp_path / "parts", TINY, prompts=lambda step: tiny_prompt(0) if not step else None)
    np.testing.assert_array_equal(again.arrays["gates"], whole.arrays["gates"])


def test_a_folder_belongs_to_one_training(llama, tmp_path):
    train_gates(llama, tmp_path, dataclasses.replace(TINY, steps=1), prompts=tiny_prompt)
    with pytest.raises(PlanMismatchError, match=r"lr is 0\.05 there and 0\.1 here"):
        train_gates(llama, tmp_path, dataclasses.replace(TINY, steps=1, lr=0.1), prompts=tiny_prompt)
    with pytest.raises(PlanMismatchError, match="first_prompt_sha256"):
        train_gates(llama, tmp_path, dataclasses.replace(TINY, steps=1), prompts=lambda step: tiny_prompt(step + 1))
    with pytest.raises(OutputError, match="holds a training"):
        train_gates(llama, tmp_path, dataclasses.replace(TINY, steps=1), prompts=tiny_prompt, resume="never")
    tensors = load_file(tmp_path / STATE)
    save_file(tensors, tmp_path / STATE)  # without its plan
    with pytest.raises(CorruptFileError, match="no checkpoint"):
        train_gates(llama, tmp_path, dataclasses.replace(TINY, steps=1), prompts=tiny_prompt)
    (tmp_path / STATE).write_bytes(b"cut short")
    with pytest.raises(CorruptFileError, match="no checkpoint"):
        train_gates(llama, tmp_path, dataclasses.replace(TINY, steps=1), prompts=tiny_prompt)


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path):
    state = duo_state.begin((3, 2), torch.device("cpu"))
    state.path.append(state.gates.detach().clone())
    state.loss.append(0.5)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another folder"):
        duo_state.write_state(tmp_path / "file" / STATE, {}, state)
    duo_state.write_state(tmp_path / STATE, {"steps": 3}, state)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    back = duo_state.read_state(tmp_path / STATE, {"steps": 3}, (3, 2), torch.device("cpu"))
    assert (back.step, back.loss, back.gates.requires_grad) == (1, [0.5], True)
    with pytest.raises(CorruptFileError, match=r"shape \(2, 2\)"):
        duo_state.read_state(tmp_path / STATE, {"steps": 3}, (2, 2), torch.device("cpu"))


def test_only_the_retrieval_head_keeps_its_gate(tmp_path):
    """Of the planted heads it alone both looks far and writes to the stream; local heads, and heads that write nothing, stream."""
    model, places = planted("previous", "induction", "retrieval", "sink", seed=2)

    def repeats(step):
        block = 1 + np.random.default_rng([3, step]).permutation(96)[:37]
        return Prompt(ids=tuple(np.tile(block, 2).tolist()), answer=(), rows={"labels": tuple(range(37, 74))})

    training = GateTraining(steps=12, sinks=2, window=8, lr=0.3, lengths=(74,))
    result = train_gates(model, tmp_path, training, prompts=repeats)
    gates = result.arrays["gates"]
    assert gates[places["retrieval"]] > 0.9
    others = np.delete(gates.reshape(-1), places["retrieval"][0] * 5 + places["retrieval"][1])
    assert others.max() < 0.1
    assert len(streaming_heads(result, 1 - 1 / 15)) == 14
    assert places["retrieval"] not in streaming_heads(result, 1 - 1 / 15)


# ------------------------------------------------------------------ the result
def test_the_result_and_its_files(llama, tmp_path):
    control = train_gates(
        llama, tmp_path / "control", dataclasses.replace(TINY, context="shuffled"), prompts=tiny_prompt
    )
    result = train_gates(llama, tmp_path / "gates", TINY, prompts=tiny_prompt, control=control)
    gates, path = result.arrays["gates"], result.arrays["path"]
    assert gates.shape == (3, 2) and path.shape == (7, 3, 2)
    frame = result.frame
    assert list(frame["head"]) == list(range(6)) * 3
    assert list(frame.kv_head) == [0, 0, 0, 1, 1, 1] * 3
    np.testing.assert_array_equal(frame.score, np.repeat(gates, 3, axis=1).reshape(-1))
    np.testing.assert_array_equal(frame.control, np.repeat(control.arrays["gates"], 3, axis=1).reshape(-1))
    assert not np.array_equal(gates, control.arrays["gates"])
    assert control.frame.control.isna().all()
    # as DuoAttention reads them
    loaded = np.loadtxt(tmp_path / "gates" / "full_attention_heads.tsv", dtype=float, delimiter="\t")
    np.testing.assert_array_equal(loaded, gates)
    config = json.loads((tmp_path / "gates" / "config.json").read_text())
    assert (config["sink_size"], config["recent_size"], config["steps"]) == (SINKS, WINDOW, 7)
    # from a result that was saved, through the writers of published files and back
    saved = type(result).load(result.save(tmp_path / "saved"))
    folder = published.write_gates(tmp_path / "out", saved.arrays["gates"], saved.manifest["settings"])
    np.testing.assert_array_equal(published.read_gates(folder), gates)
    assert published.read_gates_config(folder)["recent_size"] == WINDOW
    with pytest.raises(ShapeError, match=r"shape \(3, 2\)"):
        train_gates(llama, tmp_path / "gates", TINY, prompts=tiny_prompt, control=published.gates_result(
            np.ones((2, 2)), config, name="another"))  # fmt: skip


def test_spread_is_the_unrest_of_the_last_fifth(llama, tmp_path):
    result = train_gates(llama, tmp_path, dataclasses.replace(TINY, steps=11), prompts=tiny_prompt)
    wanted = result.arrays["path"][9:].std(0, ddof=1)
    np.testing.assert_allclose(result.frame.spread, np.repeat(wanted, 3, axis=1).reshape(-1))
    assert wanted.max() > 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"window": 0}, "window >= 1"),
        ({"steps": 0}, "steps >= 1"),
        ({"lengths": ()}, "some lengths"),
    ],
)
def test_settings_out_of_range_are_refused(settings, says):
    with pytest.raises(OptionError, match=says):
        GateTraining(**settings)


def test_prompts_that_do_not_fit_are_refused(llama, tmp_path):
    bare = interp.wrap(interp.tiny("llama").release())
    with pytest.raises(InputDataError, match="without a tokenizer"):
        train_gates(bare, tmp_path)
    with pytest.raises(InputDataError, match="no rows 'labels'"):
        train_gates(llama, tmp_path, TINY, prompts=lambda step: Prompt(ids=(5,) * 30, answer=()))
    with pytest.raises(OptionError, match="nothing would be cut"):
        train_gates(llama, tmp_path, GateTraining(), prompts=tiny_prompt)
    assert not any(tmp_path.iterdir())


@pytest.mark.medium
def test_passkey_prompts_of_the_real_tokenizer():
    model = interp.load("smollm2-135m")
    prompts = [passkeys(model, step, lengths=(1024, 1100), count=10, size=8, seed=0) for step in range(8)]
    assert prompts[1] == passkeys(model, 1, lengths=(1024, 1100), count=10, size=8, seed=0)
    assert len({p.whole for p in prompts}) == 8
    assert {p.meta["length"] for p in prompts} == {1024, 1100}
    for prompt in prompts:
        assert 900 <= len(prompt.whole) <= prompt.meta["length"]
        labels = prompt.rows["labels"]
        assert labels == tuple(range(labels[0], len(prompt.whole))), "every token of questions and answers"
        assert labels[0] == prompt.key_sets["context"][1] or labels[0] > prompt.key_sets["passkey10"][1]
