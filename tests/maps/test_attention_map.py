"""`AttentionMap` against the dense map in float64: slices, rows, largest keys, received mass, pooled tiles; and its limit on size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import ShapeError, TooLargeError
from interp.maps import DENSE_LIMIT, AttentionMap, MapSource
from interp_kernels import Mask

QUERIES, KEYS, SIZE = 17, 23, 5


def allowed(mask, queries, keys):
    """Bool [Nq, Nk], pair by pair from what the masks of this file mean."""
    offset = mask.offset if mask.offset is not None else (keys - queries if mask.is_causal else 0)
    seen = torch.zeros(queries, keys, dtype=torch.bool)
    for i in range(queries):
        for j in range(keys):
            far = i + offset - j
            ok = far >= 0 or not mask.is_causal
            ok = ok and (mask.window is None or abs(far) < mask.window)
            ok = ok and j >= (0 if mask.left is None else int(mask.left[0]))
            seen[i, j] = ok
    return seen


def make(mask, *, queries=QUERIES, keys=KEYS, softcap=None, sink=None, seed=0, dtype=torch.float32):
    """A map of random queries and keys, and the same map dense in float64."""
    generator = torch.Generator().manual_seed(seed)
    q = 1.7 * torch.randn(1, 1, queries, SIZE, generator=generator)
    k = 1.7 * torch.randn(1, 1, keys, SIZE, generator=generator)
    scale = 0.61
    scores = q[0, 0].double() @ k[0, 0].double().T * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    columns = scores.masked_fill(~allowed(mask, queries, keys), -torch.inf)
    if sink is not None:
        columns = torch.cat([columns, torch.full((queries, 1), sink, dtype=torch.float64)], 1)
    lse = columns.logsumexp(1)
    dense = (columns[:, :keys] - lse[:, None]).exp().nan_to_num()
    source = MapSource(
        q=q.to(dtype), k=k.to(dtype), lse=lse[None, None].float(), mask=mask, scale=scale, softcap=softcap
    )
    return AttentionMap(source, layer=3, head=1), dense


CASES = {
    "full": {"mask": Mask.full()},
    "causal": {"mask": Mask.causal(offset=KEYS - QUERIES)},
    "window": {"mask": Mask.causal(offset=KEYS - QUERIES, window=4)},
    "two-sided window": {"mask": Mask.full(window=3)},
    "soft-cap": {"mask": Mask.causal(offset=KEYS - QUERIES), "softcap": 2.5},
    "learned sink": {"mask": Mask.causal(offset=KEYS - QUERIES), "sink": 1.3},
    "left padding": {"mask": Mask.causal(offset=KEYS - QUERIES).padded(left=torch.tensor([3]))},
}


@pytest.fixture(scope="module", params=list(CASES))
def pair(request):
    return make(**CASES[request.param])


@pytest.fixture(scope="module")
def causal():
    return make(Mask.causal(), queries=KEYS, keys=KEYS)


def close(got, want, tolerance=2e-6):
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, rtol=0, atol=tolerance)


def unchecked(method):
    """The method without the test-suite's check of argument types, which users do not have."""
    return getattr(method, "__wrapped__", method)


def test_the_dense_map(pair):
    amap, dense = pair
    assert amap.shape == (QUERIES, KEYS)
    close(amap.dense(), dense)
    close(amap.received(), dense.sum(0), tolerance=1e-5)


@pytest.mark.parametrize(
    "index",
    [
        (slice(2, 9), slice(5, 19)),
        (slice(None), slice(None)),
        (slice(-4, None), slice(None, -6)),
        (slice(1, 16, 3), slice(0, 23, 5)),
        (slice(5, 99), slice(-99, 4)),
        (4, slice(2, 7)),
        (slice(2, 7), 4),
        (4, 9),
        (-1, -1),
        (-3, slice(None, None, 2)),
        (7, slice(9, 9)),
        (slice(9, 2), slice(None)),
        (slice(4, 4), 3),
        (slice(1, 16, 3), slice(5, 5)),
        5,
        -2,
        slice(3, 8),
        slice(None, None, 4),
    ],
    ids=repr,
)
def test_slices_are_those_of_torch(pair, index):
    amap, dense = pair
    close(amap[index], dense[index])


@pytest.mark.parametrize("index", [(17, 0), (0, 23), (-18, 0), 17, (slice(None), -24)])
def test_numbers_outside_the_map_are_refused(pair, index):
    with pytest.raises(ShapeError, match="outside an axis"):
        pair[0][index]


def test_other_indices_are_refused(pair):
    amap, _ = pair
    with pytest.raises(ShapeError, match="2 axes"):
        unchecked(AttentionMap.__getitem__)(amap, (1, 2, 3))
    with pytest.raises(ShapeError, match="positive step"):
        amap[::-1]


def test_rows(causal):
    amap, dense = causal
    for i in (0, 11, KEYS - 1, -2):
        close(amap.row(i), dense[i])
    with pytest.raises(ShapeError):
        amap.row(KEYS)


def test_the_largest_keys_of_a_row(causal):
    amap, dense = causal
    top = amap.top(15, 4)
    order = sorted(range(KEYS), key=lambda j: -float(dense[15, j]))[:4]
    assert [j for j, _ in top] == order
    assert [w for _, w in top] == pytest.approx([float(dense[15, j]) for j in order], abs=1e-6)
    assert amap.top(2, 9) == amap.top(2, 3) and len(amap.top(2, 9)) == 3, "a row that sees 3 keys has no fourth"
    assert amap.top(0, 5) == [(0, pytest.approx(1.0))]
    assert amap.top(4, 0) == amap.top(4, -1) == []


def test_ties_go_to_the_lowest_key():
    q, k = torch.ones(1, 1, 4, 2), torch.ones(1, 1, 4, 2)
    k[0, 0, 2] = 2.0
    scores = torch.tensor([2.0, 2.0, 4.0, 2.0]).double()
    lse = torch.stack([scores[: i + 1].logsumexp(0) for i in range(4)])
    amap = AttentionMap(
        MapSource(q=q, k=k, lse=lse[None, None].float(), mask=Mask.causal(), scale=1.0, softcap=None), layer=0, head=0
    )
    assert [j for j, _ in amap.top(3, 3)] == [2, 0, 1]


# ---------------------------------------------------------------------- pooled tiles
def pooled(dense, rows, cols, height, width, pool):
    """Pixel (y, x) covers rows a + floor(y n / h) up to a + floor((y + 1) n / h), and so for columns."""
    (a, b), (c, d) = rows, cols
    h, w = min(height, b - a), min(width, d - c)
    out = torch.zeros(h, w, dtype=torch.float64)
    for y in range(h):
        for x in range(w):
            cells = dense[
                a + y * (b - a) // h : a + (y + 1) * (b - a) // h, c + x * (d - c) // w : c + (x + 1) * (d - c) // w
            ]
            out[y, x] = cells.mean() if pool == "mean" else cells.max()
    return out


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("size", [3, 5, (4, 7), (7, 2), 1, 256, (17, 23)])
def test_tiles_with_uneven_bins(pair, pool, size):
    amap, dense = pair
    height, width = (size, size) if isinstance(size, int) else size
    for rows, cols in [((0, QUERIES), (0, KEYS)), ((3, 14), (6, 23)), ((16, 17), (0, 1))]:
        close(amap.tile(rows, cols, size, pool), pooled(dense, rows, cols, height, width, pool))


def test_a_tile_by_hand():
    # All keys alike: row i of a causal map is 1 / (i + 1) up to the diagonal.
    q, k = torch.zeros(1, 1, 7, 2), torch.zeros(1, 1, 7, 2)
    lse = torch.arange(1, 8).float().log()[None, None]
    amap = AttentionMap(MapSource(q=q, k=k, lse=lse, mask=Mask.causal(), scale=1.0, softcap=None), layer=0, head=0)
    # Seven rows in three bins: rows 0-1, 2-3, 4-6; seven keys in two bins: keys 0-2, 3-6.
    want = torch.tensor(
        [
            [(1 + 1 / 2 * 2) / 6, 0],
            [(3 / 3 + 3 / 4) / 6, (1 / 4) / 8],
            [(3 / 5 + 3 / 6 + 3 / 7) / 9, (2 / 5 + 3 / 6 + 4 / 7) / 12],
        ]
    )
    torch.testing.assert_close(amap.tile((0, 7), (0, 7), (3, 2)), want, rtol=0, atol=1e-6)
    largest = torch.tensor([[1, 0], [1 / 3, 1 / 4], [1 / 5, 1 / 5]])
    torch.testing.assert_close(amap.tile((0, 7), (0, 7), (3, 2), "max"), largest, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "cols", "size"),
    [((3, 3), (0, 4), 5), ((5, 3), (0, 4), 5), ((0, 18), (0, 4), 5), ((0, 4), (-1, 4), 5), ((0, 4), (0, 24), 5),
     ((0, 4), (0, 4), 0)],
)  # fmt: skip
def test_tiles_outside_the_map_are_refused(pair, rows, cols, size):
    with pytest.raises(ValueError, match="wanted"):
        pair[0].tile(rows, cols, size)


def test_an_unknown_pool_is_refused(causal):
    with pytest.raises(ValueError, match="mean, max"):
        unchecked(AttentionMap.tile)(causal[0], (0, 4), (0, 4), 2, "median")


@given(st.data())
def test_any_rectangle_pools_as_the_dense_map_does(data):
    amap, dense = make(Mask.causal(offset=4, window=9), queries=13, keys=19, seed=data.draw(st.integers(0, 3)))
    a, b = sorted(data.draw(st.lists(st.integers(0, 13), min_size=2, max_size=2, unique=True)))
    c, d = sorted(data.draw(st.lists(st.integers(0, 19), min_size=2, max_size=2, unique=True)))
    size = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    pool = data.draw(st.sampled_from(["mean", "max"]))
    close(amap.tile((a, b), (c, d), size, pool), pooled(dense, (a, b), (c, d), *size, pool))
    close(amap[a:b, c:d], dense[a:b, c:d])


# ---------------------------------------------------------------------- what is too large
def test_large_parts_are_refused_unless_forced():
    n = 4099
    assert n * n > DENSE_LIMIT == 2**24
    q = torch.zeros(1, 1, n, 1)
    lse = torch.arange(1, n + 1).float().log()[None, None]
    amap = AttentionMap(MapSource(q=q, k=q, lse=lse, mask=Mask.causal(), scale=1.0, softcap=None), layer=0, head=0)
    for use in (amap.dense, lambda: amap[:], lambda: amap[::7, ::7]):
        with pytest.raises(TooLargeError, match=r"16,801,801 cells .*force=True"):
            use()
    assert amap[-3:].shape == (3, n)
    assert float(amap[n - 1, 0]) == pytest.approx(1 / n, rel=1e-5)
    assert amap.tile((0, n), (0, n), (2, 2)).shape == (2, 2)
    whole = amap.dense(force=True)
    assert whole.shape == (n, n)
    torch.testing.assert_close(whole.sum(1), torch.ones(n), rtol=0, atol=1e-4)


def test_tokens_and_repr(causal):
    source = causal[0].source
    amap = AttentionMap(source, layer=3, head=1, row_tokens=("a",), col_tokens=None)
    assert (amap.row_tokens, amap.col_tokens) == (["a"], None)
    assert repr(amap) == "AttentionMap(layer=3, head=1, shape=(23, 23))"


def test_bfloat16_queries_and_keys_give_the_map_of_their_rounded_values():
    amap, _ = make(Mask.causal(), queries=KEYS, keys=KEYS, dtype=torch.bfloat16)
    source = amap.source
    q, k = source.q[0, 0].double(), source.k[0, 0].double()
    scores = (q @ k.T * source.scale).masked_fill(~torch.ones(KEYS, KEYS, dtype=torch.bool).tril(), -torch.inf)
    want = (scores - source.lse[0, 0].double()[:, None]).exp()
    torch.testing.assert_close(amap.dense().double(), want, rtol=0, atol=1e-5)
