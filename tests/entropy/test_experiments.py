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
    assert set(found) == {"digits", "topics", "sinks"}
    assert all(name == experiment.name for name, experiment in found.items())
    assert len({v.name for v in found["sinks"].variants()}) == len(list(found["sinks"].variants())), (
        "names tell all runs apart"
    )


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
    assert at is not None and 300 < at < 330
    assert departs(np.concatenate([down, [np.nan]]), untrained=2.3) == 300


def test_a_stall_is_behind_those_that_go_on() -> None:
    from interp.entropy.experiments.outcome import behind, lead

    good = np.geomspace(2.3, 0.1, 300)
    stalls = np.maximum(good, 0.8)
    at = behind(stalls, [good, good * 1.01, good * 0.99])
    crossing = int(np.argmax(good < 0.8))
    assert at is not None and crossing < at < crossing + 30
    assert behind(good, [good, stalls, good]) is None
    assert behind(good, []) is None
    assert lead(40, None, at) == at - 40 and lead(None, at) is None and lead(3, None) is None


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


def test_a_language_model_is_trained_with_sinks_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.entropy.experiments import sweep, train
    from interp.entropy.experiments.data import Bytes

    text = Bytes(ids=torch.randint(256, (1009,)), held_out=torch.randint(256, (509,)))
    monkeypatch.setattr(train, "topics", lambda: text)  # reading the real one takes seconds
    monkeypatch.setattr(sweep, "corpus", lambda *choice: ())
    experiment = tiny_experiment(data="topics", steps=3, tokens=70, sinks_every=2, attentions=("softmax", "sigmoid"))
    table = sweep.run_experiment(experiment, tmp_path)
    sinks = sweep.sink_table(experiment, tmp_path)
    assert sinks["step"].tolist() == [0, 2, 3] * 2
    assert (tmp_path / "sinks.csv").exists()
    assert table.set_index("attention")["lowest_entropy"].isna().to_dict() == {"softmax": False, "sigmoid": True}


def test_the_command_trains_prints_and_refuses_in_words(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from interp.cli.main import app

    config = tmp_path / "x.toml"
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in tiny_experiment().record().items()}
    config.write_text("\n".join(f"{k} = {json.dumps(v)}" for k, v in settings.items()))
    command = ["entropy", "train", str(config), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["remedy"] == "none" and row["first_alarm"] is None and row["held_out_loss"] > 0
    assert "plotly" in (tmp_path / "out" / "curves.html").read_text(encoding="utf-8")
    config.write_text(config.read_text().replace("steps = 6", "steps = 8"))
    assert CliRunner().invoke(app, command).exit_code == 1
