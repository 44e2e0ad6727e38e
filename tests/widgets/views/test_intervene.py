"""Intervene without a browser: the same numbers as the functions it calls, code that does the same, cancelling, errors as words."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from view_cases import Wire

import interp
from interp.errors import OptionError
from interp.interventions import AblateHeads, Temperature, text_effects
from interp.models.planted import planted

TEXTS = [[11, 29, 7, 3, 5, 13, 17, 19], [23, 2, 31, 37, 41, 43]]
ZERO = {"edit": "ablate", "heads": [[1, 2]], "values": {"kind": "zero"}}


@pytest.fixture(scope="module")
def model() -> Any:
    return interp.tiny("llama")


def view(model: Any, **options: Any) -> Any:
    from interp.widgets.views.intervene import Intervene

    return Intervene(model, TEXTS, **{"draws": 2, "seed": 5, **options})


def finished(wire: Wire, **message: Any) -> dict[str, Any]:
    """Run an edit to its end; the last state."""
    reply, _ = wire.ask(op="run", id=1, **message)
    assert "error" not in reply, reply
    wire.view.wait(60)
    return wire.ask(op="state", id=2)[0]


def executed(code: str, folder: Path, **there: Any) -> dict[str, Any]:
    """The names that the copied code leaves, run as a script of its own."""
    path = folder / "copied.py"
    path.write_text(code)
    return runpy.run_path(str(path), init_globals=there)


def test_an_edit_is_measured_as_by_hand(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    panel = view(model)
    state = finished(Wire(panel, monkeypatch), **ZERO)
    assert (state["state"], state["share"]) == ("done", 1.0)
    edit = AblateHeads(heads=((1, 2),), kind="zero")
    expected = text_effects(model, [edit], TEXTS, draws=2, seed=5)
    pd.testing.assert_frame_equal(panel.result.table, expected.table)
    before = model.run(TEXTS[0], logits="none")
    with model.edit(edit):
        after = model.run(TEXTS[0], logits="none")
    shift = panel.source.outcome.comparison.column("entropy").values
    np.testing.assert_allclose(shift, (after.stats["entropy"] - before.stats["entropy"]).nanmean(-1), atol=1e-6)
    assert np.abs(shift[:2]).max() < 1e-6 < np.abs(shift[2]).max(), "only layers behind the edit change"


@pytest.mark.parametrize(
    ("edit", "values"),
    [
        ("ablate", {"kind": "mean"}),
        ("temperature", {"tau": 0.25}),
        ("act", {"beta": 0.5}),
        ("streaming", {"sinks": 1, "window": 3}),
    ],
)
def test_the_copied_python_does_the_same(
    model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, edit: str, values: dict[str, Any]
) -> None:
    panel = view(model)
    state = finished(Wire(panel, monkeypatch), edit=edit, heads=[[0, 1], [2, 3]], values=values)
    assert state["state"] == "done", state
    names = executed(panel.code, tmp_path)
    pd.testing.assert_frame_equal(names["effect"].table, panel.result.table)
    assert (names["effect"].table["control"].notna()).all()


def test_a_calibration_file_is_an_edit_and_its_code_reads_it(
    model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from interp.interventions import to_json

    path = tmp_path / "mine.json"
    path.write_text('{"calibration": 1, "edits": ' + to_json([Temperature(tau={(1, 1): 0.5})]) + "}")
    panel = view(model, calibrations={"mine": path})
    assert finished(Wire(panel, monkeypatch), edit="mine", heads=[], values={})["state"] == "done"
    names = executed(panel.code, tmp_path)
    pd.testing.assert_frame_equal(names["effect"].table, panel.result.table)
    path.write_text("{}")
    state = finished(Wire(panel, monkeypatch), edit="mine", heads=[], values={})
    assert (state["state"], "cannot read the calibration 'mine'" in state["words"]) == ("failed", True)


def test_a_model_that_cannot_be_named_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    panel = view(planted("sink")[0])
    finished(Wire(panel, monkeypatch), **ZERO)
    assert "# model: the hooked model that the panel was opened with" in panel.code
    names = executed(panel.code, tmp_path, model=panel.source.model)
    pd.testing.assert_frame_equal(names["effect"].table, panel.result.table)


def test_cancelling_stops_and_changes_nothing(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    panel = view(model, draws=200)
    wire = Wire(panel, monkeypatch)
    before = model.run(TEXTS[0]).logits
    assert wire.ask(op="run", id=1, **ZERO)[0]["state"] == "running"
    assert "already" in wire.ask(op="run", id=2, **ZERO)[0]["error"]
    torch.testing.assert_close(model.run(TEXTS[0]).logits, before)  # another thread is not edited and not counted
    wire.ask(op="cancel", id=3)
    panel.wait(60)
    state = wire.ask(op="state", id=4)[0]
    assert state["state"] == "stopped"
    assert state["share"] < 1
    assert panel.result is None
    torch.testing.assert_close(model.run(TEXTS[0]).logits, before)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"edit": "no"}, "edit must be one of ablate, temperature, act, streaming"),
        ({"edit": "ablate", "heads": [], "values": {"kind": "zero"}}, "no heads chosen"),
        ({"edit": "ablate", "heads": [[1]], "values": {"kind": "zero"}}, "no heads chosen"),
        (
            {"edit": "ablate", "heads": [[3, 0]], "values": {"kind": "zero"}},
            "heads 3.0 do not exist; layers are 0 to 2",
        ),
        (
            {"edit": "ablate", "heads": [[0, 0]], "values": {"kind": "resample"}},
            "how must be one of zero, mean, uniform",
        ),
        (
            {"edit": "temperature", "heads": [[0, 0]], "values": {"tau": -1}},
            "factor on the logits must be a number of 0 or more",
        ),
        (
            {"edit": "temperature", "heads": [[0, 0]], "values": {"tau": math.nan}},
            "factor on the logits must be a number",
        ),
        (
            {"edit": "streaming", "heads": [[0, 0]], "values": {"sinks": 1.5, "window": 3}},
            "first keys must be a whole number",
        ),
        ({"edit": "act", "heads": [[0, 0]], "values": None}, "values must be given by name"),
    ],
)
def test_what_makes_no_sense_is_said(
    model: Any, monkeypatch: pytest.MonkeyPatch, message: dict[str, Any], said: str
) -> None:
    reply, _ = Wire(view(model), monkeypatch).ask(op="run", id=1, **message)
    assert said in reply["error"]


def test_what_goes_wrong_on_the_way_is_words_too(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(view(model), monkeypatch)
    state = finished(wire, edit="ablate", heads=[[1, h] for h in range(5)], values={"kind": "zero"})
    assert state["state"] == "failed"
    assert "no 5 others are left for a control" in state["words"]
    assert "no edit has been tried yet" in wire.ask(op="outcome", id=3)[0]["error"]
    assert "no edit has been tried yet" in wire.ask(op="compare", message={"op": "effects"}, id=4)[0]["error"]


def test_the_outcome_can_be_compared_saved_and_drawn(
    model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    panel = view(model)
    wire = Wire(panel, monkeypatch)
    assert panel.picture().width > 0
    finished(wire, **ZERO)
    reply, _ = wire.ask(op="compare", message={"op": "effects"}, id=1)
    assert [row["name"] for row in reply["rows"]] == panel.result.table["metric"].tolist()
    assert reply["id"] == 1
    assert "must be one of" in wire.ask(op="compare", message={"op": "heads", "name": 3}, id=2)[0]["error"]
    assert len(panel.data()) > len(reply["rows"])
    assert panel.png(tmp_path / "x.png").stat().st_size > 0
    assert "text_effects" in panel.html(tmp_path / "x.html").read_text()


def test_texts_are_needed(model: Any) -> None:
    from interp.widgets.views.intervene import Intervene

    with pytest.raises(OptionError, match="at least one text"):
        Intervene(model, [])
    with pytest.raises(OptionError, match="two tokens"):
        Intervene(model, [[3]])
