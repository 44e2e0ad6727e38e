"""`columns`, `entries` and `tile` on every backend that runs here, against the dense float64 map of the same lse, by the tolerance rule."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import SMALL, case, problems
from kernel_checks import (
    assert_columns,
    assert_entries,
    assert_tile,
    run_columns,
    run_entries,
    run_tile,
)
from kernel_definition import attend

from interp_kernels import Collect, ColumnCollect

FEW = ("causal", "full_window", "many_features", "documents_of_both_axes", "causal_empty_first_rows", "size_65_by_131")
SHAPES = [name for name in SMALL if name.startswith(("size", "one_", "decode", "features", "no_groups", "hot"))]


def lse_of(problem):
    """lse as a float32 backend would give it: `columns` and the others are judged given their input."""
    lse = attend(problem.wishing(Collect()))["lse"]
    return lse if problem.q.dtype == torch.float64 else lse.float()


def check_columns(problem, backend, collect):
    lse = lse_of(problem)
    assert_columns(problem, lse, run_columns(problem, lse, backend, collect).stats, collect)


@pytest.mark.parametrize("name", SMALL)
def test_columns(name, backend):
    check_columns(case(name), backend, ColumnCollect(received=True, diagonals=True, block=5, histogram=True))


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
@pytest.mark.parametrize("name", FEW)
def test_blocks_of_every_size(name, block, backend):
    check_columns(case(name), backend, ColumnCollect(received=False, block=block))


@pytest.mark.parametrize("field", ["received", "diagonals", "histogram"])
@pytest.mark.parametrize("name", FEW)
def test_each_field_of_columns_alone(name, field, backend):
    check_columns(case(name), backend, ColumnCollect(**{"received": False, field: True}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("name", FEW)
def test_columns_of_other_dtypes(name, dtype, backend):
    check_columns(case(name, dtype), backend, ColumnCollect(received=True, diagonals=True, block=5, histogram=True))


@pytest.mark.parametrize("name", SMALL)
def test_entries(name, backend):
    problem = case(name)
    lse = lse_of(problem)
    queries, keys = problem.sizes[2:]
    i, j = torch.randint(0, queries, (53,)), torch.randint(0, keys, (53,))
    assert_entries(problem, lse, i, j, run_entries(problem, lse, i, j, backend))


def test_no_entries(backend):
    problem = case("causal")
    none = torch.empty(0, dtype=torch.int64)
    assert run_entries(problem, lse_of(problem), none, none, backend).shape == (2, 6, 0)


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("name", SMALL)
def test_tiles_with_uneven_bins(name, pool, backend):
    problem = case(name)
    lse = lse_of(problem)
    queries, keys = problem.sizes[2:]
    whole = (0, queries), (0, keys)
    part = (queries // 3, queries), (keys // 5, max(keys // 5 + 1, keys - 2))
    for rows, cols in (whole, part):
        for size in ((3, 7), 64):
            got = run_tile(problem, lse, rows, cols, size, pool, backend)
            assert_tile(problem, lse, rows, cols, size, pool, got)


@pytest.mark.medium
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    problem=problems(), block=st.integers(1, 40), size=st.tuples(st.integers(1, 40), st.integers(1, 40)), data=st.data()
)
def test_any_combination(problem, block, size, data, backend):
    check_columns(problem, backend, ColumnCollect(received=True, diagonals=True, block=block, histogram=True))
    lse = lse_of(problem)
    ends = [
        tuple(sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))))
        for n in problem.sizes[2:]
    ]
    for pool in ("mean", "max"):
        assert_tile(problem, lse, *ends, size, pool, run_tile(problem, lse, *ends, size, pool, backend))
