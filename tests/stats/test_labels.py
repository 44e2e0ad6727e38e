"""Labels of tokens before attention: padding, positional key sets, previous ids, repeats; by loops over each text."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.stats.labels import TokenLabels


@st.composite
def batches(draw):
    """Ids of a small vocabulary with padding on the left and on the right of every text."""
    length = draw(st.integers(1, 13))
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        real = draw(st.integers(1, length))
        left = draw(st.integers(0, length - real))
        ids = draw(st.lists(st.integers(0, 3), min_size=real, max_size=real))
        rows.append((left, ids))
    return length, rows


def label(length, rows):
    ids = torch.full((len(rows), length), 3)
    real = torch.zeros(len(rows), length, dtype=torch.bool)
    for b, (left, text) in enumerate(rows):
        ids[b, left : left + len(text)] = torch.tensor(text)
        real[b, left : left + len(text)] = True
    return TokenLabels.of(ids, real), real


@given(batches())
def test_labels_by_loops(case):
    length, rows = case
    labels, real = label(length, rows)
    assert torch.equal(labels.real, real)
    assert labels.left.tolist() == [left for left, _ in rows]
    assert labels.lengths.tolist() == [len(text) for _, text in rows]
    previous, repeated = labels.previous_ids(), labels.repeated()
    for b, (left, text) in enumerate(rows):
        for j in range(length):
            rank = j - left
            inside = 0 <= rank < len(text)
            assert labels.ids[b, j] == (text[rank] if inside else -1)
            assert bool(labels.sets["first_token"][b, j]) == (rank == 0)
            assert bool(labels.sets["first_four"][b, j]) == (inside and rank < 4)
            if inside:
                assert previous[b, j] == (text[rank - 1] if rank else -1)
            assert bool(repeated[b, j]) == (inside and text[rank] in text[:rank])


def test_named_sets_are_added():
    ids = torch.tensor([[5, 6, 7]])
    mine = torch.tensor([[False, True, False]])
    labels = TokenLabels.of(ids, torch.ones_like(ids, dtype=torch.bool), {"special": mine})
    assert set(labels.sets) == {"first_token", "first_four", "special"}
    assert torch.equal(labels.sets["special"], mine)


def test_blank_labels_have_positions_and_no_tokens():
    labels = TokenLabels.blank(2, 6, torch.device("cpu"))
    assert labels.real.all() and (labels.ids == -1).all() and not labels.repeated().any()
    assert labels.sets["first_four"].sum(1).tolist() == [4, 4]
    assert set(labels.sets) == {"first_token", "first_four"}


def test_inputs_are_left_alone():
    ids = torch.tensor([[5, 6, 7, 0]])
    real = torch.tensor([[True, True, True, False]])
    TokenLabels.of(ids, real)
    assert ids.tolist() == [[5, 6, 7, 0]]
