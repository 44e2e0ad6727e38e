"""`reference` against the test-suite's own definition, in float64 at 1e-10: every result of all four operations, and gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from kernel_cases import NAMES, SMALL, case, problems
from kernel_checks import ALL_COLUMNS, run_attention, run_columns, run_entries, run_tile
from kernel_definition import attend, column_sums, entry_map, pooled

import interp_kernels
from interp_kernels import BackendError, Collect, Mask
from interp_kernels.tile.api import bin_edges

TOLERANCE = 1e-10


def close(name, got, want, tolerance=TOLERANCE):
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance, equal_nan=False, msg=lambda m: f"{name}: {m}")


def check_attention(problem):
    wide = problem.cast(torch.float64)
    got, want = run_attention(wide, "reference"), attend(wide)
    results = {"out": got.out, "lse": got.lse, **got.stats}
    assert set(results) == set(want) - {"p"}
    for name, value in results.items():
        if (
            name == "topk_index"
        ):  # saturated soft-caps make ties up to the last bit: judged by the probability found there
            value, name = there(value, want["p"], problem.collect.topk_rows), "topk_prob"
        close(f"{problem.name}: {name}", value, want[name])


def there(index, p, rows):
    found = (p if rows is None else p[:, :, rows]).gather(-1, index.clamp(min=0))
    return found.masked_fill(index < 0, 0.0)


def check_columns(problem):
    wide = problem.cast(torch.float64)
    lse = attend(wide)["lse"]
    got, want = run_columns(wide, lse, "reference").stats, column_sums(wide, lse, wide.rows, ALL_COLUMNS)
    assert set(got) == set(want)
    for name, value in got.items():
        close(f"{problem.name}: {name}", value, want[name])


@pytest.mark.parametrize("name", [n if n in SMALL else pytest.param(n, marks=pytest.mark.medium) for n in NAMES])
def test_attention_is_the_definition(name):
    check_attention(case(name))


@pytest.mark.parametrize("name", SMALL[::3])
def test_columns_entries_and_tiles_are_the_definition(name):
    check_columns(case(name))
    wide = case(name).cast(torch.float64)
    lse = attend(wide)["lse"]
    p = entry_map(wide, lse)
    queries, keys = p.shape[2:]
    i, j = torch.randint(0, queries, (17,)), torch.randint(0, keys, (17,))
    close("entries", run_entries(wide, lse, i, j, "reference"), p[:, :, i, j])
    for pool in ("mean", "max"):
        got = run_tile(wide, lse, (0, queries), (0, keys), (3, 7), pool, "reference")
        close(
            pool, got, pooled(p, bin_edges(0, queries, 3, "cpu").tolist(), bin_edges(0, keys, 7, "cpu").tolist(), pool)
        )


@pytest.mark.medium
@settings(max_examples=100)
@given(problems())
def test_attention_and_columns_are_the_definition_for_any_combination(problem):
    check_attention(problem)
    check_columns(problem)


@pytest.mark.parametrize(
    "name",
    ["causal_empty_first_rows", "sink_logits_and_empty_rows", "edit_everything", "edit_everything_dense", "softcap"],
)
def test_gradients_are_those_of_the_definition(name):
    wide = case(name).cast(torch.float64)
    leaves = [x.clone().requires_grad_() for x in (wide.q, wide.k, wide.v)]
    q, k, v = leaves
    weight = torch.randn(3, *wide.q.shape[:3], 1, dtype=torch.float64)
    problem = replace(wide, q=q, k=k, v=v, collect=Collect(entropy=True))
    defined, attended = attend(problem), run_attention(problem, "reference")

    def gradients(out, lse, entropy):
        lse = lse.masked_fill(lse == -torch.inf, 0.0)
        loss = (out * weight[0]).sum() + (lse * weight[1, ..., 0]).sum() + (entropy * weight[2, ..., 0]).sum()
        return torch.autograd.grad(loss, leaves)

    want = gradients(defined["out"], defined["lse"], defined["entropy"])
    got = gradients(attended.out, attended.lse, attended.stats["entropy"])
    for label, a, b in zip("qkv", got, want, strict=True):
        close(f"d{label}", a, b)


def test_a_hand_worked_row():
    """Two visible keys with logits 0 and log 3: p = 1/4, 3/4."""
    q = torch.tensor([1.0, 1.0]).view(1, 1, 2, 1)
    k = torch.tensor([0.0, torch.log(torch.tensor(3.0))]).view(1, 1, 2, 1)
    v = torch.tensor([[8.0, 0.0], [0.0, 4.0]]).view(1, 1, 2, 2)
    collect = Collect(
        entropy=True,
        row_max=True,
        logit_moments=True,
        prob_square=True,
        distance=True,
        topk=2,
        windows=(1,),
        offsets=(1,),
    )
    got = interp_kernels.attention(q, k, v, mask=Mask.causal(), scale=1.0, collect=collect, backend="reference")
    log = torch.log(torch.tensor([3.0, 4.0], dtype=torch.float64))
    row = {name: value[0, 0, 1] for name, value in got.stats.items()}
    want = {
        "entropy": log[1] - 0.75 * log[0],
        "row_max": log[0],
        "logit_moments": torch.stack([-log[0], log[0] ** 2]),
        "prob_square": 0.625,
        "distance": 0.25,
        "topk_prob": [0.75, 0.25],
        "windows": [0.75],
        "offsets": [0.25],
    }
    for name, value in want.items():
        close(name, row[name], torch.as_tensor(value, dtype=torch.float64), 1e-6)
    assert row["topk_index"].tolist() == [1, 0]
    assert got.out[0, 0].tolist() == [[8.0, 0.0], [2.0, 3.0]]
    close("lse", got.lse[0, 0], torch.stack([0 * log[0], log[1]]), 1e-6)
    assert got.stats["topk_index"][0, 0, 0].tolist() == [0, -1]


def test_reference_refuses_a_map_that_is_too_large():
    x = torch.zeros(1, 1, 8193, 1)
    with pytest.raises(BackendError, match=r"67,125,249 entries are more than its 67,108,864"):
        interp_kernels.attention(x, x, x, mask=Mask.causal(), backend="reference")
