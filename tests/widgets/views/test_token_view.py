"""TokenView without a browser: rows and columns against a dense softmax in float64, norms, untrusted text, what a saved page holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from report_cases import NASTY
from token_cases import FACTOR, HEAVY, LAYER, planted_capture, weights_of_row, words
from view_cases import Wire

TEXT = "the cat sat on the mat and the cat ate"


@pytest.fixture(scope="module")
def run() -> Any:
    import interp

    return interp.tiny("llama").run(TEXT)


def dense(run: Any, layer: int, head: int) -> np.ndarray:
    """The map of one head from its queries and keys, float64 [query, key]."""
    record = run.record(layer)
    group = record.q.shape[1] // record.k.shape[1]
    q, k = (record.q[0, head].double().numpy(), record.k[0, head // group].double().numpy())
    scores = q @ k.T * (record.scale or q.shape[1] ** -0.5)
    scores[np.triu_indices(len(scores), 1)] = -np.inf
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def ask(view: Any, monkeypatch: pytest.MonkeyPatch, **message: Any) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    reply, buffers = Wire(view, monkeypatch).ask(op="looks", id=1, **message)
    assert "error" not in reply, reply
    return reply, np.frombuffer(buffers[0], "<u4"), np.frombuffer(buffers[1], "<f4")


@pytest.mark.parametrize(("layer", "head", "at"), [(0, 0, 36), (1, 3, 29), (0, 2, 0), (1, 1, 11)])
def test_rows_and_columns_are_those_of_a_dense_softmax(
    run: Any, monkeypatch: pytest.MonkeyPatch, layer: int, head: int, at: int
) -> None:
    from interp.widgets.views.token_source import TOP
    from interp.widgets.views.token_view import TokenView

    view, whole = TokenView(run), dense(run, layer, head)
    for direction, line in (("sources", whole[at]), ("readers", whole[:, at])):
        reply, index, weights = ask(view, monkeypatch, layer=layer, head=head, at=at, direction=direction, by="weight")
        order = np.argsort(-line, kind="stable")[:TOP]
        expected = order[line[order] >= 1e-4 * line[order[0]]]
        assert len(index) == len(expected) == len(set(index.tolist()))
        np.testing.assert_allclose(weights, line[index], rtol=2e-5)
        np.testing.assert_allclose(np.sort(weights), np.sort(line[expected]), rtol=2e-5)
        assert (np.diff(weights) <= 0).all()
        np.testing.assert_allclose(reply["total"], line.sum(), rtol=1e-5)
        np.testing.assert_allclose(reply["rest"], np.delete(line, index).sum(), atol=1e-6)
        assert reply["others"] == (line > 0).sum() - len(index)


def test_the_rest_of_a_long_text_is_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.widgets.views.token_view import TokenView

    view = TokenView(planted_capture(words(4099)))
    reply, index, weights = ask(view, monkeypatch, layer=LAYER, head=0, at=4001, direction="sources", by="weight")
    row = weights_of_row(4001)
    assert index.tolist() == [HEAVY, *(i for i in range(24) if i != HEAVY)], "equal weights by position"
    np.testing.assert_allclose(weights, row[index], rtol=1e-5)
    np.testing.assert_allclose(reply["rest"], (4002 - 24) / (4001 + FACTOR), rtol=1e-4)
    assert reply["others"] == 4002 - 24
    reply, index, weights = ask(view, monkeypatch, layer=LAYER, head=0, at=HEAVY, direction="readers", by="weight")
    assert index.tolist() == list(range(HEAVY, HEAVY + 24)), "its first readers see the fewest others"
    np.testing.assert_allclose(reply["total"], sum(FACTOR / (i + FACTOR) for i in range(HEAVY, 4099)), rtol=1e-5)


def test_value_norms_weigh_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.errors import OptionError
    from interp.results import Result
    from interp.widgets.views.token_view import TokenView

    capture, n = planted_capture(words(11)), 11
    sizes = np.arange(1.0, n + 1)
    table = pd.DataFrame({"layer": [LAYER, LAYER], "head": [0, 1], "score": 0.0, "spread": 0.0, "control": 0.0})
    keys = np.stack([sizes, sizes[::-1]])[None]
    norms = Result(kind="explain.norms", table=table, manifest={}, arrays={"key_norms": keys})
    view = TokenView(capture, norms=norms)
    reply, index, weights = ask(view, monkeypatch, layer=LAYER, head=0, at=9, direction="sources", by="norm")
    expected = weights_of_row(9) * sizes[:10]
    expected /= expected.sum()
    np.testing.assert_allclose(weights, expected[index], rtol=1e-5)
    assert index[0] == HEAVY
    np.testing.assert_allclose(reply["total"], 1.0)
    reply, _ = Wire(view, monkeypatch).ask(op="looks", layer=LAYER, head=0, at=9, direction="readers", by="norm")
    assert "norms=" in reply["error"]
    with pytest.raises(OptionError, match=r"same 13 tokens; got a result 'explain\.norms' of 11 tokens"):
        TokenView(planted_capture(words(13)), norms=norms)


def test_any_text_arrives_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.widgets.views.token_view import TokenView

    tokens = [*NASTY, "", "\ufeffmark", "日本", "🙂", "a\x00b"]
    reply, (lengths, text) = Wire(TokenView(planted_capture(tokens)), monkeypatch).ask(op="tokens", id=3)
    found, at = [], 0
    for size in np.frombuffer(lengths, "<u4"):
        found.append(text[at : at + size].decode())
        at += size
    assert found == [t.encode("utf-8", "replace").decode() for t in tokens]
    assert reply["k"] == 2 and at == len(text)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"op": "looks"}, "layer must be a whole number"),
        (
            {"op": "looks", "layer": 2, "head": 0, "at": 1, "direction": "sources", "by": "weight"},
            "layer 2 was not captured",
        ),
        (
            {"op": "looks", "layer": 3, "head": 2, "at": 1, "direction": "sources", "by": "weight"},
            "head must be a whole number from 0 to 1",
        ),
        (
            {"op": "looks", "layer": 3, "head": 0, "at": 11, "direction": "sources", "by": "weight"},
            "at must be a whole number from 0 to 10",
        ),
        ({"op": "looks", "layer": 3, "head": 0, "at": True, "direction": "sources", "by": "weight"}, "at must be"),
        ({"op": "looks", "layer": 3, "head": 0, "at": 1, "direction": "up", "by": "weight"}, "one of sources, readers"),
        ({"op": "looks", "layer": 3, "head": 0, "at": 1, "direction": "sources", "by": "norm"}, "norms="),
        ({"op": "rows"}, "there are: tokens, looks"),
    ],
)
def test_bad_requests_are_answered_with_words(message: dict[str, Any], said: str) -> None:
    from interp.widgets.views.token_source import serve, token_source

    reply, buffers = serve(token_source(planted_capture(words(11))), message)
    assert said in reply["error"] and buffers == []


def test_what_cannot_be_shown_is_refused() -> None:
    import interp
    from interp.errors import CaptureError, OptionError, ShapeError
    from interp.widgets.views.token_view import TokenView

    model = interp.tiny("llama")
    with pytest.raises(ShapeError, match=r"run\[b\]"):
        TokenView(model.run(["one", "two two"]))
    with pytest.raises(CaptureError, match='keep="none"'):
        TokenView(model.run("one", keep="none"))
    with pytest.raises(OptionError, match=r"no head 9\.0 here"):
        TokenView(model.run("one"), layer=9)


def test_data_and_picture_follow_the_selection(run: Any, tmp_path: Path) -> None:
    from PIL import Image

    from interp.widgets.views.token_view import TokenView

    view = TokenView(run, layer=1, head=2)
    last = len(run.tokens) - 1
    data = view.data()
    assert set(data["query"]) == {last} and set(data["layer"]) == {1} and set(data["head"]) == {2}
    np.testing.assert_allclose(data["weight"], dense(run, 1, 2)[last][data["key"]], rtol=2e-5)
    view.selection = {"layer": 0, "head": 3, "q": None, "k": 5}
    data = view.data()
    assert set(data["key"]) == {5} and data["token"].tolist() == [run.tokens[i] for i in data["query"]]
    np.testing.assert_allclose(data["weight"], dense(run, 0, 3)[data["query"], 5], rtol=2e-5)
    picture = Image.open(view.png(tmp_path / "tokens.png")).convert("RGB")
    share = float(data["weight"].iloc[0]) ** 0.5
    strongest = tuple(round(p * (1 - share) + s * share) for p, s in zip((252, 251, 248), (31, 78, 140), strict=True))
    assert strongest in {colour for _, colour in picture.getcolors(10**6) or []}


def test_a_saved_page_holds_the_nearest_tokens() -> None:
    from interp.widgets.views.token_view import SAVED, TokenView

    view = TokenView(planted_capture(words(1009)))
    view.selection = {"layer": None, "head": None, "q": 601, "k": None}
    requests = list(view.requests())
    rows = {m["at"] for m in requests if m["op"] == "looks" and m["direction"] == "sources"}
    assert rows == {*range(601 - SAVED // 2, 601 + SAVED // 2), 0, 1008}
    assert requests[0] == {"op": "tokens"} and len(requests) == 1 + 2 * len(rows)
