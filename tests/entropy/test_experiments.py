"""The experiments: their model, their rules for what a loss shows, and that a stopped sweep goes on."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch


def tiny_experiment(**changes: Any) -> Any:
    from interp.entropy.experiments.config import Experiment

    settings: dict[str, Any] = {
        "name": "tiny", "data": "digits", "steps": 6, "batch": 5, "warm_up": 3, "width": 12, "layers": 2, "heads": 3, "every": 2,
        "learning_rates": (1e-3,), "seeds": (0,),
    }  # fmt: skip
    return Experiment(**(settings | changes))


def test_every_config_that_is_shipped_is_readable() -> None:
    from interp.entropy.experiments.config import Experiment

    folder = Path(__file__).resolve().parents[2] / "data" / "tasks" / "entropy"
    found = {path.stem: Experiment.read(path) for path in folder.glob("*.toml")}
    assert set(found) == {"causes", "digits", "digits_fresh", "topics", "sinks"}
    assert all(name == experiment.name for name, experiment in found.items())
    for experiment in found.values():
        names = [variant.name for variant in experiment.variants()]
        assert len(set(names)) == len(names) > 1, "names tell all runs apart"


@pytest.mark.parametrize(
    ("text", "said"),
    [('name = "x"', "needs"), ("name =", "cannot read"), ('name = "x"\nspeed = 3', "no keys speed")],
)
def test_a_config_that_is_wrong_is_refused_in_words(text: str, said: str, tmp_path: Path) -> None:
    from interp.entropy.experiments.config import Experiment
    from interp.errors import InterpError

    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(InterpError, match=said):
        Experiment.read(path)


def test_sigmoid_attention_is_the_sum_over_visible_keys() -> None:
    from interp.entropy.experiments.transformer import sigmoid_attention

    q, k, v = (torch.randn(2, 3, 5, 7, dtype=torch.float64) for _ in range(3))
    out, share = sigmoid_attention(q, k, v, causal=True)
    for i in range(5):
        w = torch.sigmoid(q[1, 2, i] @ k[1, 2, : i + 1].T / math.sqrt(7) - math.log(i + 1))
        torch.testing.assert_close(out[1, 2, i], w @ v[1, 2, : i + 1])
        torch.testing.assert_close(share[1, 2, i], w[0] / w.sum())


def test_causal_models_see_nothing_that_comes_later() -> None:
    from interp.entropy.experiments.transformer import Shape, language_model

    for attention in ("softmax", "sigmoid"):
        model = language_model(Shape(width=12, layers=2, heads=3, tokens=11, causal=True, attention=attention), 17)
        ids = torch.randint(17, (2, 11))
        other = ids.clone()
        other[:, 6:] = (other[:, 6:] + 1) % 17
        torch.testing.assert_close(model(ids)[:, :6], model(other)[:, :6])
        assert not torch.allclose(model(ids)[:, 6:], model(other)[:, 6:])


def test_a_loss_departs_where_it_rises_or_breaks_and_not_where_it_is_noisy() -> None:
    from interp.entropy.experiments.outcome import departs

    random = np.random.default_rng(0)
    down = np.linspace(2.3, 0.3, 300)
    assert departs(down + 0.1 * random.standard_normal(300), untrained=2.3) is None
    risen = np.concatenate([down, np.linspace(0.3, 1.3, 50)])
    at = departs(risen, untrained=2.3)
    assert at is not None and 300 + 0.23 / 0.02 < at < 300 + 0.23 / 0.02 + 21, "at most the length of the average late"
    assert departs(np.concatenate([down, [np.nan]]), untrained=2.3) == 300
    overshoot = np.concatenate([[2.3, 9.0, 6.0, 4.0], down])
    assert departs(overshoot, untrained=2.3) is None
    assert departs(np.array([2.3, np.inf]), untrained=2.3) == 1


def test_a_stall_is_behind_those_that_go_on() -> None:
    from interp.entropy.experiments.outcome import behind, lead

    good = np.geomspace(2.3, 0.1, 300)
    stalls = np.maximum(good, 0.8)
    at = behind(stalls, [good, good * 1.01, good * 0.99], untrained=2.3)
    crossing = int(np.argmax(good < 0.8 - 0.05 * 2.3))
    # The average over 20 steps sees the gap of ten or twenty steps before.
    assert at is not None and crossing < at < crossing + 20
    assert behind(good, [good, stalls, good], untrained=2.3) is None
    assert behind(good, [], untrained=2.3) is None
    assert lead(40, at) == at - 40 and lead(40, 33) == -7 and lead(None, at) is None and lead(3, None) is None


def test_sink_1_counts_heads_and_texts() -> None:
    from interp.entropy.experiments.sinks import sink_1

    shares = torch.tensor([[[0.25, 0.9]], [[0.35, 0.1]]])
    assert sink_1(shares) == pytest.approx(
        {"sink_1_0.2": 0.75, "sink_1_0.3": 0.5, "sink_1_0.4": 0.25, "sink_1_0.5": 0.25, "alpha_1": 0.4}
    )


def test_first_key_shares_of_uniform_heads_are_harmonic() -> None:
    from interp.entropy.experiments.data import Bytes
    from interp.entropy.experiments.sinks import TEXTS, TOKENS, first_key_shares
    from interp.entropy.experiments.transformer import Shape, language_model

    text = Bytes(ids=torch.zeros(1, dtype=torch.long), held_out=torch.randint(17, (997,)))
    for attention in ("softmax", "sigmoid"):
        model = language_model(Shape(width=12, layers=2, heads=3, tokens=71, causal=True, attention=attention), 17)
        for block in model.blocks:
            torch.nn.init.zeros_(block.attention.q_proj.weight)
        shares = first_key_shares(model, text)
        assert shares.shape == (2, TEXTS, 3)
        torch.testing.assert_close(shares, torch.full_like(shares, sum(1 / n for n in range(1, TOKENS + 1)) / TOKENS))
        assert model.training


def test_a_sweep_is_resumed_and_repeatable(tmp_path: Path) -> None:
    from interp.display import plot
    from interp.entropy.experiments.sweep import losses_of, readings_of, run_experiment
    from interp.errors import OptionError, PlanMismatchError

    experiment = tiny_experiment(remedies=("none", "qk_norm", "sigma_reparam"))
    calls: list[str] = []
    table = run_experiment(experiment, tmp_path, progress=lambda name, done, total: calls.append(name))
    assert len(table) == 3 and len(set(calls)) == 3
    plain = next(experiment.variants())
    losses, readings = losses_of(tmp_path, plain), readings_of(tmp_path, plain)
    assert len(losses) == 6 and sorted(readings["step"].unique()) == [0, 2, 4] and len(readings) == 3 * 2 * 3

    (tmp_path / "runs" / f"{plain.name}.json").unlink()
    calls.clear()
    again = run_experiment(experiment, tmp_path, progress=lambda name, done, total: calls.append(name))
    assert set(calls) == {plain.name}, "only what is missing is trained"
    assert losses_of(tmp_path, plain).tolist() == losses.tolist()
    assert again.drop(columns="seconds").equals(table.drop(columns="seconds"))

    figure = plot("entropy.training", tmp_path)
    curves = [trace for trace in figure.data if trace.name == "layer 1"]
    assert len(curves) == 3, "one for each remedy"
    wanted = [x for _, part in readings[readings["layer"] == 1].groupby("head") for x in [*part["entropy"], np.nan]]
    np.testing.assert_array_equal(curves[0].y, np.array(wanted))
    with pytest.raises(OptionError, match="no finished training at learning rate 7"):
        plot("entropy.training", tmp_path, learning_rate=7.0)
    with pytest.raises(PlanMismatchError, match="other settings"):
        run_experiment(replace(experiment, steps=7), tmp_path)


def test_conditions_change_one_thing_each_and_are_told_apart(tmp_path: Path) -> None:
    from interp.entropy.experiments.config import Condition, Experiment
    from interp.entropy.experiments.sweep import losses_of, run_experiment
    from interp.errors import OptionError

    changed = {"plain": {}, "no_warm_up": {"warm_up": 0}, "beta2_50": {"beta2": 0.5}, "gain_4": {"gain": 4.0}}
    experiment = tiny_experiment(conditions=tuple(Condition(name=n, **c) for n, c in changed.items()), steps=4)
    assert Experiment.of(json.loads(json.dumps(experiment.record()))) == experiment
    table = run_experiment(experiment, tmp_path)
    assert table["condition"].tolist() == list(changed)
    losses = {run.condition: losses_of(tmp_path, run) for run in experiment.variants()}
    # The first loss tells the initial weights, the second the first step's size: Adam's first step does not depend on beta2.
    for name, step in (("gain_4", 0), ("no_warm_up", 1), ("beta2_50", 2)):
        same = np.isclose(losses[name], losses["plain"], rtol=1e-5, atol=0)
        assert same[:step].all() and not same[step], name

    # Another value under the same name is another training.
    again = replace(experiment, conditions=(Condition(), Condition(name="gain_4", gain=2.0)))
    trained: list[str] = []
    run_experiment(again, tmp_path, progress=lambda name, done, total: trained.append(name))
    assert len(set(trained)) == 1 and "gain_4" in trained[0]
    for wrong in ({"name": "a/b"}, {"beta2": 1.0}, {"gain": 0.0}, {"warm_up": -1}):
        with pytest.raises(OptionError):
            Condition(**wrong)
    with pytest.raises(OptionError, match="no keys speed"):
        Experiment.of(experiment.record() | {"conditions": [{"name": "x", "speed": 3}]})


def test_what_is_kept_is_drawn_as_the_whole_is(tmp_path: Path) -> None:
    import pandas as pd

    from interp.display import plot
    from interp.entropy.experiments.kept import keep
    from interp.entropy.experiments.sweep import run_experiment
    from interp.errors import CorruptFileError, OutputError

    experiment, whole, kept = tiny_experiment(seeds=(0, 1)), tmp_path / "whole", tmp_path / "kept"
    run_experiment(replace(experiment, seeds=(0,)), whole)
    (whole / "manifest.json").write_text(
        json.dumps(json.loads((whole / "manifest.json").read_text()) | {"experiment": experiment.record()})
    )
    with pytest.raises(CorruptFileError, match="1 of 2 runs"):
        keep(whole, kept, facts={})
    table = run_experiment(experiment, whole)
    keep(whole, kept, facts={"command": "x"})
    manifest = json.loads((kept / "manifest.json").read_text())
    assert manifest["kept"]["command"] == "x" and len(manifest["kept"]["runs_left_out"]) == 1
    assert manifest["started"] <= manifest["finished"]
    pd.testing.assert_frame_equal(pd.read_csv(kept / "outcomes.csv"), pd.read_csv(whole / "outcomes.csv"))
    assert len(table) == 2
    for ours, theirs in zip(plot("entropy.training", kept).data, plot("entropy.training", whole).data, strict=True):
        np.testing.assert_allclose(ours.y, theirs.y, rtol=1e-6)
    with pytest.raises(OutputError, match="new folder"):
        keep(whole, kept, facts={})


def test_a_language_model_is_trained_with_sinks_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.display import plot
    from interp.entropy.experiments import sweep, train
    from interp.entropy.experiments.data import Bytes
    from interp.errors import OptionError

    text = Bytes(ids=torch.randint(256, (1009,)), held_out=torch.randint(256, (509,)))
    monkeypatch.setattr(train, "topics", lambda: text)  # reading the real one takes seconds
    monkeypatch.setattr(sweep, "corpus", lambda *choice: ())
    experiment = tiny_experiment(data="topics", steps=3, tokens=70, sinks_every=2, attentions=("softmax", "sigmoid"))
    table = sweep.run_experiment(experiment, tmp_path)
    sinks = sweep.sink_table(experiment, tmp_path)
    assert sinks["step"].tolist() == [0, 2, 3] * 2
    figure = plot("entropy.training_sinks", tmp_path, eps=0.2)
    assert len(figure.data) == 2 * 2
    softmax = sinks[sinks["attention"] == "softmax"]
    (alpha,) = (t for t in figure.data if t.name.startswith("softmax") and not t.showlegend)
    np.testing.assert_allclose(alpha.y, softmax["alpha_1"], rtol=1e-4)
    with pytest.raises(OptionError, match=r"eps: wanted one of 0.2"):
        plot("entropy.training_sinks", tmp_path, eps=0.25)
    assert table.set_index("attention")["lowest_entropy"].isna().to_dict() == {"softmax": False, "sigmoid": True}


def test_the_command_trains_prints_and_refuses_in_words(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from interp.batch.lock import locked
    from interp.cli.main import app

    config = tmp_path / "x.toml"
    settings = {k: v for k, v in tiny_experiment().record().items() if k != "conditions"}
    config.write_text("\n".join(f"{k} = {json.dumps(v)}" for k, v in settings.items()))
    command = ["entropy", "train", str(config), "--out", str(tmp_path / "out")]
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"):
        busy = CliRunner().invoke(app, command)
    assert (busy.exit_code, "another process" in busy.stderr) == (1, True)
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["remedy"] == "none" and row["first_alarm"] is None and row["held_out_loss"] > 0
    assert "plotly" in (tmp_path / "out" / "curves.html").read_text(encoding="utf-8")
    config.write_text(config.read_text().replace("steps = 6", "steps = 8"))
    assert CliRunner().invoke(app, command).exit_code == 1
