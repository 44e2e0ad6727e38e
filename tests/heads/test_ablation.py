"""Ablations: controls are other heads of the same layers, harms have the right sign and size, evaluations are kept, planted heads matter."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from interp.errors import CorruptFileError, OptionError
from interp.heads.ablation import mean_outputs
from interp.heads.causal import causal_retrieval
from interp.heads.confirm import confirm
from interp.heads.confirm_tasks import Task, needle_task, repeated_task, succession_task, text_task
from interp.heads.retrieval import retrieval
from interp.heads.tables import head_table
from interp.interventions.controls import random_heads, within_half
from interp.ledger import Ledger
from interp.models.hooked import HookedModel
from interp.models.planted import planted
from interp.models.toy import tiny
from interp.results import Result
from interp.tasks.prompt import Prompt
from interp.tasks.repeated import TRANSFORMER_LENS, prompts

HEADS = 5


@pytest.fixture(scope="module")
def model() -> tuple[HookedModel, dict[str, tuple[int, int]]]:
    return planted("retrieval", "duplicate", "sink", seed=5)


# ------------------------------------------------------------------ random heads
def test_random_heads_are_others_of_the_same_layers() -> None:
    chosen = [(0, 1), (0, 3), (2, 4)]
    seen = set()
    for seed in range(40):
        drawn = random_heads(chosen, HEADS, np.random.default_rng(seed))
        assert Counter(layer for layer, _ in drawn) == {0: 2, 2: 1}
        assert len(set(drawn)) == 3
        assert not set(drawn) & set(chosen)
        seen |= set(drawn)
    assert seen == {(0, 0), (0, 2), (0, 4), (2, 0), (2, 1), (2, 2), (2, 3)}
    assert random_heads(chosen, HEADS, np.random.default_rng(7)) == random_heads(
        chosen, HEADS, np.random.default_rng(7)
    )


def test_a_layer_without_enough_others_is_refused() -> None:
    with pytest.raises(OptionError, match="layer 1"):
        random_heads([(1, 0), (1, 1), (1, 2)], HEADS, np.random.default_rng(0))


def test_at_most_half_of_a_layer_is_taken() -> None:
    ranked = [(1, 0), (1, 4), (1, 2), (0, 0), (1, 3), (2, 1)]
    assert within_half(ranked, HEADS) == [(1, 0), (1, 4), (0, 0), (2, 1)]
    assert within_half(ranked, HEADS, 3) == [(1, 0), (1, 4), (0, 0)]


# ------------------------------------------------------------------ kept evaluations
def test_a_ledger_measures_once_and_minds_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cells.json"
    calls = []

    def measure() -> dict[str, float]:
        calls.append(1)
        return {"recall": 0.5 * len(calls)}

    assert Ledger(path, {"heads": ((0, 1),)}).get("a", measure) == {"recall": 0.5}
    assert Ledger(path, {"heads": ((0, 1),)}).get("a", measure) == {"recall": 0.5}
    assert Ledger(path, {"heads": ((0, 2),)}).get("a", measure) == {"recall": 1.0}
    path.write_text(json.dumps([1, 2]))
    with pytest.raises(CorruptFileError, match="delete it"):
        Ledger(path, {})


# ------------------------------------------------------------------ harms by hand
def weighing(better: str) -> Task:
    """A metric that is known: 100, and for each head whose output is all zero 1 (0.0), 2 (0.1) ... 15 (2.4) off."""

    def measure(model: HookedModel) -> dict[str, float]:
        off = 0
        for layer, z in model.head_outputs([3, 5, 7, 11]).items():
            off += sum(HEADS * layer + head + 1 for head in range(HEADS) if not z[0, head].any())
        return {"m": float(100 - off if better == "higher" else 100 + off)}

    return Task(name=f"weighing {better}", measure=measure, better={"m": better}, settings={})


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_harm_is_counted_the_bad_way(model, better: str, tmp_path: Path) -> None:
    hooked, _ = model
    task = weighing(better)
    heads = {"label": [(0, 4), (2, 0)]}
    steps = []
    result = confirm(
        hooked, heads, tasks={"label": task}, kinds=("zero",), draws=3, seed=2, folder=tmp_path,
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    (row,) = result.table.to_dict("records")
    assert row["score"] == 5 + 11
    assert row["base"] == 100
    weights = [sum(HEADS * a + b + 1 for a, b in drawn) for drawn in result.manifest["controls"]["label"]]
    assert row["control"] == pytest.approx(np.mean(weights))
    assert row["spread"] == pytest.approx(np.std(weights, ddof=1))
    np.testing.assert_allclose(result.arrays["control"], [weights])
    assert (row["label"], row["kind"], row["metric"], row["heads"]) == ("label", "zero", "m", "0.4 2.0")
    assert steps == [(n, 5) for n in range(1, 6)]
    # Kept evaluations are used: a task that fails if it is run gives the same table.
    broken = Task(name=task.name, measure=lambda _: {}["gone"], better=task.better, settings={})
    again = confirm(hooked, heads, tasks={"label": broken}, kinds=("zero",), draws=3, seed=2, folder=tmp_path)
    assert again.table.equals(result.table)


def test_confirm_refuses(model) -> None:
    hooked, _ = model
    task = weighing("lower")
    with pytest.raises(OptionError, match="nothing to confirm"):
        confirm(hooked, {"induction": []}, tasks={"induction": task})
    with pytest.raises(OptionError, match="no task for odd"):
        confirm(hooked, {"odd": [(0, 0)]}, tasks={"induction": task})
    with pytest.raises(OptionError, match="draws"):
        confirm(hooked, {"induction": [(0, 0)]}, tasks={"induction": task}, draws=1)
    report = Result(
        kind="heads.copying", table=head_table(np.zeros((2, 3, HEADS)), control=np.zeros((3, HEADS))), manifest={}
    )
    with pytest.raises(OptionError, match="no labels"):
        confirm(hooked, report)


# ------------------------------------------------------------------ planted heads
def test_mean_outputs_are_means_of_head_outputs(model) -> None:
    hooked, _ = model
    words = " ".join(f"w{1 + i * 5 % 96}" for i in range(256))
    found = mean_outputs(hooked, texts=[words], seed=1)
    z = hooked.head_outputs(words)[1][0].double().mean(1)  # the text has just the tokens of a piece
    torch.testing.assert_close(found[1].double(), z, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["zero", "mean", "uniform"])
def test_the_copying_head_carries_the_second_half(model, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hooked, places = model
    task = repeated_task(hooked, length=23, samples=2)
    # Means over the corpus are of no use here: the planted tokenizer does not know its words.
    text = " ".join(f"w{1 + i * 5 % 96}" for i in range(400))
    module = import_module("interp.heads.confirm")  # the package's attribute of that name is the function
    monkeypatch.setattr(module, "mean_outputs", lambda model, seed: mean_outputs(model, texts=[text], seed=seed))
    heads = {"induction": [places["retrieval"]]}
    result = confirm(hooked, heads, tasks={"induction": task}, kinds=(kind,), draws=2)
    (row,) = result.table.to_dict("records")
    assert row["base"] < 1.0
    assert row["score"] > 2.0
    assert abs(row["control"]) < 0.05
    assert row["spread"] < 0.05


def test_repeated_loss_is_that_of_eager_logits() -> None:
    hooked = tiny("gpt2")
    task = repeated_task(hooked, length=11, samples=3, seed=4)
    drawn = prompts(hooked.tokenizer, replace(TRANSFORMER_LENS, length=11), samples=3, seed=4)
    ids = torch.tensor([p.ids for p in drawn])
    hooked.hf.set_attn_implementation("eager")
    with torch.no_grad():
        logp = hooked.hf.double()(input_ids=ids).logits.log_softmax(-1)
    wanted = -np.mean([float(logp[b, i, ids[b, i + 1]]) for b in range(3) for i in range(11, 21)])
    fresh = tiny("gpt2")
    assert task.measure(fresh)["loss on the second half"] == pytest.approx(wanted, abs=1e-5)


def test_text_loss_by_hand() -> None:
    hooked = tiny("llama")
    text = "the cat sat on the mat, and the dog sat on the cat. " * 9
    task = text_task(hooked, texts=[text], tokens=len(hooked.encode(text)), samples=2)
    ids = torch.tensor([hooked.encode(text)])
    with torch.no_grad():
        logp = hooked.hf(input_ids=ids).logits.double().log_softmax(-1)[0]
    wanted = -np.mean([float(logp[i, ids[0, i + 1]]) for i in range(ids.shape[1] - 1)])
    assert task.measure(hooked)["loss on text"] == pytest.approx(wanted, abs=1e-5)


def test_succession_by_hand() -> None:
    hooked = tiny("llama")
    task = succession_task(hooked, samples=1, seed=3)
    found = task.measure(hooked)
    assert 0.0 <= found["succession accuracy"] <= 1.0
    assert np.isfinite(found["succession logit difference"])
    assert task.better == {"succession logit difference": "higher", "succession accuracy": "higher"}


# ------------------------------------------------------------------ the causal test of retrieval heads
def sentence(seed: int, at: int) -> Prompt:
    """Distinct random words, then the word before the needle again: a model that copies goes on with the needle."""
    words = (1 + np.random.default_rng([seed, at]).permutation(96)[:60]).tolist()
    needle = words[at : at + 7]
    return Prompt(
        ids=(*words, words[at - 1]),
        answer=tuple(needle),
        key_sets={"answer": (at, at + 7), "context": (0, 60)},
        meta={"answer": " ".join(f"w{i}" for i in needle)},
    )


def test_masking_the_planted_retrieval_head_loses_the_needle(model, tmp_path: Path) -> None:
    hooked, places = model
    given = [sentence(seed, at) for seed in range(2) for at in (13, 37)]
    scores = retrieval(hooked, given, steps=7)
    assert scores.top(1)[0][:2] == places["retrieval"]
    task = needle_task(hooked, prompts=given, steps=7)
    result = causal_retrieval(hooked, scores, k=(1, 2), draws=3, task=task, folder=tmp_path)
    first = result.table.set_index("k").loc[1]
    assert first["base"] == 1.0
    assert first["ablated"] < 0.2
    assert first["control_mean"] == 1.0
    assert first["control_std"] == 0.0
    assert first["score"] == pytest.approx(1.0 - first["ablated"])
    assert list(result.table["k"]) == [1, 2]
    broken = Task(name=task.name, measure=lambda _: {}["gone"], better=task.better, settings=task.settings)
    again = causal_retrieval(hooked, scores, k=(1, 2), draws=3, task=broken, folder=tmp_path)
    assert again.table.equals(result.table)


def test_causal_refuses_what_leaves_no_control(model) -> None:
    hooked, _ = model
    scores = Result(
        kind="heads.retrieval", table=head_table(np.zeros((2, 3, HEADS)), control=np.zeros((3, HEADS))), manifest={}
    )
    with pytest.raises(OptionError, match="1 <= k <= 6"):
        causal_retrieval(hooked, scores, k=(7,), task=weighing("higher"))
