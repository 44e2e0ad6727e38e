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


# ------------------------------------------------------------------ tasks
def planted_panel(**options: Any) -> tuple[Any, tuple[int, int]]:
    """A panel of a model that copies what followed the last copy of a token, and the head that does it."""
    from interp.widgets.views.intervene import Intervene

    found, places = planted("retrieval")
    return Intervene(found, TEXTS, **{"draws": 3, "prompts": 5, **options}), places["retrieval"]


def ablated(head: tuple[int, int], task: str | None = "repeated") -> dict[str, Any]:
    return {"edit": "ablate", "heads": [list(head)], "values": {"kind": "zero"}, "task": task}


def test_a_planted_head_is_what_the_answers_need_and_random_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.interventions import answer_effects
    from interp.tasks.repeated import Repetition, prompts

    panel, head = planted_panel()
    wire = Wire(panel, monkeypatch)
    state = finished(wire, **ablated(head))
    assert (state["state"], state["share"]) == ("done", 1.0), state
    rows = panel.result.table.set_index("metric")
    # The token after a repetition is known for certain to this head, and to no other.
    assert rows.loc["accuracy", "base"] == 1.0 and rows.loc["accuracy", "edited"] < 0.5
    assert rows.loc["accuracy", "control"] == 0.0
    assert rows.loc["log-probability of the answer", "high"] < 0
    model = panel.source.model
    asked = prompts(model.tokenizer, Repetition(length=12, repeats=2), samples=5, seed=0)
    edit = AblateHeads(heads=(head,), kind="zero")
    expected = answer_effects(model, [edit], asked, draws=3, seed=0)
    pd.testing.assert_frame_equal(panel.result.table, expected.table)
    reply, _ = wire.ask(op="outcome", id=3)
    assert reply["on"] == "5 prompts of repeated"
    assert reply["payload"]["note"] == "The map of heads is of the first prompt."
    effects, _ = wire.ask(op="compare", message={"op": "effects"}, id=4)
    assert {"accuracy", "log-probability of the answer"} <= {row["name"] for row in effects["rows"]}


@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_the_python_of_a_task_does_the_same(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    panel, head = planted_panel()
    state = finished(Wire(panel, monkeypatch), **{**ablated(head), "values": {"kind": kind}})
    assert (state["state"], state["share"]) == ("done", 1.0), state
    names = executed(panel.code, tmp_path, model=panel.source.model)
    pd.testing.assert_frame_equal(names["effect"].table, panel.result.table)


def test_what_edits_can_be_tried_on_is_said_with_its_number() -> None:
    panel, _ = planted_panel(prompts=7)
    grounds = panel.payload["grounds"]
    assert [g["task"] for g in grounds] == [None, "repeated", "ioi", "coloured-objects", "succession"]
    assert grounds[0]["title"] == "2 texts of 14 tokens"
    assert all(g["title"].startswith(f"7 prompts, task {g['task']}: ") for g in grounds[1:])
    with pytest.raises(OptionError, match="prompts must be at least 1"):
        planted_panel(prompts=0)


def test_a_task_that_the_tokens_do_not_allow_is_words(monkeypatch: pytest.MonkeyPatch) -> None:
    panel, head = planted_panel()
    wire = Wire(panel, monkeypatch)
    state = finished(wire, **ablated(head, "ioi"))
    assert state["state"] == "failed" and state["words"]
    reply, _ = wire.ask(op="run", id=5, **ablated(head, "chess"))
    assert "task must be one of repeated, ioi" in reply["error"]


def test_prompts_of_lists_are_spread_over_the_lists(tmp_path: Path) -> None:
    """A task that makes prompts of each of its lists gives few, of many of them."""
    from interp.tasks.prompt import Prompt
    from interp.widgets.views import task_choices

    made = [Prompt(ids=(n,), answer=(1,)) for n in range(23)]
    task = task_choices.TaskChoice(title="t", make=lambda tokenizer, *, samples, seed: made, of_each=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_choices, "TASKS", {"t": task})
        kept = task_choices.task_prompts("t", planted("sink")[0], count=5, seed=0)
        _, lines = task_choices.task_code("t", count=5, seed=0)
    assert [p.ids[0] for p in kept] == [0, 4, 8, 12, 16]
    assert executed(lines[1], tmp_path, prompts=made)["prompts"] == kept
