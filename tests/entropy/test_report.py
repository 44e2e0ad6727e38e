"""The entropy report on planted and tiny models, its command and its figures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

TEXTS = ["the quick brown fox jumps over the lazy dog and then it sleeps for a long while " * 4]


@pytest.fixture(scope="module")
def result():
    import interp
    from interp.entropy.report import report

    done: list[tuple[int, int]] = []
    found = report(interp.tiny("llama"), texts=TEXTS, tokens=101, count=5, progress=lambda a, b: done.append((a, b)))
    assert done[-1][0] == done[-1][1] == len(done)
    return found


def test_columns_agree_with_statistics_of_single_runs(result) -> None:
    import interp
    from interp.tasks.sequences import sequences

    model = interp.tiny("llama")
    texts = sequences(model, "natural", texts=TEXTS, tokens=101, count=5)
    names = (
        "normalised_entropy",
        "entropy",
        "effective_keys",
        "first_token_mass",
        "non_sink_entropy",
        "logit_norm",
        "max_probability",
    )
    runs = [model.run(ids, collect=names) for ids in texts]
    table = result.frame.set_index(["layer", "head"])
    columns = ("score", "entropy", "effective_keys", "sink_mass", "rest_entropy", "logit_norm", "max_probability")
    for statistic, column in zip(names, columns, strict=True):
        mean = np.nanmean([run.stats[statistic].double().numpy() for run in runs], axis=(0, 3))
        np.testing.assert_allclose(
            table[column].to_numpy().reshape(mean.shape), mean, rtol=2e-3, atol=2e-4, err_msg=column
        )
    per_run = np.stack([np.nanmean(run.stats["normalised_entropy"].double().numpy(), -1) for run in runs])
    np.testing.assert_allclose(
        table["spread"].to_numpy().reshape(per_run.shape[1:]), per_run.std(0, ddof=1), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(table["choice_part"] + table["rest_part"], table["entropy"], rtol=1e-6)
    # One slope by an independent fit.
    h = np.concatenate([run.stats["entropy"][1, 2].double().numpy()[1:] for run in runs])
    fit = np.polyfit(np.tile(np.log(np.arange(2, 102)), 5), h, 1)[0]
    assert table.loc[(1, 2), "position_slope"] == pytest.approx(fit, abs=1e-3)
    short = [np.nanmean([r.stats["entropy"][0, 1, :n].double().numpy() for r in runs]) for n in (32, 64, 101)]
    np.testing.assert_allclose(result.arrays["entropy_by_length"][0, 1], short, rtol=1e-3)
    mean_log = [np.log(np.arange(1, n + 1)).mean() for n in (32, 64, 101)]
    assert table.loc[(0, 1), "length_slope"] == pytest.approx(np.polyfit(mean_log, short, 1)[0], abs=2e-3)
    edges = result.arrays["position_edges"].tolist()
    assert edges == [0, 1, 2, 4, 8, 16, 32, 64, 101]
    wanted = np.mean([r.stats["normalised_entropy"][2, 3, 16:32].double().numpy() for r in runs])
    assert result.arrays["by_position"][2, 3, 5] == pytest.approx(wanted, abs=1e-4)
    assert math.isnan(result.arrays["by_position"][2, 3, 0]), "row 0 sees one key"


def test_the_bound_holds_on_real_rows_and_scores_are_shares(result) -> None:
    table = result.frame
    assert result.manifest["rows"] == 5 * 101 * len(table)
    assert result.manifest["rows_below_bound"] == 0
    assert (table["bound"] <= table["entropy"] + 1e-3).all()
    assert table["bound"].max() > 0.02, "a bound that is zero everywhere says nothing"
    assert table["score"].between(0, 1).all()
    assert table["control"].between(0, 1).all()
    assert (table["qk_spectral"] <= table["qk_norm_product"] * (1 + 1e-5)).all()
    assert result.manifest["qk_norm"] == []
    assert set(table["regime"]) <= {0, 1, 2, 3}
    assert table.loc[table["entropy"].idxmax(), "regime"] == 3
    np.testing.assert_allclose(result.arrays["regime_shares"].sum(1), 1)


def test_a_planted_sink_head_has_little_entropy_and_uniform_content() -> None:
    from interp.entropy.report import report
    from interp.models.planted import planted

    model, where = planted("sink")
    words = " ".join(f"w{i}" for i in range(90))
    text = [words if model.tokenizer is None else model.tokenizer.decode(list(range(3, 90)))]
    table = report(model, texts=text, tokens=48, count=3).frame.set_index(["layer", "head"])
    sink = table.loc[where["sink"]]
    others = table.drop(index=[where["sink"]])
    assert sink["score"] < others["score"].min()
    assert sink["sink_mass"] > 0.9
    assert others["sink_mass"].max() < 0.5
    assert sink["rest_normalised"] > 0.5, "what is left is spread: a sink, not a collapse"
    assert sink["regime"] == 0


def test_encoder_decoders_and_small_samples_are_refused() -> None:
    import interp
    from interp.entropy.report import report
    from interp.errors import OptionError, UnsupportedModelError

    with pytest.raises(UnsupportedModelError, match="encoder-decoder"):
        report(interp.tiny("t5"))
    with pytest.raises(OptionError, match="at least 2 sequences"):
        report(interp.tiny("llama"), count=1)


def test_figures_of_every_view(result) -> None:
    from interp.errors import OptionError

    score, _ = result.plot().data
    table = result.frame.set_index(["layer", "head"])
    assert score.z[3][1] == pytest.approx(table.loc[(1, 3), "score"])
    grid = result.plot(view="position").data[0]
    assert grid.z[2][5] == pytest.approx(np.mean(result.arrays["by_position"][2, :, 5]), abs=1e-6)
    assert grid.x[5] == "16 to 31"
    whole, rest = result.plot(view="position", head=(1, 3), theme="dark").data
    assert whole.y[4] == pytest.approx(result.arrays["by_position"][1, 3, 4])
    assert rest.y[4] == pytest.approx(result.arrays["rest_by_position"][1, 3, 4])
    points = result.plot(view="bound").data[0]
    assert (points.x <= points.y + 1e-3).all()
    bars = result.plot(view="regimes").data
    np.testing.assert_allclose(sum(np.asarray(bar.y) for bar in bars), 1)
    with pytest.raises(OptionError, match=r"9\.9"):
        result.plot(view="position", head=(9, 9))


def test_the_command_takes_the_model_at_once(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from interp.cli.main import app
    from interp.results import Result

    def run(*words: str | Path):
        return CliRunner().invoke(app, [str(w) for w in words], prog_name="interp")

    assert "report" in run("entropy", "--help").stdout
    small = ("--tokens", "40", "--sequences", "2", "-k", "3")
    ran = run("entropy", "tiny/gpt2", "--out", tmp_path / "a", *small)
    assert ran.exit_code == 0, ran.stderr
    saved = Result.load(tmp_path / "a")
    assert saved.kind == "entropy"
    assert f"{saved.top(1)[0][2]:.3g}" in ran.stdout
    named = run("entropy", "report", "tiny/gpt2", "--out", tmp_path / "b", *small, "--json")
    assert len(named.stdout.splitlines()) == 3
    assert saved.table.equals(Result.load(tmp_path / "b").table)


@pytest.mark.medium
def test_the_bound_holds_on_rows_of_a_trained_model() -> None:
    import interp
    from interp.entropy.report import ROUNDING, report

    found = report(interp.load("smollm2-135m"), tokens=128, count=2)
    table = found.frame
    assert found.manifest["rows"] == 2 * 128 * len(table)
    assert found.manifest["rows_below_bound"] == 0
    assert table["bound_slack"].min() > -ROUNDING
    assert (table["sink_mass"] > 0.8).any(), "a trained model has sink heads"
