"""Removal tests and the honesty panel on a planted retrieval head, removal against deletion, and rank agreement by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import interp
from interp.errors import OptionError, ShapeError
from interp.explain.agreement import LABEL, agreement, kendall, spearman, top_agreement
from interp.explain.faithfulness import SHARES, faithfulness
from interp.explain.panel import panel
from interp.explain.ranking import METHODS, scores_of
from interp.models.planted import planted

TOKENS = 41
KEY = 17
"""The place of the token that followed the last one's earlier occurrence."""


def induction() -> list[int]:
    """Distinct words; the last one stood before `KEY` already."""
    words = (1 + np.random.default_rng(7).permutation(96)[: TOKENS - 1]).tolist()
    return [*words, words[KEY - 1]]


@pytest.fixture(scope="module")
def copier():
    return planted("retrieval", "sink", seed=3)[0]


def one_hot(*at: int) -> np.ndarray:
    found = np.zeros(TOKENS)
    found[list(at)] = 1.0
    return found


READ = (KEY, KEY - 1, KEY - 2, TOKENS - 2)
"""All that the answer needs: the key that is copied; the token before it, which the previous-token head moves there; and for that key and for
the last token the one before, without which the head moves the token itself, and it would match too."""
WRONG = (24, 25, 26, 27)


def test_the_keys_that_are_read_are_needed_and_enough_and_random_keys_are_not(copier):
    ids = induction()
    result = faithfulness(copier, ids, ids[KEY], scores=one_hot(*READ), shares=(0.1, 0.2), draws=7, seed=1)
    table = result.table.set_index(["measure", "bin"])
    needed, enough = (table.loc[(measure, "10 %")] for measure in ("comprehensiveness", "sufficiency"))
    assert result.manifest["probability"] > 0.9
    assert needed["count"] == 4
    assert needed["score"] > 0.9
    assert needed["control"] < 0.5
    assert needed["kl"] > max(1.0, needed["kl_control"])
    assert abs(enough["score"]) < 0.1
    assert enough["control"] > 0.9
    assert enough["recency"] > 0.9
    wrong = faithfulness(copier, ids, ids[KEY], scores=one_hot(*WRONG), shares=(0.1,), draws=2).table
    assert abs(wrong["score"][0]) < 0.05
    assert wrong["kl"][0] < 0.1
    assert wrong["score"][2] > 0.9


def test_aopc_is_the_plain_mean_and_random_columns_are_those_of_the_draws(copier):
    ids = induction()
    result = faithfulness(copier, ids, scores="attention", shares=(0.1, 0.3, 0.5), draws=3)
    random = result.arrays["random"]  # [draw, measure, size, effect]
    for m, measure in enumerate(("comprehensiveness", "sufficiency")):
        rows = result.table[result.table["measure"] == measure]
        sizes, mean = rows.iloc[:3], rows.iloc[3]
        assert mean["bin"] == "AOPC"
        assert sizes["count"].tolist() == [4, 12, 20]
        for e, name in enumerate(("score", "log", "kl", "entropy")):
            assert mean[name] == pytest.approx(sizes[name].mean())
            suffix = ("control", "spread") if name == "score" else (f"{name}_control", f"{name}_spread")
            np.testing.assert_allclose(rows[suffix[0]], random[:, m, :, e].mean(0), atol=1e-12)
            np.testing.assert_allclose(rows[suffix[1]], random[:, m, :, e].std(0, ddof=1), atol=1e-12)
    assert SHARES == (0.01, 0.05, 0.1, 0.2, 0.5)


def test_removal_is_that_of_the_tokens_where_positions_do_not_move():
    """Hiding leading keys equals deleting the tokens under rotary positions (to the float32 of its angles): numbers from shorter texts."""
    model = interp.tiny("llama")
    model.hf.double()
    ids = model.encode("removal, not deletion")
    leading = np.arange(len(ids), dtype=np.float64)[::-1].copy()
    result = faithfulness(model, ids, 99, scores=leading, shares=(0.3,))
    row = result.table.set_index("measure").loc["comprehensiveness"].iloc[0]
    count = int(row["count"])

    def told(tokens):
        with torch.no_grad():
            return model.hf(torch.tensor([tokens]), use_cache=False).logits[0, -1].log_softmax(-1)

    full, cut = told(ids), told(ids[count:])
    assert row["score"] == pytest.approx(float(full[99].exp() - cut[99].exp()), abs=1e-6)
    assert row["log"] == pytest.approx(float(full[99] - cut[99]), abs=1e-6)
    assert row["kl"] == pytest.approx(float((full.exp() * (full - cut)).sum()), abs=1e-6)
    entropies = [float(-(x.exp() * x).sum()) for x in (full, cut)]
    assert row["entropy"] == pytest.approx(entropies[1] - entropies[0], abs=1e-6)
    # Sufficiency keeps the first `count` tokens and the last one: hide the ones between by hand.
    from interp.interventions.knockout import KnockOut

    with model.edit(KnockOut(keys=((count, len(ids) - 1),))):
        only = told(ids)
    kept = result.table.set_index("measure").loc["sufficiency"].iloc[0]
    assert kept["log"] == pytest.approx(float(full[99] - only[99]), abs=1e-6)


def test_kept_positions_are_never_removed_and_ties_go_to_the_earlier_token(copier):
    ids = induction()
    result = faithfulness(copier, ids, scores=np.zeros(TOKENS), keep=(0, 3), shares=(0.1,), draws=2)
    order = result.arrays["order"].tolist()
    assert order == [p for p in range(TOKENS - 1) if p not in (0, 3)]
    for bad in ({"keep": (TOKENS - 1,)}, {"shares": (0.0,)}, {"draws": 1}, {"scores": "lime"}):
        with pytest.raises(OptionError):
            faithfulness(copier, ids, **bad)
    with pytest.raises(ShapeError, match="one for each token"):
        faithfulness(copier, ids, scores=np.zeros(5))


def test_every_method_scores_every_token_and_finds_the_planted_key(copier):
    from interp.explain.question import ask

    question = ask(copier, induction(), induction()[KEY])
    for name in METHODS:
        said, scores = scores_of(copier, question, name)
        assert said == name
        assert scores.shape == (TOKENS,)
        assert np.isfinite(scores).all()
    best = {name: int(METHODS[name](copier, question)[1:-1].argmax()) + 1 for name in ("norms", "gradient")}
    assert best == {"norms": KEY, "gradient": KEY}


def test_the_panel_tells_a_true_highlight_from_a_wrong_one(copier):
    ids = induction()
    good = panel(copier, ids, ids[KEY], scores=one_hot(*READ), share=0.1, draws=9)
    bad = panel(copier, ids, ids[KEY], scores=one_hot(*WRONG), share=0.1, draws=9)
    rows, others = (x.table.set_index("check") for x in (good, bad))
    assert rows.index.tolist() == ["comprehensiveness", "sufficiency", "edges", "disagreement", "sink mass"]
    assert [row["position"] for row in good.manifest["highlight"]] == sorted(READ)
    assert rows.loc["comprehensiveness", "score"] > 0.9 > 0.1 > abs(others.loc["comprehensiveness", "score"])
    assert rows.loc["sufficiency", "score"] < 0.1 < 0.9 < others.loc["sufficiency", "score"]
    assert rows.loc["edges", "score"] > 1.0 > abs(others.loc["edges", "score"])
    assert rows.loc["comprehensiveness", "beaten"] > 0.7
    assert rows.loc["disagreement", "score"] == others.loc["disagreement", "score"], (
        "it does not depend on the highlight"
    )
    weights = copier.run(ids, collect=["first_token_mass"]).stats["first_token_mass"][..., -1]
    assert rows.loc["sink mass", "score"] == pytest.approx(float(weights.mean()), abs=1e-6)
    assert rows.loc["sink mass", "control"] == pytest.approx(1 / TOKENS)
    with pytest.raises(OptionError, match="share"):
        panel(copier, ids, share=1.0)


# ------------------------------------------------------------------ agreement
def test_kendall_and_spearman_by_hand():
    x, y = np.array([1.0, 2, 3, 4, 5]), np.array([1.0, 3, 2, 5, 4])  # two of ten pairs turned round
    assert kendall(x, y) == pytest.approx(0.6)
    assert spearman(x, y) == pytest.approx(1 - 6 * 4 / (5 * 24))
    # Ties: x has one tied pair, y none: concordant 5 of 6 - 1; tau-b = 5 / sqrt(5 * 6).
    assert kendall(np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 3, 4])) == pytest.approx(5 / np.sqrt(30))
    assert spearman(np.array([1.0, 1, 2]), np.array([1.0, 2, 3])) == pytest.approx(np.sqrt(3) / 2)
    assert np.isnan(kendall(np.ones(4), np.arange(4.0)))
    draw = np.random.default_rng(0)
    a, b = draw.integers(0, 50, (2, 700)).astype(float)  # more than one block of rows
    pairs = list(itertools.combinations(range(700), 2))
    i, j = np.array(pairs).T
    da, db = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
    assert kendall(a, b) == pytest.approx((da * db).sum() / np.sqrt((da != 0).sum() * (db != 0).sum()))


def test_top_lists_by_hand():
    x = np.array([9.0, 8, 7, 0, 0, 0])  # 0 1 2
    assert top_agreement(x, x, 3) == 1.0
    # 3 4 5: nine pairs across are wrong in one list each, three pairs within each list cost 1/2.
    assert top_agreement(x, np.array([0.0, 0, 0, 9, 8, 7]), 3) == pytest.approx(0.0)
    # 0 3 1 against 0 1 2: pairs (1, 3): y says 3 first, x does too little: 1 listed before unlisted 3 -> differ; (1, 2), (0, .) agree; (2, 3)
    # in one list each -> differ. Distance 2 of 9 + 3.
    assert top_agreement(x, np.array([9.0, 7, 0, 8, 0, 0]), 3) == pytest.approx(1 - 2 / 12)
    with pytest.raises(OptionError, match="k"):
        top_agreement(x, x, 7)


def test_agreement_is_labelled_as_that_and_nothing_else(copier):
    given = {"a": np.arange(TOKENS, dtype=float), "b": -np.arange(TOKENS, dtype=float), "c": np.arange(TOKENS) ** 2.0}
    result = agreement(copier, induction(), methods=given, draws=30)
    table = result.table.set_index(["first", "second"])
    assert table.loc[("a", "b"), ["score", "spearman"]].tolist() == pytest.approx([-1, -1])
    assert table.loc[("a", "c"), ["score", "spearman", "top_k"]].tolist() == pytest.approx([1, 1, 1])
    assert abs(table["control"]).max() < 0.1
    assert set(result.table["label"]) == {LABEL} == {result.manifest["label"]}
    assert "faithful" not in " ".join(result.table.columns)
    with pytest.raises(OptionError, match="two methods"):
        agreement(copier, induction(), methods=("rollout",))
