"""The held-out report on planted heads, its intervals and controls by definition, and the file that `interp.load` applies."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import torch
from calibration_prompts import copy_task, option_logprob, random_prompts
from scipy.stats import binom

import interp
from interp.calibration import RandomKeys, Selection, act, calibrate, save_calibration, search, temperature
from interp.calibration.controls import random_settings, with_random_keys
from interp.calibration.methods import METHODS
from interp.calibration.report import bootstrap, method_for
from interp.calibration.tasks import CalibrationTask
from interp.errors import CorruptFileError, EditError, InputDataError, OptionError
from interp.interventions import ACT, Temperature, to_json
from interp.models.planted import planted
from interp.results import Result


@pytest.fixture(scope="module")
def report(broken):
    model, head = broken
    method = temperature((0.5, 100.0))
    return calibrate(model, copy_task(), method=method, heads=3, selection=Selection(margin=0.05), draws=3), model, head


def test_the_planted_head_gains_on_held_out_prompts_and_random_heads_do_not(report):
    result, model, head = report
    assert result.manifest["calibrated"] == {f"{head[0]}.{head[1]}": 100.0}
    held_out = copy_task().held_out
    edit = Temperature(tau={head: 100.0})
    expected = {
        name: np.array([option_logprob(model, p, edits) for p in held_out]) for name, edits in (("base", ()), ("calibrated", [edit]))
    }  # fmt: skip
    for name, scores in expected.items():
        np.testing.assert_allclose(result.arrays[name][1], scores[:, 0], atol=1e-5)
        assert result.arrays[name][0].tolist() == scores[:, 1].tolist()
    rows = result.table.set_index("metric")
    row = rows.loc["option log-probability"]
    assert row["score"] == pytest.approx((expected["calibrated"] - expected["base"])[:, 0].mean(), abs=1e-5)
    assert row["low"] > 0.9
    assert abs(row["control"]) < 0.05
    assert row["search"] > 0.9
    assert rows.loc["accuracy", "calibrated"] == 1.0
    for drawn in result.manifest["controls"]["random heads"]:
        assert len(drawn) == 1
        assert f"{head[0]}.{head[1]}" not in drawn
        assert next(iter(drawn)).startswith(f"{head[0]}.")


def test_a_report_is_saved_drawn_and_read_again(report, tmp_path):
    result, _, _ = report
    again = Result.load(result.save(tmp_path / "r"))
    assert again.table.equals(result.table)
    assert len(again.plot().data) == 6  # a gain and a control for each metric
    found = search(report[1], copy_task().search, temperature((100.0,)), heads=2)
    assert {bar.name for bar in found.plot().data} == {"exact", "first order"}
    assert found.plot(view="predicted").data[0].type == "heatmap"


def test_where_nothing_is_kept_nothing_is_claimed(models, tmp_path):
    task = CalibrationTask(
        name="random", search=tuple(random_prompts(4, 11)), held_out=tuple(random_prompts(3, 13, seed=1)), settings={}
    )
    result = calibrate(models["llama"], task, method="temperature", heads=2, selection=Selection(margin=1e6))
    assert result.table["score"].tolist() == [0.0, 0.0, 0.0]
    assert result.table["control"].isna().all()
    assert result.table["heads"].eq(0).all()
    with pytest.raises(OptionError, match="no head was kept"):
        save_calibration(result, tmp_path / "c.json", model=models["llama"])
    assert not (tmp_path / "c.json").exists()


def test_a_report_goes_on_where_it_stopped(models, tmp_path):
    model = models["gpt2"]
    task = CalibrationTask(
        name="random", search=tuple(random_prompts(3, 11)), held_out=tuple(random_prompts(3, 13, seed=1)), settings={}
    )
    options = {"method": act((0.2,), detection="code", threshold=0.1), "heads": 2, "draws": 2, "folder": tmp_path}
    options |= {"selection": Selection(margin=-np.inf, most=2)}

    def stop(part, done, total):
        if part == "held out" and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(model, task, **options, progress=stop)
    again, whole = calibrate(model, task, **options), calibrate(model, task, **options | {"folder": None})
    assert again.table.equals(whole.table)
    assert set(again.table["against"]) == {"random heads", "random keys"}
    assert again.manifest["controls"] == whole.manifest["controls"]
    assert whole.table["mass"].notna().tolist() == [False] * 3 + [True] * 3


def test_the_bootstrap_of_shares_is_binomial():
    gains = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    expected = binom.ppf([0.025, 0.975], 11, 3 / 11) / 11
    np.testing.assert_allclose(bootstrap(gains, resamples=40_000), expected)


def test_settings_go_along_with_random_heads():
    heads = {(1, 0): 0.5, (1, 3): 2.0, (4, 2): 3.0}
    drawn = random_settings(heads, 7, np.random.default_rng(0))
    assert sorted((layer, x) for (layer, _), x in drawn.items()) == [(1, 0.5), (1, 2.0), (4, 3.0)]
    assert not set(drawn) & set(heads)


# ------------------------------------------------------------------ random keys
def test_random_keys_have_the_mass_of_the_sinks_and_are_none(models):
    model, ids = models["llama"], list(random_prompts(1, 61)[0].ids)
    edit = ACT(heads=((0, 1), (0, 2), (1, 0)), detection="code", threshold=0.06, spared="first-key")
    (control,) = with_random_keys([edit], 3)
    run = model.run(ids)
    pattern = {(layer, h): run.attention[layer, h].dense().double().numpy() for layer, h in edit.heads}
    caught = {}

    def take(call, attended):
        caught[call.site.layer] = (edit.detect(call), control.detect(call))

    with torch.no_grad():
        model.probe([ids], take)
    compared = 0
    for layer, head in edit.heads:
        sinks, keys = (x[0, head].numpy() for x in caught[layer])
        mass = pattern[layer, head].sum(0)
        if not sinks.any():
            assert not keys.any()
            continue
        over_bar = mass / np.arange(61, 0, -1) > 0.06
        assert not (keys & over_bar).any()
        free = mass[~over_bar]
        wanted = mass[sinks].sum()
        if wanted < free.sum():
            assert abs(mass[keys].sum() - wanted) <= free.max() / 2 + 1e-4
            compared += 1
    assert compared
    assert control.reached
    assert isinstance(control, RandomKeys)


def test_random_keys_stand_for_sinks_alone():
    with pytest.raises(EditError, match="finds no sinks"):
        with_random_keys([Temperature(tau=2.0)], 0)


# ------------------------------------------------------------------ files
IDS = list(random_prompts(1, 23, seed=5)[0].ids)


@pytest.fixture
def saved(tmp_path):
    model = interp.tiny("llama")
    task = CalibrationTask(
        name="random", search=tuple(random_prompts(4, 11)), held_out=tuple(random_prompts(3, 13, seed=1)), settings={}
    )
    method = act((0.2,), detection="code", threshold=0.05)
    result = calibrate(model, task, method=method, heads=3, draws=2, selection=Selection(margin=-np.inf, most=3))
    return save_calibration(result, tmp_path / "c.json", model=model), model, result


def test_a_loaded_calibration_acts_until_release(saved):
    path, plain, result = saved
    edits = interp.interventions.from_json(json.dumps(json.loads(path.read_text())["edits"]))
    assert len(result.manifest["calibrated"]) == 3
    before = plain.run(IDS).logits
    with plain.edit(*edits):
        wanted = plain.run(IDS)
        generated = plain.generate(IDS, max_new_tokens=7, do_sample=False)
    assert not torch.equal(wanted.logits, before)
    model = interp.load("tiny/llama", calibration=path)
    run = model.run(IDS)
    assert torch.equal(run.logits, wanted.logits)
    assert torch.equal(model.generate(IDS, max_new_tokens=7, do_sample=False), generated)
    with torch.no_grad():
        assert torch.equal(model.hf(input_ids=torch.tensor([IDS])).logits[0], wanted.logits)
    found = []
    thread = threading.Thread(target=lambda: found.append(model.run(IDS).logits))
    thread.start()
    thread.join()
    assert torch.equal(found[0], wanted.logits)
    assert torch.equal(plain.run(IDS).logits, before), "another model of the same weights is left alone"
    assert run.manifest["model"]["calibration"]["method"]["name"] == "act"
    assert [row["name"] for row in run.manifest["settings"]["interventions"]] == [e.name for e in edits]
    assert "calibration" not in plain.manifest()["model"]
    assert model.bridge is not None
    torch.testing.assert_close(model.run(IDS).logits, wanted.logits)
    hf = model.release()
    assert torch.equal(interp.wrap(hf, plain.tokenizer).run(IDS).logits, before)


def test_standing_edits_act_before_those_of_a_context(saved):
    path, plain, _ = saved
    edits = interp.interventions.from_json(json.dumps(json.loads(path.read_text())["edits"]))
    more = Temperature(tau=0.4)
    with plain.edit(*edits), plain.edit(more):
        wanted = plain.run(IDS).logits
    model = interp.load("tiny/llama", calibration=path)
    with model.edit(more):
        assert torch.equal(model.run(IDS).logits, wanted)


def test_another_model_is_refused(saved, tmp_path):
    path, _, _ = saved
    with pytest.raises(EditError, match=r"made for tiny/llama-0.*tiny/gpt2-0"):
        interp.load("tiny/gpt2", calibration=path)
    path.write_text(path.read_text().replace('"calibration": 1', '"calibration": 9'))
    with pytest.raises(CorruptFileError, match="form 9"):
        interp.load("tiny/llama", calibration=path)
    path.write_text("{}")
    with pytest.raises(CorruptFileError, match="no calibration"):
        interp.load("tiny/llama", calibration=path)
    with pytest.raises(InputDataError, match="cannot read"):
        interp.load("tiny/llama", calibration=tmp_path / "none.json")


def test_identity_is_the_hash_of_the_source_where_there_is_one(saved, tmp_path):
    path, model, _ = saved
    folder = tmp_path / "m"
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    copied = interp.load(folder, calibration=path)  # the file says weights, which can be computed of any model
    assert "calibration" in copied.manifest()["model"]
    record = json.loads(path.read_text())
    record["model"] = {"name": "m", "class": "x", "sha256": copied.source.sha256}
    path.write_text(json.dumps(record))
    assert interp.load(folder, calibration=path).manifest()["model"]["calibration"]
    with pytest.raises(EditError, match="heads of one model"):
        interp.load("tiny/llama", calibration=path)


def test_only_one_calibration_stands(saved):
    path, _, _ = saved
    model = interp.load("tiny/llama", calibration=path)
    with pytest.raises(EditError, match="standing"):
        model.stand([Temperature(tau=2.0)], {})
    with pytest.raises(EditError, match="do not exist"):
        interp.tiny("llama").stand([Temperature(tau={(99, 0): 2.0})], {})


# ------------------------------------------------------------------ methods
@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_by_name_can_be_saved(name):
    prompts = random_prompts(4, 11)
    marked = [
        type(p)(ids=p.ids, answer=p.answer, choices=p.choices, key_sets={"list": (n, 7 + n)})
        for n, p in enumerate(prompts)
    ]
    task = CalibrationTask(name="t", search=tuple(marked[:2]), held_out=tuple(marked[2:]), settings={}, marked="list")
    assert task.group == (3, 7)
    method = method_for(name, task)
    assert method.name == name
    assert method.settings[0] > 0
    assert to_json(method.edits({(0, 1): method.settings[0]}))


def test_unknown_methods_and_missing_groups(models):
    task = CalibrationTask(
        name="t", search=tuple(random_prompts(2, 11)), held_out=tuple(random_prompts(2, 13)), settings={}
    )
    with pytest.raises(OptionError, match="act, temperature, var, zerotune"):
        calibrate(models["llama"], task, method="atc")
    with pytest.raises(OptionError, match="marks no group"):
        calibrate(models["llama"], task, method="var")
    with pytest.raises(OptionError, match="2 draws"):
        calibrate(models["llama"], task, draws=1)


def test_planted_models_have_an_identity():
    from interp.models.calibration import identity

    same, other = (identity(planted("sink", seed=s)[0])["weights"] for s in (0, 1))
    assert same == identity(planted("sink", seed=0)[0])["weights"]
    assert same != other
