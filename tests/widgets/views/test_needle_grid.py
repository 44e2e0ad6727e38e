"""NeedleGrid without a browser: cells through the real comm path against counts by hand, Wilson's interval against its own equation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from heads_cases import DEPTHS, HEADS, LAYERS, LENGTHS, NEEDLES, heads_table, retrieval, scores, trials
from view_cases import Wire

from interp.errors import OptionError
from interp.results import Result


def grid(given: Any = None, **options: Any) -> Any:
    from interp.widgets.views.needle_grid import NeedleGrid

    return NeedleGrid(retrieval() if given is None else given, **options)


def arrays(buffers: list[bytes]) -> list[np.ndarray]:
    return [np.frombuffer(b, "<f4").reshape(len(LENGTHS), len(DEPTHS)) for b in buffers]


def cell_of(frame: pd.DataFrame, i: int, j: int) -> pd.DataFrame:
    return frame[(frame["length"] == LENGTHS[i]) & (frame["depth"] == DEPTHS[j])]


def test_wilson_ends_are_where_the_distance_is_z_standard_errors() -> None:
    from interp.widgets.views.needle_grid_source import wilson

    k, n = np.array([1.0, 3, 8, 99]), np.array([7.0, 5, 10, 100])
    for end in wilson(k, n):
        np.testing.assert_allclose(np.abs(k / n - end), 1.959963985 * np.sqrt(end * (1 - end) / n), rtol=1e-8)
    np.testing.assert_allclose(wilson(np.array([8.0]), np.array([10.0])), [[0.4901625], [0.9433178]], atol=1e-6)
    low, high = wilson(np.array([0.0, 5.0, 0.0]), np.array([5.0, 5.0, 0.0]))
    assert (low[0], high[1]) == (0.0, 1.0)
    assert 0 < low[1] < 1 > high[0] > 0
    assert np.isnan(low[2]) and np.isnan(high[2])


def test_answers_are_counted_by_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    _, buffers = Wire(grid(), monkeypatch).ask(op="answers", id=1)
    share, low, high, found, asked = arrays(buffers)
    for (i, j), x in np.ndenumerate(found):
        mine = cell_of(trials(), i, j)
        assert (x, asked[i, j]) == (mine["correct"].sum(), NEEDLES)
        np.testing.assert_allclose(share[i, j], mine["correct"].mean(), rtol=1e-6)
        assert 0 <= low[i, j] <= share[i, j] <= high[i, j] <= 1
    assert found[1, 2] == 0


def test_a_head_is_averaged_over_the_accepted_answers_of_each_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = trials().query("correct").reset_index(drop=True)
    score, control = scores()
    wire = Wire(grid(), monkeypatch)
    for layer, head in ((1, 3), (0, 0), (0, 6)):
        _, buffers = wire.ask(op="head", layer=layer, head=head, id=1)
        mean, spread, random, share, low, high, active = arrays(buffers)
        for (i, j), x in np.ndenumerate(mean):
            mine = cell_of(kept, i, j).index
            if not len(mine):
                assert np.isnan([x, share[i, j], low[i, j]]).all()
                continue
            here = score[mine, layer, head]
            np.testing.assert_allclose(x, here.mean(), rtol=1e-6)
            np.testing.assert_allclose(random[i, j], control[mine, layer, head].mean(), rtol=1e-6)
            assert active[i, j] == sum(v > 0 for v in here)
            np.testing.assert_allclose(share[i, j], active[i, j] / len(here), rtol=1e-6)
            assert low[i, j] <= share[i, j] <= high[i, j]
            if len(here) > 1:
                np.testing.assert_allclose(spread[i, j], np.std(here, ddof=1), rtol=1e-5)


def test_samples_in_another_order_are_not_given_to_wrong_cells() -> None:
    sample = retrieval().arrays["sample"]
    cells = grid(retrieval(sample=sample[::-1].copy())).source
    assert np.isnan(cells.asked).all()
    assert np.isnan(cells.copied.active).all()
    assert np.isfinite(cells.copied.score[:, :, 0]).all(), "means by cell stand in the result itself"
    np.testing.assert_array_equal(cells.found, retrieval().arrays["grid_accepted"])


def test_a_table_of_trials_is_a_grid_too(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = grid(trials().sample(frac=1, random_state=0))
    one, other = (arrays(Wire(v, monkeypatch).ask(op="answers", id=1)[1]) for v in (shown, grid()))
    np.testing.assert_array_equal(one, other)
    assert shown.payload["layers"] == []
    assert [dict(r) for r in shown.requests()] == [{"op": "answers"}]
    assert "no heads were scored" in Wire(shown, monkeypatch).ask(op="head", layer=0, head=0, id=2)[0]["error"]
    with pytest.raises(OptionError, match="depth, correct are missing"):
        grid(trials()[["length"]])


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"op": "cells"}, "there are: answers, head"),
        ({"op": "head"}, "layer must be a whole number from 0 to 1"),
        ({"op": "head", "layer": 1, "head": HEADS}, "head must be a whole number from 0 to 6"),
        ({"op": "head", "layer": True, "head": 0}, "layer must be"),
        (None, "no operation"),
    ],
)
def test_a_bad_request_is_answered_with_words(message: object, said: str) -> None:
    from interp.widgets.views.needle_grid_source import serve

    assert said in serve(grid().source, message)[0]["error"]


def test_the_locked_cell_reaches_python(monkeypatch: pytest.MonkeyPatch) -> None:
    view = grid()
    heard: list[Any] = []
    view.on_cell(heard.append)
    wire = Wire(view, monkeypatch)
    assert view.cell is None
    wire.set(picks=[[1, 2]])
    assert view.cell == (256, 1.0)
    wire.set(picks=[[9, 0]])
    assert view.cell is None
    wire.set(picks=[])
    assert heard == [(256, 1.0), None, None]


def test_data_has_a_row_per_head_and_cell() -> None:
    data = grid().data()
    assert len(data) == LAYERS * HEADS * 6
    row = data.query("layer == 1 and head == 3 and length == 64 and depth == 0").iloc[0]
    assert (row["score"], row["active"], row["found"], row["asked"]) == (1.0, NEEDLES, NEEDLES, NEEDLES)
    assert len(grid(trials()).data()) == 6


def test_best_heads_come_first_and_are_kept_in_a_saved_page() -> None:
    view = grid()
    mean = np.nanmean(retrieval().arrays["grid"], axis=(0, 1))
    expected = sorted(np.ndindex(LAYERS, HEADS), key=lambda at: (-mean[at], at))
    assert [tuple(x) for x in view.payload["best"]] == expected
    assert sum(r["op"] == "head" for r in view.requests()) == LAYERS * HEADS


def test_a_result_opens_the_grid_where_it_has_cells_and_its_scores_where_not() -> None:
    assert type(retrieval().view()).__name__ == "NeedleGrid"
    table = heads_table(np.zeros((2, 3)))
    bare = Result(kind="heads.retrieval", table=table, manifest={"settings": {}})
    opened: Any = bare.view()
    assert type(opened).__name__ == "HeadGrid"
    assert opened.source.columns["score"].title == "retrieval"
    with pytest.raises(OptionError, match="no lengths and depths"):
        grid(bare)


def test_the_picture_has_the_colours_of_the_numbers(tmp_path: Path) -> None:
    from PIL import Image

    from interp.widgets.colours import sequential

    view = grid()
    picture = np.asarray(Image.open(view.png(tmp_path / "x.png")))
    found = {tuple(int(v) for v in pixel) for pixel in picture.reshape(-1, 3)}
    layer, head = view.payload["best"][0]
    for x in retrieval().arrays["grid"][:, :, layer, head].ravel():
        if np.isfinite(x):
            assert tuple(int(v) for v in sequential()[int(np.floor(255 * np.float32(x) + 0.5))]) in found


def test_a_locked_cell_opens_its_tokens_and_the_next_one_follows() -> None:
    import interp

    model = interp.tiny("llama")
    cells = trials().replace({"length": {64: 384, 256: 512}})
    view = grid(cells)
    with pytest.raises(OptionError, match="lock a cell first"):
        view.open_cell(model)
    view.picks = [[1, 1]]
    opened = view.open_cell(model)
    assert type(opened).__name__ == "TokenView"
    before = len(opened.source.tokens)
    assert 384 < before <= 512
    view.picks = [[0, 1]]
    assert 256 < len(opened.source.tokens) <= 384
    assert opened.rev == 1
