"""Laws that hold between results whatever the backend: sums, complements, splits of keys and of queries, order of heads, ties."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from kernel_cases import case, make
from kernel_checks import run_attention, run_columns, run_entries, run_tile

import interp_kernels
from interp_kernels import Collect, ColumnCollect, Mask, row_blocks

PLAIN = (
    *("causal", "full", "one_row", "one_key", "one_by_one", "no_groups", "scale_of_zero", "hot_logits"),
    *("one_feature", "odd_features", "wider_values", "size_63_by_65", "size_65", "features_128"),
)
NAMES = ("causal", "full_window", "many_features", "size_65_by_131", "hot_logits", "causal_empty_first_rows")
SUMS = ColumnCollect(received=True, diagonals=True, block=7, histogram=True)


def close(got, want, tolerance=2e-5):
    torch.testing.assert_close(
        got, torch.as_tensor(want, dtype=got.dtype).expand_as(got), rtol=tolerance, atol=tolerance
    )


def whole(problem, backend, collect=None):
    return run_attention(problem.wishing(Collect() if collect is None else collect), backend)


@pytest.mark.parametrize("name", NAMES)
def test_sums_over_columns_diagonals_bins_and_blocks_count_the_rows(name, backend):
    problem = case(name)
    lse = whole(problem, backend).lse
    stats = run_columns(problem, lse, backend, SUMS).stats
    full = (lse > -torch.inf).to(lse.dtype)
    rows = (problem.rows[:, None] * full[:, :, None]).sum(-1)
    for field in ("received", "diagonals", "histogram_mass"):
        close(stats[field].sum(-1), rows)
    lines = torch.nn.functional.pad(full, (0, -full.shape[-1] % 7)).unflatten(-1, (-1, 7)).sum(-1)
    close(stats["block_sum"].sum(-1), lines)
    assert bool((stats["block_max"] <= stats["block_sum"] * (1 + 1e-6)).all())
    visible = (problem.seen[:, :, None] & problem.rows[:, None, :, :, None]).sum((-2, -1))
    assert bool((stats["histogram_count"].sum(-1) <= visible).all())


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_and_its_complement_share_one_row(name, backend):
    """exp(lse_M - lse) is the mass on M: hidden and shown keys add up to one, and each is the mass of the key set."""
    problem = case(name)
    keys = problem.sizes[3]
    inside = torch.rand(keys) < 0.4
    rows = torch.ones(problem.sizes[2], dtype=torch.bool)
    got = whole(problem, backend, Collect(key_sets=torch.stack([inside, ~inside])))
    full = got.lse > -torch.inf
    masses = []
    for hidden in (~inside, inside):
        part = run_attention(replace(problem, mask=problem.mask.hide(rows, hidden)).wishing(Collect()), backend)
        masses.append(torch.exp(part.lse - got.lse.masked_fill(~full, 0.0)))
    close(masses[0] + masses[1], full.to(got.lse.dtype), 1e-4)
    close(got.stats["key_sets"], torch.stack(masses, -1), 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_rest_is_what_remains_when_the_keys_are_hidden(name, backend):
    problem = case(name)
    out = torch.rand(problem.sizes[3]) < 0.3
    rows = torch.ones(problem.sizes[2], dtype=torch.bool)
    got = whole(problem, backend, Collect(rest=out, key_sets=~out[None]))
    alone = run_attention(replace(problem, mask=problem.mask.hide(rows, out)).wishing(Collect(entropy=True)), backend)
    close(got.stats["rest_entropy"], alone.stats["entropy"], 1e-4)
    close(got.stats["rest_mass"], got.stats["key_sets"][..., 0], 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_entropy_is_lse_minus_the_mean_logit(name, backend):
    problem = case(name)
    got = whole(problem, backend, Collect(entropy=True))
    wide = case(name, torch.float64)
    mean = interp_kernels.attention(
        wide.q, wide.k, wide.k, backend="reference", **{**wide.map_options(), "mask": problem.mask}
    )
    if problem.mask.alibi_slopes is None:
        logit = (wide.q * mean.out).sum(-1) * wide.q.shape[-1] ** -0.5
        close(got.stats["entropy"].double(), torch.where(mean.lse > -torch.inf, mean.lse - logit, 0.0), 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_two_halves_of_the_keys_merge_into_the_whole(name, backend):
    """With w = exp(lse_half - lse): out = sum w out_half, entropy = sum w (entropy_half - log w), masses = sum w masses_half."""
    problem = case(name)
    queries, keys = problem.sizes[2:]
    first = torch.arange(keys) < keys // 3
    rows = torch.ones(queries, dtype=torch.bool)
    wish = Collect(
        entropy=True,
        prob_square=True,
        distance=True,
        key_sets=problem.collect.key_sets,
        windows=(3,),
        row_max=True,
        logit_moments=True,
    )
    got = whole(problem, backend, wish)
    halves = [
        run_attention(replace(problem, mask=problem.mask.hide(rows, hidden)).wishing(wish), backend)
        for hidden in (first, ~first)
    ]
    lse = torch.logsumexp(torch.stack([h.lse for h in halves]), 0)
    some = got.lse > -torch.inf
    close(torch.where(some, lse, 0.0), torch.where(some, got.lse, 0.0))
    w = [torch.exp(h.lse - lse.masked_fill(~some, 0.0)) for h in halves]
    close(sum(a[..., None] * h.out for a, h in zip(w, halves, strict=True)), got.out)
    surprise = [torch.where(a > 0, -torch.log(a), 0.0) for a in w]
    close(
        sum(a * (h.stats["entropy"] + b) for a, b, h in zip(w, surprise, halves, strict=True)),
        got.stats["entropy"],
        1e-4,
    )
    close(sum(a**2 * h.stats["prob_square"] for a, h in zip(w, halves, strict=True)), got.stats["prob_square"])
    close(sum(a * h.stats["distance"] for a, h in zip(w, halves, strict=True)), got.stats["distance"], 1e-4)
    for field in ("key_sets", "windows"):
        close(sum(a[..., None] * h.stats[field] for a, h in zip(w, halves, strict=True)), got.stats[field])
    close(torch.maximum(*(h.stats["row_max"] for h in halves)), got.stats["row_max"])


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_know_each_other(name, backend):
    """The first and the last rows of a call are the same as calls of their own, with the offset moved."""
    problem = case(name)
    queries, keys = problem.sizes[2:]
    cut = queries // 3
    wish = Collect(entropy=True, prob_square=True, distance=True, windows=(3,), offsets=(0, 2), topk=2)
    got = whole(problem, backend, wish)
    offset = problem.mask.resolved_offset(queries, keys)
    if problem.mask.hidden or problem.mask.query_documents is not None or problem.mask.block_keep is not None:
        mask = problem.mask.crop(cut, keys, of=(queries, keys))
        part = run_attention(replace(problem, q=problem.q[:, :, :cut], mask=mask).wishing(wish), backend)
        pairs = [(part, slice(0, cut))]
    else:
        pairs = []
        for rows in (slice(0, cut), slice(cut, queries)):
            mask = replace(problem.mask, offset=offset + rows.start)
            part = run_attention(replace(problem, q=problem.q[:, :, rows], mask=mask).wishing(wish), backend)
            pairs.append((part, rows))
    for part, rows in pairs:
        close(part.out, got.out[:, :, rows])
        for field, value in part.stats.items():
            if field != "topk_index":
                close(value, got.stats[field][:, :, rows])


def test_ties_go_to_the_lowest_index(backend):
    """Small integer logits are exact in every precision, so equal ones are ties to the last bit."""
    g = torch.Generator().manual_seed(5)
    q = torch.randint(-2, 3, (2, 6, 23, 4), generator=g).float()
    k = torch.randint(-2, 3, (2, 3, 71, 4), generator=g).float()
    problem = make("ties", Mask.causal(window=67), queries=23, keys=71, features=4, scale=0.5)
    for width, rows in ((1, None), (5, None), (64, torch.tensor([22, 0, 7, 7]))):
        problem = replace(problem, q=q, k=k, collect=Collect(topk=width, topk_rows=rows))
        got = run_attention(problem, backend).stats["topk_index"]
        want = run_attention(problem, "reference").stats["topk_index"]
        assert torch.equal(got, want)
    equal = replace(problem, q=torch.zeros_like(q), collect=Collect(topk=5))
    got = run_attention(equal, backend).stats["topk_index"]
    first = (torch.arange(23) + 48 - 66).clamp(min=0)
    assert torch.equal(got, (first[:, None] + torch.arange(5)).expand_as(got))


def test_entries_and_tiles_of_cells_are_the_same_numbers(backend):
    problem = case("size_65_by_131")
    lse = whole(problem, backend).lse
    picture = run_tile(problem, lse, (11, 41), (60, 120), 64, "max", backend)
    i, j = torch.meshgrid(torch.arange(11, 41), torch.arange(60, 120), indexing="ij")
    found = run_entries(problem, lse, i.flatten(), j.flatten(), backend)
    close(picture.flatten(2), found, 1e-6)


@pytest.mark.parametrize("entries", [1, 700, 40_000])
@pytest.mark.parametrize(
    "name",
    [
        "many_features",
        "edit_everything",
        "sink_window_per_head",
        "causal_window",
        "documents_foreign",
        "prefix_after_padding",
    ],
)
def test_portable_gives_the_same_whatever_its_blocks(name, entries, monkeypatch):
    problem = case(name, torch.float64)
    want, lse = run_attention(problem, "portable"), run_attention(problem, "reference").lse
    sums = run_columns(problem, lse, "portable", SUMS).stats
    picture = run_tile(problem, lse, (1, 12), (2, 29), (4, 5), "max", "portable")
    monkeypatch.setattr(row_blocks, "ENTRIES_PER_THREAD", entries)
    got = run_attention(problem, "portable")
    for field, value in {"out": got.out, "lse": got.lse, **got.stats}.items():
        close(value, {"out": want.out, "lse": want.lse, **want.stats}[field], 1e-12)
    for field, value in run_columns(problem, lse, "portable", SUMS).stats.items():
        close(value, sums[field], 1e-12)
    close(run_tile(problem, lse, (1, 12), (2, 29), (4, 5), "max", "portable"), picture, 1e-12)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_out_and_lse_alone_are_those_of_the_full_sweep(name, dtype, backend):
    """Nothing asked for may take a fused path of its own."""
    problem = case(name, dtype)
    problem = replace(problem, scale=-0.3) if name == "causal" else problem
    alone, swept = whole(problem, backend), run_attention(problem, backend)
    close(alone.lse, swept.lse)
    close(alone.out.float(), swept.out.float(), 2e-5 if dtype == torch.float32 else 2e-2)
