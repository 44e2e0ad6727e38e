"""Traits of firings, families and polysemanticity: worked by hand, and on dictionaries whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from interp.errors import OptionError
from interp.saes.config import SAEConfig
from interp.saes.core import SAE
from interp.saes.dfa import Attribution
from interp.saes.families import FamilyRules, feature_traits, firing_traits, fuzzy, tagged
from interp.saes.polysemanticity import polysemanticity


def found(pairs: list[tuple[int, int]], by_source: list[list[float]]) -> Attribution:
    """An attribution with these (token, feature) pairs and DFA by source."""
    x = torch.tensor(by_source)
    return Attribution(
        tokens=torch.tensor([t for t, _ in pairs]), features=torch.tensor([f for _, f in pairs]),
        by_head=x.sum(1, keepdim=True), by_source=x, sinks_by_head=x[:, :1], bias=torch.zeros(len(pairs)), sinks=(0,),
    )  # fmt: skip


WORDS = ["<bos>", " A", " B", " c", "a", " b", " C"]
IDS = [0, 1, 2, 3, 4, 5, 6]


def test_firings_by_hand() -> None:
    # token 4 ("a") copies " A" at 1, which " B" follows at 2
    attribution = found(
        [(4, 1), (5, 1), (3, 0)],
        [[9.0, 0.5, 2.0, 0.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 7.0]],
    )
    raised = torch.tensor([[2, 5], [2, 6]])
    rows = firing_traits(attribution, WORDS, IDS, raised, np.random.default_rng(0))
    assert rows["distance"].tolist() == [2, 2, 1]  # sinks and later tokens never count; ties go to the first
    assert rows["match"].tolist() == [True, True, False]  # " B" is the fuzzy copy of " b" in front of " c"
    assert rows["hit"].tolist() == [True, False, True]
    assert rows["starts"].tolist() == [True, False, True]
    shares = [0.5 / 3, 2 / 3, 0.5 / 3]
    assert rows["breadth"][0] == pytest.approx(-sum(p * math.log(p) for p in shares) / math.log(4))
    assert rows["breadth"][1] == 0.0
    traits = feature_traits(rows).set_index("feature")
    assert traits.loc[1, ["firings", "match", "hit", "induction", "distance", "run"]].tolist() == [
        2,
        1.0,
        0.5,
        0.5,
        2,
        2.0,
    ]
    assert fuzzy([" The", "THE "]) == ["the", "the"]


def test_breadth_is_undefined_with_one_source() -> None:
    rows = firing_traits(
        found([(1, 0)], [[3.0, 1.0] + 5 * [0.0]]), WORDS, IDS, torch.zeros(1, 2), np.random.default_rng(0)
    )
    assert math.isnan(rows["breadth"][0])


def test_tags_follow_the_rules_in_their_order() -> None:
    rules = FamilyRules(induction=0.3, breadth=0.7, distance=8.0)
    cases = {
        (0.3, 0.9, 2.0): "induction",
        (0.29, 0.7, 2.0): "high-level",
        (0.0, 0.69, 8.0): "local",
        (0.0, 0.1, 9.0): "other",
    }
    assert [rules.family(*x) for x in cases] == list(cases.values())
    rows = feature_traits(
        firing_traits(
            found([(4, 0)], [[0, 0, 1.0, 0, 0, 0, 0]]), WORDS, IDS, torch.tensor([[2]]), np.random.default_rng(0)
        )
    )
    assert tagged(rows).tolist() == ["induction"]
    assert tagged(rows, FamilyRules(induction=1.1)).tolist() == ["local"]


def dictionary(rows: torch.Tensor) -> SAE:
    d_sae, d_in = rows.shape
    weights = {"W_enc": rows.T, "W_dec": rows, "b_dec": torch.zeros(d_in), "b_enc": torch.zeros(d_sae)}
    return SAE(SAEConfig(architecture="standard", d_in=d_in, d_sae=d_sae), weights)


def test_directions_of_heads_that_do_one_thing_two_and_many() -> None:
    heads, size, each = 3, 7, 6
    rows = torch.zeros(heads * each, heads, size)
    rows[:each, 0, 2] = torch.tensor([1.0, -1.0, 2.0, 1.0, 3.0, 1.0])  # one direction, either sign
    rows[each : 2 * each, 1, 0], rows[each + 3 : 2 * each, 1, :2] = 1.0, torch.tensor([0.0, 1.0])  # two, three each
    rows[range(2 * each, 3 * each), 2, range(each)] = 1.0  # six at right angles
    table = polysemanticity(dictionary(rows.flatten(1)), heads, 4, k=each, draws=50).table
    # two groups of three: of the 30 ordered pairs of different features 12 agree
    assert table["score"].tolist() == pytest.approx([1.0, 6 / (1 + 5 * 12 / 30), 6.0])
    assert table["low"][0] == table["high"][0] == pytest.approx(1.0)
    assert table["low"][1] <= 2.0 <= table["high"][1]
    assert table["share"].tolist() == [1.0, 1.0, 1.0]
    assert table["layer"].tolist() == [4, 4, 4]
    assert table["features"][1] == "6 7 8 9 10 11"


def test_families_of_a_head_are_mixed_as_its_features_are() -> None:
    sae = dictionary(torch.randn(11, 10, generator=torch.Generator().manual_seed(0)))
    families = {i: ("local" if i % 2 else "induction") for i in range(4)}
    table = polysemanticity(sae, 2, 0, k=11, families=families, draws=5).table
    assert table["mixed"].tolist() == pytest.approx([4 / 6, 4 / 6])
    assert polysemanticity(sae, 2, 0, k=3, draws=5).table["mixed"].isna().all()


def test_dead_features_are_left_out() -> None:
    sae = dictionary(torch.randn(11, 10, generator=torch.Generator().manual_seed(0)))
    alive = np.arange(11) < 5
    table = polysemanticity(sae, 2, 0, k=5, alive=alive, draws=5).table
    assert set(map(int, table["features"][0].split())) == set(range(5))
    with pytest.raises(OptionError, match="k <= 5"):
        polysemanticity(sae, 2, 0, k=6, alive=alive)
