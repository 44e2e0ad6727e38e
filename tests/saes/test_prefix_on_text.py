"""Long prefixes on text: lengths by hand, a planted head that matches one token keeps its target, a cell measured again by hand."""

from __future__ import annotations

import math

import pytest

from interp.errors import InputDataError, OptionError
from interp.models.planted import planted
from interp.saes.prefix_on_text import matching, prefix_on_text


def test_prefixes_by_hand() -> None:
    ids = [9, 1, 2, 3, 7, 1, 2, 3, 8, 3]
    assert matching(ids, 7, 4) == 3  # 1 2 3 stands in front of the 7 and at the row
    assert matching(ids, 6, 3) == 2
    assert matching(ids, 5, 2) == 1
    assert matching(ids, 9, 4) == 1 and matching(ids, 9, 8) == 1
    assert matching(ids, 8, 4) == 0
    assert matching(ids, 7, 8) == 0  # a key behind the row follows nothing
    assert matching([4, 4, 4], 2, 1) == 1  # it ends at the first token


def test_a_head_that_matches_one_token_keeps_its_target() -> None:
    model, places = planted("induction")
    texts = [[5, 11, 12, 13, 14, 15, 16, 17, 18, 19, 12, 13, 14, 15], [5, 31, 32, 33, 34, 35, 36, 37, 38, 32, 33]]
    head = places["induction"]
    other = places["previous"]
    rows = prefix_on_text(model, [head, other], texts, cases=3).table.set_index(["layer", "head"])
    mine = rows.loc[head]
    # prefixes of 1, 2, 3, 4 at the first text's copies, 1 and 2 at the second's
    assert (mine["found"], mine["prefix_1"], mine["cells"]) == (4, 2, 3)
    assert min(mine["before"], mine["score"], mine["control"]) > 0.95
    # the previous-token head attends to no follower of its own token
    assert rows.loc[other, "found"] == 0 and math.isnan(rows.loc[other, "score"])


def test_what_makes_no_sense_is_refused() -> None:
    model, _ = planted("induction")
    with pytest.raises(OptionError, match="heads"):
        prefix_on_text(model, [(3, 0)], [[1, 2, 3]])
    with pytest.raises(InputDataError, match="texts"):
        prefix_on_text(model, [(0, 0)], [])
