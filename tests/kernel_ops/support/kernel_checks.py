"""How a backend is run and judged in the kernel tests: which path ran, the tolerance rule, and the truths it is compared with.

The rule: a backend's error against the float64 `reference` is at most twice the error of the dense formula in the same
precision (the worst over orders of its operations that are equal in exact arithmetic), plus a floor of 4 eps of the
largest value (of 1, if that is larger, for logarithms), the rounding of the result itself; numbers that the dtype cannot
hold are 0. Only `portable` gets more, for what its docstrings own up to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import pytest
import torch
from kernel_definition import MORE_ORDERS, ORDERS, Order, attend, column_sums, entry_map, logits, pooled
from torch import Tensor

import interp_kernels
from interp_kernels import BackendError, ColumnCollect, dispatch
from interp_kernels.attention import api as attention_api

TIMES = 2
FLOOR = 4
# Logarithms of sums that may be 1: their rounding is eps of 1, however small they are.
LOGARITHMS = ("lse", "entropy", "rest_entropy")
# Of an absolute error that its docstring owns up to (attention/block_statistics.py, Rest).
PORTABLE_EPS = {"rest_entropy": 16}
ALL_COLUMNS = ColumnCollect(received=True, diagonals=True, block=5, histogram=True)


# ---------------------------------------------------------------------- running
def run_attention(case, backend: str):
    """`attention` on `case`, with the proof that `backend` ran; skips, saying why, where it refuses the case."""
    return _run("attention", interp_kernels.attention, backend, lambda got: got.backend, **case.attention_arguments())


def run_columns(case, lse: Tensor, backend: str, collect: ColumnCollect = ALL_COLUMNS):
    """`columns` on the case's row subsets, as `run_attention`."""
    return _run(
        "columns",
        interp_kernels.columns,
        backend,
        lambda got: got.backend,
        case.q,
        case.k,
        lse,
        rows=case.rows,
        collect=collect,
        **case.map_options(),
    )


def run_entries(case, lse: Tensor, i: Tensor, j: Tensor, backend: str) -> Tensor:
    """`entries`, as `run_attention`."""
    return _run("entries", interp_kernels.entries, backend, None, case.q, case.k, lse, i, j, **case.map_options())


def run_tile(case, lse: Tensor, rows, cols, size, pool: str, backend: str) -> Tensor:
    """`tile`, as `run_attention`."""
    return _run(
        "tile", interp_kernels.tile, backend, None, case.q, case.k, lse, rows, cols, size, pool, **case.map_options()
    )


def _run(operation: str, function, backend: str, said, *args, **kwargs):
    before = dispatch.launches.copy()
    try:
        got = function(*args, backend=backend, **kwargs)
    except BackendError as refusal:
        pytest.skip(str(refusal))
    assert dispatch.launches - before == {(operation, backend): 1}, f"wanted one launch of {operation} on {backend}"
    assert said is None or said(got) == backend
    return got


def available(backend: str) -> tuple[bool, str]:
    """Whether a backend serves the simplest call of attention here, and if not, why."""
    q = torch.randn(1, 1, 2, 16)
    call = attention_api.attention_call(
        q, q, q, mask=interp_kernels.Mask.causal(), scale=None, softcap=None, sink_logits=None, edit=None, collect=None
    )
    try:
        verdict = dispatch.verdicts({backend: attention_api.IMPLEMENTATIONS[backend]}, call)[0]
    except ModuleNotFoundError as missing:
        return False, f"the module of backend {backend} does not exist: {missing}"
    return verdict.ok, verdict.reason


# ---------------------------------------------------------------------- truths
class Noise:
    """Errors of the dense formula in the same precision against the truth, by name of the result."""

    def __init__(self, want: dict[str, Tensor], dense: Callable[[Order], dict[str, Tensor]]) -> None:
        self.want, self.dense, self.errors = want, dense, {}

    def worst(self, name: str, orders: tuple[Order, ...]) -> float:
        """The worst over some orders of the formula's operations."""
        for order in orders:
            if order not in self.errors:
                got = self.dense(order)
                self.errors[order] = {n: worst_error(got[n], w) for n, w in self.want.items()}
        return max(self.errors[order][name] for order in orders)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What a kernel must give for one case: float64 values, the noise of the same-precision dense formula, and how many times it may err by that."""

    want: dict[str, Tensor]
    noise: Noise
    times: float = TIMES

    @staticmethod
    def of(want: dict[str, Tensor], dense: Callable[[Order], dict[str, Tensor]]) -> Truth:
        """The truth `want`, with the noise of `dense`."""
        return Truth(want=want, noise=Noise(want, dense))

    def judge(self, case, name: str, got: Tensor, label: str | None = None, extra: float = 0.0) -> None:
        """Hold one result to the tolerance rule."""
        label = f"{case.name}: {label or name}"
        if name in LOGARITHMS and bool(self.want[name].isfinite().any()):
            short = 1.0 - float(self.want[name][self.want[name].isfinite()].abs().max())
            extra += FLOOR * torch.finfo(got.dtype).eps * max(0.0, short)
        try:
            assert_within(label, got, self.want[name], self.noise.worst(name, ORDERS), extra, self.times)
        except AssertionError:
            # In a small problem a few numbers are a poor sample of the noise: look at more before judging.
            assert_within(label, got, self.want[name], self.noise.worst(name, MORE_ORDERS), extra, self.times)


@lru_cache(maxsize=256)
def truth_of(case, *, reference: bool = True) -> Truth:
    """The truth of `attention` in float64: of `reference`, or of the suite's own definition."""
    wide = case.cast(torch.float64)
    if reference:
        got = interp_kernels.attention(**wide.attention_arguments(), backend="reference")
        want = {"out": got.out, "lse": got.lse, **got.stats}
    else:
        want = attend(wide)
    return Truth.of(want, lambda order: attend(case, working(case), order))


def working(case) -> torch.dtype:
    """The dtype in which a kernel keeps its sums for this case."""
    return torch.float64 if case.q.dtype == torch.float64 else torch.float32


def worst_error(got: Tensor, want: Tensor) -> float:
    """Largest absolute difference where `want` is finite (0 where nothing is)."""
    finite = want.isfinite()
    return float((got.double() - want.double())[finite].abs().max()) if bool(finite.any()) else 0.0


# ---------------------------------------------------------------------- judging
def assert_within(
    name: str, got: Tensor, want: Tensor, dense_error: float, extra: float = 0.0, times: float = TIMES
) -> None:
    """The tolerance rule. Prints the name, the worst index, and both values there; -inf must stand exactly where it is wanted; no NaN."""
    assert got.shape == want.shape, f"{name}: wanted shape {tuple(want.shape)}, got {tuple(got.shape)}"
    assert not got.isnan().any(), (
        f"{name}: NaN at {_first(got.isnan())} (of {int(got.isnan().sum())}), wanted {want[_first(got.isnan())]}"
    )
    finite = want.isfinite()
    strange = torch.where(finite, ~got.isfinite(), got.double() != want.double())
    assert not strange.any(), f"{name}: at {_first(strange)} got {got[_first(strange)]}, wanted {want[_first(strange)]}"
    if not bool(finite.any()):
        return
    error = torch.where(finite, got.double() - want.double(), torch.zeros_like(want, dtype=torch.float64)).abs()
    largest = float(want[finite].abs().max())
    limits = torch.finfo(got.dtype)
    allowed = times * dense_error + FLOOR * (limits.eps * largest + limits.tiny) + extra
    worst = tuple(int(x) for x in torch.unravel_index(error.argmax(), error.shape))
    assert float(error.max()) <= allowed, (
        f"{name}: worst at {worst}: got {got[worst].item():.9g}, wanted {want[worst].item():.9g}; "
        f"error {float(error.max()):.3g}, allowed {allowed:.3g} "
        f"(dense in the same precision errs by {dense_error:.3g}, largest value {largest:.3g})"
    )


def assert_attended(case, got, truth: Truth, backend: str) -> None:
    """Judge every result of one `Attended`: who made it, names, dtypes, values."""
    assert got.backend == backend
    results = {"out": got.out, "lse": got.lse, **got.stats}
    assert set(results) == set(truth.want) - {"p"}, f"wanted the results {sorted(truth.want)}, got {sorted(results)}"
    for name, value in results.items():
        if name != "topk_index":
            assert value.dtype == (case.q.dtype if name == "out" else working(case)), f"{name}: got {value.dtype}"
            extra = _allowed_to_portable(case, name, value.dtype) if backend == "portable" else 0.0
            truth.judge(case, name, value, extra=extra)
    if case.collect.topk:
        assert_topk(case, got.stats["topk_index"], got.stats["topk_prob"], truth)


def _allowed_to_portable(case, name: str, dtype: torch.dtype) -> float:
    """What its docstrings own up to: PORTABLE_EPS, and 8 eps max|s| for an entropy that is asked for alone."""
    eps = torch.finfo(dtype).eps
    if name == "entropy" and replace(case.collect, entropy=False).is_empty:
        s, seen = logits(case, torch.float64)
        return 8 * eps * float(s[seen].abs().max()) if bool(seen.any()) else 0.0
    return PORTABLE_EPS.get(name, 0) * eps


def assert_topk(case, index: Tensor, prob: Tensor, truth: Truth) -> None:
    """Each index is a visible key whose true probability is the k-th within the rule; no key twice; fill is -1 and 0."""
    assert index.dtype == torch.int64
    want_index, want_prob = truth.want["topk_index"], truth.want["topk_prob"]
    assert torch.equal(index < 0, want_index < 0), f"{case.name}: topk_index is filled with -1 in the wrong places"
    rows = case.collect.topk_rows if case.collect.topk_rows is not None else torch.arange(case.q.shape[2])
    p = attend(case)["p"][:, :, rows]
    there = torch.where(index < 0, torch.zeros_like(want_prob), p.gather(-1, index.clamp(min=0)).to(want_prob.dtype))
    truth.judge(case, "topk_prob", there.to(prob.dtype), "true probability at topk_index")
    marked = torch.where(index < 0, -1 - torch.arange(index.shape[-1]), index).sort(-1).values
    assert bool((marked.diff(dim=-1) != 0).all()), f"{case.name}: topk_index names a key twice"
    assert bool((prob.diff(dim=-1) <= 0).all()), f"{case.name}: topk_prob does not fall"


def assert_columns(case, lse: Tensor, got: dict[str, Tensor], collect: ColumnCollect = ALL_COLUMNS) -> None:
    """Judge the results of `columns` against the dense float64 map from the same lse."""
    sums = {name: x for name, x in got.items() if not name.startswith("histogram")}
    assert len(got) - len(sums) == (2 if collect.histogram else 0)
    # Counts may be float64 in any case: past 2**24 float32 does not hold them.
    wide = {name for name, x in got.items() if x.dtype != working(case)}
    assert not wide or (wide == {"histogram_count"} and got["histogram_count"].dtype == torch.float64), (
        f"dtypes: {wide}"
    )
    if sums:
        judged = replace(collect, histogram=False)
        truth = Truth.of(
            column_sums(case, lse, case.rows, judged),
            lambda order: column_sums(case, lse, case.rows, judged, working(case), order),
        )
        assert set(sums) == set(truth.want)
        for name, value in sums.items():
            truth.judge(case, name, value)
    if collect.histogram:
        assert_histogram(case, lse, got["histogram_count"], got["histogram_mass"])


def assert_histogram(case, lse: Tensor, count: Tensor, mass: Tensor) -> None:
    """Counts below every bin edge lie between those of probabilities wrong by the same-precision error, both ways."""
    p = entry_map(case, lse)
    try:
        _assert_histogram(case, p, _relative_error(case, lse, p, ORDERS), count, mass)
    except AssertionError:
        _assert_histogram(case, p, _relative_error(case, lse, p, MORE_ORDERS), count, mass)


def _relative_error(case, lse: Tensor, p: Tensor, orders: tuple[Order, ...]) -> float:
    normal = p > 2.0**-100
    rough = [entry_map(case, lse, working(case), order).double() for order in orders]
    return max(float(((x - p)[normal] / p[normal]).abs().max()) for x in rough) if bool(normal.any()) else 0.0


def _assert_histogram(case, p: Tensor, relative: float, count: Tensor, mass: Tensor) -> None:
    work = working(case)
    slack = 2 * relative + 8 * torch.finfo(work).eps
    tiny = torch.finfo(work).tiny
    rows = case.rows.expand(case.q.shape[0], -1, -1)
    inside = rows[:, None, :, :, None] & (p > 0)[:, :, None]
    above = count.cumsum(-1)
    mass_above = mass.double().cumsum(-1)
    for bin_ in range(32):
        edge = 2.0 ** -(bin_ + 1) if bin_ < 31 else tiny
        sure = inside & (p * (1 - slack) > edge)[:, :, None]
        perhaps = inside & ((p * (1 + slack) > edge) | (p < tiny if bin_ == 31 else False))[:, :, None]
        low, high = sure.sum((-2, -1)), perhaps.sum((-2, -1))
        _assert_between(f"{case.name}: histogram_count up to bin {bin_}", above[..., bin_], low, high)
        low, high = (p[:, :, None] * sure).sum((-2, -1)), (p[:, :, None] * perhaps).sum((-2, -1))
        bound = slack * high + 1e-30
        _assert_between(
            f"{case.name}: histogram_mass up to bin {bin_}", mass_above[..., bin_], low - bound, high + bound
        )


def _assert_between(name: str, got: Tensor, low: Tensor, high: Tensor) -> None:
    wrong = (got < low) | (got > high)
    where = _first(wrong) if bool(wrong.any()) else ()
    assert not wrong.any(), f"{name} at {where}: got {got[where]}, wanted {low[where]} to {high[where]}"


def assert_tile(case, lse: Tensor, rows, cols, size, pool: str, got: Tensor) -> None:
    """Judge `tile` against the pooled dense float64 map from the same lse."""
    height, width = (size, size) if isinstance(size, int) else size
    edges = [_edges(*rows, height), _edges(*cols, width)]
    want = {"tile": pooled(entry_map(case, lse), *edges, pool)}
    truth = Truth.of(want, lambda order: {"tile": pooled(entry_map(case, lse, working(case), order), *edges, pool)})
    truth.judge(case, "tile", got, f"tile {rows} x {cols} to {size}, {pool}")


def assert_entries(case, lse: Tensor, i: Tensor, j: Tensor, got: Tensor) -> None:
    """Judge `entries` against the dense float64 map from the same lse."""
    want = {"entries": entry_map(case, lse)[:, :, i, j]}
    truth = Truth.of(want, lambda order: {"entries": entry_map(case, lse, working(case), order)[:, :, i, j]})
    truth.judge(case, "entries", got)


# ---------------------------------------------------------------------- gradients
RESULTS = ("out", "lse", "entropy")


def with_leaves(case, *, edits: bool):
    """(case, leaves): the case on copies that require a gradient, by name: q, k, v, sink_logits and, if asked, the tensors of its edit."""
    of_call = {name: getattr(case, name) for name in ("q", "k", "v", "sink_logits")}
    of_edit = {} if case.edit is None or not edits else {n: getattr(case.edit, n) for n in EDIT_LEAVES}
    there = {n: x.detach().clone() for n, x in {**of_call, **of_edit}.items() if x is not None}
    # In float64 every leaf is float64: a gradient has its leaf's dtype.
    wide = case.q.dtype == torch.float64
    leaves = {n: (x.double() if wide else x).requires_grad_() for n, x in there.items()}
    edit = case.edit
    if of_edit:
        edit = replace(case.edit, **{n: leaves[n] for n in of_edit if n in leaves})
    called = {n: leaves.get(n) for n in of_call}
    return replace(case, edit=edit, collect=interp_kernels.Collect(entropy=True), **called), leaves


EDIT_LEAVES = ("logit_scale", "key_bias", "factors", "gate")


def gradients_of(results: dict[str, Tensor], leaves: dict[str, Tensor], parts=RESULTS) -> dict[str, Tensor]:
    """Gradients of a fixed random weighting of out, lse (where finite) and entropy."""
    loss = torch.zeros((), dtype=torch.float64)
    for number, name in enumerate(RESULTS):
        g = torch.Generator().manual_seed(number)
        weight = torch.randn(results[name].shape, generator=g, dtype=torch.float64)
        if name in parts:
            # Not a product: 0 times -inf is NaN.
            value = torch.where(results[name].detach().isfinite(), results[name], 0.0)
            loss = loss + (value.double() * weight).sum()
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {n: torch.zeros_like(x) if d is None else d for (n, x), d in zip(leaves.items(), found, strict=True)}


def defined_gradients(
    case, *, edits: bool, parts=RESULTS, dtype: torch.dtype = torch.float64, order=ORDERS[0]
) -> dict[str, Tensor]:
    """Gradients by torch's own autograd through the dense map of the suite's definition."""
    problem, leaves = with_leaves(case, edits=edits)
    return gradients_of(attend(problem, dtype, order), leaves, parts)


def backend_gradients(case, backend: str, *, edits: bool, parts=RESULTS) -> dict[str, Tensor]:
    """Gradients of a backend."""
    problem, leaves = with_leaves(case, edits=edits)
    got = run_attention(problem, backend)
    return gradients_of({"out": got.out, "lse": got.lse, **got.stats}, leaves, parts)


def assert_gradients(case, backend: str, *, edits: bool = False, parts=RESULTS) -> None:
    """The tolerance rule on gradients: the dense formula in the same precision is differentiated by torch."""
    got = backend_gradients(case, backend, edits=edits, parts=parts)
    truth = Truth.of(
        defined_gradients(case.cast(torch.float64), edits=edits, parts=parts),
        lambda order: defined_gradients(case, edits=edits, parts=parts, dtype=working(case), order=order),
    )
    noise = _row_form_noise(case) if "out" in parts else {}
    for name, value in got.items():
        truth.judge(case, name, value, f"gradient of {name}", extra=noise.get(name, 0.0))


def _row_form_noise(case) -> dict[str, float]:
    """What the rounding of dO.v_j - dO.out can leave in the gradients of q and k.

    A backward of O(N) memory takes the mean of dO.v_j over a row from the output (Dao et al. 2022, appendix B), so where
    one weight is nearly 1 two numbers of this size cancel; the dense formula subtracts it from itself and errs by nothing.
    """
    wide = case.cast(torch.float64)
    group = case.q.shape[1] // case.k.shape[1]
    attended = attend(wide)
    g = torch.Generator().manual_seed(RESULTS.index("out"))
    d_out = torch.randn(attended["out"].shape, generator=g, dtype=torch.float64).abs()
    k, v = (x.abs().repeat_interleave(group, 1) for x in (wide.k, wide.v))
    along = attended["p"] * (d_out @ v.mT + (d_out * attended["out"].abs()).sum(-1, keepdim=True))
    scale = abs(case.q.shape[3] ** -0.5 if case.scale is None else case.scale)
    if case.edit is not None and case.edit.logit_scale is not None:
        along = along * case.edit.logit_scale.double().abs()[..., None]
    of_q, of_k = along @ k, along.mT @ wide.q.abs()
    of_k = of_k.unflatten(1, (-1, group)).sum(2)
    eps = FLOOR * torch.finfo(working(case)).eps * scale
    return {"q": eps * float(of_q.max()), "k": eps * float(of_k.max())}


def _edges(start: int, stop: int, bins: int) -> list[int]:
    bins = min(bins, stop - start)
    return [start + b * (stop - start) // bins for b in range(bins + 1)]


def _first(where: Tensor) -> tuple[int, ...]:
    return tuple(int(x) for x in where.nonzero()[0])
