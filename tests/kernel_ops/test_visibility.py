"""What a `Mask` means, entry by entry: every reading of it in `interp_kernels.visibility` against the test-suite's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from kernel_cases import SMALL, case, problems
from kernel_definition import sees

from interp_kernels import dense_bias, visible_count, visible_rows
from interp_kernels.visibility import Span, hide_bits, row_bounds, visible, visible_at


def check(problem):
    batch, heads, queries, keys = sizes = problem.sizes
    mask, want = problem.mask, problem.seen
    whole = visible(mask, heads, queries, keys, Span(0, queries), Span(0, keys), "cpu")
    assert torch.equal(whole.expand_as(want), want)
    rows, cols = Span(queries // 3, queries), Span(keys // 4, max(keys // 4 + 1, keys - 1))
    part = visible(mask, heads, queries, keys, rows, cols, "cpu")
    shown = want[:, :, rows.start : rows.stop, cols.start : cols.stop]
    assert torch.equal(part.expand_as(shown), shown)
    i, j = torch.randint(0, queries, (19,)), torch.randint(0, keys, (19,))
    assert torch.equal(visible_at(mask, heads, queries, keys, i, j).expand(batch, heads, -1), want[:, :, i, j])
    assert torch.equal(visible_count(mask, *sizes, "cpu").expand(batch, heads, -1), want.sum(-1))
    counted = visible_rows(mask, problem.rows, *sizes, "cpu")
    assert torch.equal(
        counted.expand(batch, heads, -1, -1), (want[:, :, None] & problem.rows[:, None, :, :, None]).sum(-2)
    )
    shown = dense_bias(mask, *sizes, torch.float32, "cpu") > torch.finfo(torch.float32).min / 2
    assert torch.equal(shown.expand_as(want), want)


@pytest.mark.parametrize("name", SMALL)
def test_every_reading_of_a_mask_is_its_docstring(name):
    check(case(name))


@pytest.mark.medium
@settings(max_examples=150)
@given(problems())
def test_every_reading_of_any_mask_is_its_docstring(problem):
    check(problem)


@pytest.mark.parametrize("name", SMALL)
def test_one_item_and_one_head_of_a_mask(name):
    problem = case(name)
    batch, heads, queries, keys = problem.sizes
    for b, h in ((0, 0), (batch - 1, heads - 1)):
        assert torch.equal(sees(problem.mask.select(b, h), 1, 1, queries, keys)[0, 0], problem.seen[b, h])
    part = problem.mask.narrow(slice(0, batch), slice(heads // 2, heads))
    assert torch.equal(sees(part, batch, heads - heads // 2, queries, keys), problem.seen[:, heads // 2 :])


@pytest.mark.parametrize(
    "name",
    ["causal", "causal_offset", "causal_window", "full", "full_window", "full_offset", "causal_empty_first_rows"],
)
def test_bounds_of_plain_masks_are_the_visible_interval(name):
    problem = case(name)
    queries, keys = problem.sizes[2:]
    low, high = row_bounds(problem.mask, queries, keys, "cpu")
    j = torch.arange(keys)
    assert torch.equal((j >= low[:, None]) & (j < high[:, None]), problem.seen[0, 0])


def test_cut_edges_as_words():
    problem = case("hide_in_heads")
    batch, heads, queries, keys = problem.sizes
    rows, cols, chosen = hide_bits(problem.mask, heads, queries, keys, "cpu")
    cut = (rows[:, None, :, None] & cols[:, None, None, :] & chosen[None, :, None, None]) != 0
    assert torch.equal(~cut.expand(batch, -1, -1, -1), problem.seen)
    assert hide_bits(case("causal").mask, 2, 23, 23, "cpu") is None


def test_an_additive_mask_hides_by_value_and_adds_the_rest():
    problem = case("dense_bias_with_lowest_values")
    batch, heads, queries, keys = problem.sizes
    got = dense_bias(problem.mask, batch, heads, queries, keys, torch.float32, "cpu")
    low = torch.finfo(torch.float32).min
    assert torch.equal(got, torch.where(problem.seen, problem.mask.dense_bias, low))
