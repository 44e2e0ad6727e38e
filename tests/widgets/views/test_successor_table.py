"""SuccessorTable without a browser: scores and pairs through the real comm path; ranks against dense products in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heads_cases import HEADS, LAYERS, NASTY, heads_table, shuffled, successor
from view_cases import Wire

from interp.errors import OptionError
from interp.results import Result

COLUMNS = ("score", "control", "spread", "itself", "tasks_above", "days", "numbers")


def table(result: Result | None = None, **options: Any) -> Any:
    from interp.widgets.views.successor_table import SuccessorTable

    return SuccessorTable(successor() if result is None else result, **options)


def test_scores_come_back_by_head_whatever_the_order_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    _, buffers = Wire(table(shuffled(successor())), monkeypatch).ask(op="scores", id=1)
    got = np.frombuffer(buffers[0], "<f4").reshape(2 + len(COLUMNS), LAYERS * HEADS)
    expected = successor().table
    np.testing.assert_array_equal(got[0], expected["layer"])
    np.testing.assert_array_equal(got[1], expected["head"])
    for row, name in zip(got[2:], COLUMNS, strict=True):
        np.testing.assert_array_equal(row, expected[name].to_numpy(np.float32))


def test_pairs_of_a_head_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(table(), monkeypatch)
    for layer, head in ((1, 5), (0, 2), (1, 0)):
        _, buffers = wire.ask(op="head", layer=layer, head=head, id=1)
        np.testing.assert_array_equal(np.frombuffer(buffers[0], "<f4"), successor().arrays["correct"][:, layer, head])


def test_words_are_told_where_the_whole_list_was_scored_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    reply, _ = Wire(table(), monkeypatch).ask(op="words", id=1)
    days, numbers = reply["lists"]
    assert (days["task"], days["case"], days["count"]) == ("days", "plain", 7)
    assert days["pairs"][0] == ["Monday", "Tuesday"]
    assert days["pairs"][6] == ["Sunday", "Monday"], "the week goes round"
    assert (numbers["count"], numbers["pairs"]) == (3, [])
    examples = table().examples(1, 5)
    assert examples["first"].all()
    assert examples["word"].tolist() == [
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "",
        "",
        "",
    ]
    assert not table().examples(0, 2)["first"].any()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"op": "rows"}, "there are: scores, words, head"),
        ({"op": "head", "layer": 0}, "head must be a whole number"),
        ({"op": "head", "layer": 0, "head": HEADS}, "there is no head 0.7"),
        ([], "no operation"),
    ],
)
def test_a_bad_request_is_answered_with_words(message: object, said: str) -> None:
    from interp.widgets.views.successor_table_source import serve

    assert said in serve(table().source, message)[0]["error"]


def test_markdown_is_the_best_heads_with_their_controls() -> None:
    lines = table().markdown(heads=3).splitlines()
    assert lines[0] == "| head | score | control | sd | itself | tasks > 0.5 | days | numbers |"
    assert lines[1] == "| --- |" + " ---: |" * 7
    assert lines[2] == "| 1.5 | 1 | 0.0625 | 0.125 | 0 | 2 | 1 | 1 |"
    assert len(lines) == 5
    scores = successor().table["score"].to_numpy()
    order = sorted(range(LAYERS * HEADS), key=lambda i: (-scores[i], i))
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {i // HEADS}.{i % HEADS}" for i in order[:3]]
    assert table().markdown(by="days", heads=1).splitlines()[2].startswith("| 1.5")
    with pytest.raises(OptionError, match="no column 'x'"):
        table().markdown(by="x")


def test_ranks_of_a_model_are_those_of_dense_products() -> None:
    import interp
    from interp.heads import successor as scored
    from interp.heads.weights import read_weights
    from interp.tasks.succession import chains

    model = interp.tiny("llama")
    lists = chains(model.tokenizer, tasks=["letters", "numbers"])
    result = scored(model, embedding="embed", norms="none", lists=lists)
    view: Any = result.view(model=model, lists=lists)
    weights = read_weights(model)
    layer, head = model.layers - 1, model.heads - 1
    heads = weights.layer(layer)
    value = heads.values[heads.groups[head]].detach().double()
    all_words = list(dict.fromkeys(t for chain in lists for t in chain.tokens.values()))
    embedded = dict(zip(all_words, weights.embed(all_words).detach().double(), strict=True))
    expected = []
    for chain in lists:
        for s, t in chain.pairs:
            written = embedded[s] @ value @ heads.outputs[head].detach().double()
            logits = {
                word: float(written @ weights.unembedding[word].detach().double()) for word in chain.tokens.values()
            }
            expected.append(1 + sum(x >= logits[t] for word, x in logits.items() if word != t))
    examples = view.examples(layer, head)
    np.testing.assert_array_equal(examples["rank"], expected)
    assert examples["rank"].nunique() > 3
    np.testing.assert_array_equal(examples["first"], result.arrays["correct"][:, layer, head])
    letters = examples[(examples["task"] == "letters") & (examples["case"] == "plain")].iloc[0]
    assert (letters["word"], letters["successor"]) == ("A", "B")
    with pytest.raises(OptionError, match="not the lists that were scored"):
        result.view(model=model)


def test_other_results_are_refused() -> None:
    bare = Result(kind="heads.induction", table=heads_table(np.zeros((2, 3))), manifest={})
    with pytest.raises(OptionError, match=r"got one of heads\.induction"):
        table(bare)
    short = successor()
    short.arrays["correct"] = short.arrays["correct"][:9]  # pyright: ignore[reportIndexIssue]
    with pytest.raises(OptionError, match="do not fit each other"):
        table(short)


def test_a_saved_result_opens_by_its_kind_and_draws(tmp_path: Path) -> None:
    view: Any = Result.load(successor().save(tmp_path / "r")).view()
    assert (type(view).__name__, view.title) == ("SuccessorTable", f"successor, {NASTY}")
    assert view.png(tmp_path / "x.png").stat().st_size > 1000
    assert len(view.data()) == LAYERS * HEADS
    assert len(list(view.requests())) == 2 + LAYERS * HEADS
    assert len(str(view.payload)) < 4000
