"""`Summary`: merged summaries are those of the whole, whatever the split; mean, deviation, extremes and quantiles against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from interp.errors import ShapeError
from interp.stats import Summary
from interp.stats.declaration import NATS, POSITIVE, SIGNED, UNIT, Scale
from interp.stats.summary import BINS, bin_edges

SCALES = {"unit": UNIT, "nats": NATS, "positive": POSITIVE, "signed": SIGNED}
SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
FIELDS = ("count", "mean", "m2", "minimum", "maximum", "histogram")


def draw_values(scale, generator, shape):
    """Values all over a scale, some of them NaN."""
    if scale.kind == "linear":
        x = generator.uniform(scale.low, scale.high, shape)
    else:
        x = np.exp(generator.uniform(np.log(scale.low), np.log(scale.high), shape))
        if scale.kind == "signed":
            x = x * generator.choice([-1.0, 1.0], shape)
    return np.where(generator.random(shape) < 0.2, np.nan, x)


@st.composite
def values_and_cuts(draw):
    n = draw(st.integers(0, 40))
    number = st.one_of(st.floats(0, 1, width=32), st.just(float("nan")), st.floats(-2, 30, width=32))
    x = draw(arrays(np.float64, (2, 3, n), elements=number))
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=5)))
    return x, cuts


def fold(parts, scale):
    whole = Summary.of(parts[0], scale)
    for part in parts[1:]:
        whole = whole.merge(Summary.of(part, scale))
    return whole


@given(values_and_cuts(), st.sampled_from(list(SCALES)))
def test_any_split_merges_to_the_whole(case, name):
    x, cuts = case
    scale = SCALES[name]
    whole, merged = Summary.of(x, scale), fold(np.split(x, cuts, axis=-1), scale)
    for field in ("count", "minimum", "maximum", "histogram"):
        assert np.array_equal(getattr(whole, field), getattr(merged, field)), field
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(merged.m2, whole.m2, rtol=1e-9, atol=1e-9)
    for share in SHARES:
        np.testing.assert_array_equal(merged.quantile(share, scale), whole.quantile(share, scale))


@given(values_and_cuts(), st.randoms(use_true_random=False))
def test_the_order_matters_in_the_last_bits_only_and_one_order_gives_one_result(case, random):
    x, cuts = case
    parts = np.split(x, cuts, axis=-1)
    shuffled = list(parts)
    random.shuffle(shuffled)
    one, again, other = fold(parts, UNIT), fold(parts, UNIT), fold(shuffled, UNIT)
    for field in FIELDS:
        assert getattr(one, field).tobytes() == getattr(again, field).tobytes()
    np.testing.assert_allclose(other.mean, one.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(other.m2, one.m2, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", list(SCALES))
def test_moments_and_extremes_are_numpys(name):
    x = draw_values(SCALES[name], np.random.default_rng(3), (5, 7, 401))
    s = Summary.of(x, SCALES[name])
    assert s.count.shape == (5, 7) and s.count.dtype == np.int64
    assert np.array_equal(s.count, (~np.isnan(x)).sum(-1))
    np.testing.assert_allclose(s.mean, np.nanmean(x, -1), rtol=1e-12)
    np.testing.assert_allclose(s.std, np.nanstd(x, -1, ddof=1), rtol=1e-12)
    assert np.array_equal(s.minimum, np.nanmin(x, -1)) and np.array_equal(s.maximum, np.nanmax(x, -1))
    assert np.array_equal(s.histogram.sum(-1), s.count)


def test_a_large_common_offset_does_not_spoil_the_deviation():
    x = 1e6 + np.random.default_rng(0).normal(size=(1, 1009))
    parts = np.split(x, [100, 101, 500], axis=-1)
    scale = Scale(low=0.0, high=2e6)
    np.testing.assert_allclose(fold(parts, scale).std, x.std(-1, ddof=1), rtol=1e-9)


@pytest.mark.parametrize("name", list(SCALES))
def test_quantiles_are_numpys_to_one_bin(name):
    scale = SCALES[name]
    x = draw_values(scale, np.random.default_rng(5), (3, 997))
    edges = bin_edges(scale)
    s = fold(np.split(x, [11, 400], axis=-1), scale)
    for row in range(3):
        defined = x[row][~np.isnan(x[row])]
        for share in SHARES:
            got = s.quantile(share, scale)[row]
            # The smallest value that has at least this share at or below it; the margin is for share * count not being whole.
            low = np.quantile(defined, max(share - 1e-9, 0), method="inverted_cdf")
            high = np.quantile(defined, min(share + 1e-9, 1), method="inverted_cdf")
            floor = edges[max(np.searchsorted(edges, low, side="right") - 1, 0)]
            ceiling = edges[min(np.searchsorted(edges, high, side="right"), BINS)]
            assert floor <= got <= ceiling, (share, low, got, high)
    assert np.array_equal(s.quantile(0.0, scale), np.nanmin(x, -1))
    assert np.array_equal(s.quantile(1.0, scale), np.nanmax(x, -1))


def test_quantiles_of_negative_values_are_negative():
    x = -np.random.default_rng(1).uniform(3, 5, (1, 101))
    median = Summary.of(x, SIGNED).quantile(0.5, SIGNED)[0]
    assert median == pytest.approx(np.median(x), rel=0.08)


@pytest.mark.parametrize("name", list(SCALES))
def test_edges_are_sorted_and_as_fine_as_the_module_says(name):
    scale = SCALES[name]
    edges = bin_edges(scale)
    assert edges.shape == (BINS + 1,) and (np.diff(edges) > 0).all()
    assert edges[-1] == pytest.approx(scale.high)
    if scale.kind == "linear":
        np.testing.assert_allclose(np.diff(edges), (scale.high - scale.low) / 512)
    else:
        above = edges[edges >= scale.low * (1 - 1e-12)]
        assert (above[1:] / above[:-1] - 1).max() <= (0.056 if scale.kind == "log" else 0.074)
    if scale.kind == "signed":
        np.testing.assert_array_equal(edges, -edges[::-1])


def test_values_outside_the_scale_count_in_the_end_bins():
    s = Summary.of(np.array([[-3.0, 0.5, 7.0, 9.0]]), UNIT)
    assert (s.histogram[0, 0], s.histogram[0, 256], s.histogram[0, -1]) == (1, 1, 2)
    assert (s.minimum[0], s.maximum[0]) == (-3.0, 9.0)


def test_nothing_and_one_value():
    s = Summary.of(np.array([[np.nan, np.nan], [np.nan, 0.25]]), UNIT)
    assert s.count.tolist() == [0, 1]
    assert np.isnan(s.std).all() and np.isnan(s.quantile(0.5, UNIT)[0])
    assert s.quantile(0.5, UNIT)[1] == 0.25
    assert (s.minimum[0], s.maximum[0]) == (np.inf, -np.inf)
    empty = Summary.of(np.zeros((2, 0)), UNIT)
    assert empty.count.tolist() == [0, 0]
    for merged in (empty.merge(s), s.merge(empty)):
        for field in FIELDS:
            assert np.array_equal(getattr(merged, field), getattr(s, field))


def test_float32_is_summed_in_float64():
    x = np.full((1, 10_001), 0.1, dtype=np.float32)
    assert Summary.of(x, UNIT).mean[0] == pytest.approx(float(np.float32(0.1)), rel=1e-14)


def test_different_shapes_do_not_merge():
    with pytest.raises(ShapeError, match=r"\(2,\) and \(3,\)"):
        Summary.of(np.zeros((2, 5)), UNIT).merge(Summary.of(np.zeros((3, 5)), UNIT))
