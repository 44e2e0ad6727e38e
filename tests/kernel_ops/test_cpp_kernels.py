"""The C++ backend where the shared cases are too small for it: several tiles, row blocks and key splits; operators."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import case, make
from kernel_checks import (
    assert_attended,
    assert_columns,
    assert_gradients,
    assert_tile,
    run_attention,
    run_columns,
    run_tile,
    truth_of,
)

import interp_kernels
from interp_kernels import Collect, ColumnCollect, Mask, cpp_ops
from interp_kernels.flatten import FlatCollect, FlatProblem, features
from interp_kernels.spec.problem import Problem


@pytest.fixture(autouse=True)
def built():
    ok, why = cpp_ops.ready()
    if not ok:
        pytest.skip(f"C++ backend: {why}")


def _ints(*values):
    return torch.tensor(values)


def _documents(n):
    return torch.bucketize(torch.arange(n), torch.tensor([70, 301, 303, 500]), right=True)


# One head group of 2, so that a row block holds 48 rows; keys span three tiles of 256.
WIDE = {
    "causal": Mask.causal(),
    "causal, fewer rows": Mask.causal(offset=101),
    "window": Mask.causal(window=139),
    "sinks far from windows": Mask.causal().sink_window(_ints(3, 5), _ints(37, 61)),
    "sinks over a tile": Mask.causal().padded(left=_ints(7)).sink_window(_ints(270, 1), _ints(29, 600)),
    "full window": Mask.full(window=101),
    "padding": Mask.causal().padded(left=_ints(263), right=_ints(41)),
    "documents": Mask.causal().documents(_documents(601)[390:], _documents(601)),
    "prefix": Mask.causal(window=97).prefix(283),
    "hide": Mask.causal().hide(torch.arange(211) > 100, torch.arange(601) % 7 == 0, heads=[1]),
    "blocks": Mask.causal().blocks(torch.rand(2, 7, 10, generator=torch.Generator().manual_seed(3)) < 0.4, (32, 64)),
    "alibi": Mask.causal().alibi(torch.tensor([0.02, 0.5])),
}


def _wide(name):
    return make(
        f"wide {name}", WIDE[name], batch=1, key_heads=1, group=2, queries=211, keys=601, features=19, values=21
    )


@pytest.mark.parametrize("name", WIDE)
def test_many_tiles_and_row_blocks(name):
    c = _wide(name)
    got = run_attention(c, "cpu")
    assert_attended(c, got, truth_of(c, reference=False), "cpu")


@pytest.mark.parametrize("name", ["causal", "sinks far from windows", "full window", "prefix"])
def test_columns_and_tiles_over_many_chunks(name):
    c = _wide(name)
    lse = run_attention(c.wishing(Collect()), "cpu").lse
    collect = ColumnCollect(received=True, diagonals=True, block=37)
    assert_columns(c, lse, run_columns(c, lse, "cpu", collect).stats, collect)
    for size, pool in (((7, 11), "mean"), ((7, 11), "max")):
        got = run_tile(c, lse, (13, 200), (5, 599), size, pool, "cpu")
        assert_tile(c, lse, (13, 200), (5, 599), size, pool, got)


@pytest.mark.parametrize("queries", [1, 3, 8])
@pytest.mark.parametrize("mask", ["causal", "sinks"])
def test_decode_splits_the_keys(queries, mask):
    keys = 1307
    m = Mask.causal() if mask == "causal" else Mask.causal().padded(left=_ints(11)).sink_window(4, 701)
    c = make(f"decode {queries} {mask}", m, batch=1, key_heads=2, group=3, queries=queries, keys=keys, sink=True)
    assert_attended(c, run_attention(c, "cpu"), truth_of(c, reference=False), "cpu")


def test_values_ignore_the_layout_of_q_k_v():
    g = torch.Generator().manual_seed(11)
    q, k, v = (torch.randn(2, 131, n, 33, generator=g).transpose(1, 2)[..., 1:] for n in (6, 3, 3))
    want = interp_kernels.attention(q.contiguous(), k.contiguous(), v.contiguous(), mask=Mask.causal(), backend="cpu")
    got = interp_kernels.attention(q, k, v, mask=Mask.causal(), backend="cpu")
    assert torch.equal(got.out, want.out) and torch.equal(got.lse, want.lse)
    flipped = interp_kernels.attention(q, k.mT.contiguous().mT, v, mask=Mask.causal(), backend="cpu")
    assert torch.equal(flipped.out, want.out)


@pytest.mark.parametrize("queries", [1, 307])
def test_results_do_not_depend_on_the_number_of_threads(queries):
    c = make(
        f"threads {queries}", Mask.causal(), batch=1, key_heads=1, group=2, queries=queries, keys=1031, features=16
    )
    threads = torch.get_num_threads()
    results = []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            got = run_attention(c, "cpu")
            sums = run_columns(c, got.lse, "cpu")
            results.append({"out": got.out, "lse": got.lse, **got.stats, **sums.stats})
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(results[0][name], other[name]) for name in results[0])


@pytest.fixture(params=["native", "widened"])
def bfloat16_path(request, monkeypatch):
    """Each way to compute in bfloat16, whichever this processor would take."""
    if request.param == "native" and not cpp_ops.can_multiply_bfloat16():
        pytest.skip("torch has no bfloat16 block product for this processor")
    monkeypatch.setattr(cpp_ops, "PREFERRED_BFLOAT16_PATH", request.param)
    seen = []
    operator = torch.ops.interp_kernels_cpu.attention
    monkeypatch.setattr(
        torch.ops.interp_kernels_cpu, "attention", lambda q, *rest: seen.append(q.dtype) or operator(q, *rest)
    )
    yield request.param
    assert set(seen) == {torch.bfloat16 if request.param == "native" else torch.float32}


@pytest.mark.parametrize("name", ["causal", "sinks far from windows", "padding", "documents", "blocks"])
def test_bfloat16_over_many_tiles(name, bfloat16_path):
    c = _wide(name).cast(torch.bfloat16)
    assert_attended(c, run_attention(c, "cpu"), truth_of(c, reference=False), "cpu")


@pytest.mark.parametrize(
    "name", ["many_features", "edit_everything", "edit_factors", "hot_logits", "decode_5", "features_128"]
)
def test_bfloat16_with_every_option(name, bfloat16_path):
    c = case(name, torch.bfloat16)
    assert_attended(c, run_attention(c, "cpu"), truth_of(c), "cpu")


def test_bfloat16_ignores_the_layout(bfloat16_path):
    g = torch.Generator().manual_seed(13)
    q, k, v = (torch.randn(2, 67, n, 35, generator=g).bfloat16().transpose(1, 2)[..., 1:] for n in (6, 3, 3))
    want = interp_kernels.attention(q.contiguous(), k.contiguous(), v.contiguous(), mask=Mask.causal(), backend="cpu")
    got = interp_kernels.attention(q, k, v, mask=Mask.causal(), backend="cpu")
    assert torch.equal(got.out, want.out) and torch.equal(got.lse, want.lse)


def test_bfloat16_gradients(bfloat16_path):
    assert_gradients(case("features_64", torch.bfloat16), "cpu")


def test_the_rest_is_exact_however_little_it_holds():
    # The left-out key is ahead of the others by steps of 3: the sums change from the row's unit to their own on the way.
    keys, rows = 531, 41
    g = torch.Generator().manual_seed(17)
    q = torch.ones(1, 1, rows, 2)
    q[0, 0, :, 0] = torch.arange(rows) * 3.0
    k = torch.stack([torch.zeros(keys), torch.randn(keys, generator=g)], -1)[None, None]
    k[0, 0, 300] = torch.tensor([1.0, 0.0])
    rest = torch.arange(keys) == 300
    got = interp_kernels.attention(q, k, k, mask=Mask.full(), scale=1.0, collect=Collect(rest=rest), backend="cpu")
    s = (q.double() @ k.double().mT)[0, 0]
    others = s[:, ~rest].softmax(-1)
    entropy = -(others * others.log()).sum(-1)
    log_mass = s[:, ~rest].logsumexp(-1) - s.logsumexp(-1)
    torch.testing.assert_close(got.stats["rest_entropy"][0, 0].double(), entropy, rtol=2e-6, atol=0)
    live = log_mass > -80
    assert bool((log_mass < -80).any())
    torch.testing.assert_close(got.stats["rest_mass"][0, 0].double().log()[live], log_mass[live], rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_widened_half_precision_is_that_of_the_widened_inputs(dtype, monkeypatch):
    monkeypatch.setattr(cpp_ops, "PREFERRED_BFLOAT16_PATH", "widened")
    c = case("causal").cast(dtype)
    got, wide = run_attention(c, "cpu"), run_attention(c.cast(torch.float32), "cpu")
    assert got.out.dtype == dtype and torch.equal(got.out, wide.out.to(dtype))
    assert torch.equal(got.lse, wide.lse)
    assert all(torch.equal(got.stats[name], wide.stats[name]) for name in wide.stats)


def _flat(name, grad):
    c = case(name)
    problem = Problem.of(c.q, c.k, sink_logits=c.sink_logits, **c.map_options())
    flat, wish = FlatProblem.of(problem), FlatCollect.of(c.collect, problem.queries, problem.keys)
    q, k, v = (x.clone().requires_grad_(grad) for x in (flat.q, flat.k, features(c.v)))
    attention = (q, k, v, flat.scale, flat.softcap, c.sink_logits, flat.mask, flat.mask_ints, flat.edit, wish.tensors, wish.wish,
                 wish.sets, wish.topk, wish.topk_rows, wish.windows, wish.offsets)  # fmt: skip
    return c, flat, attention


@pytest.mark.parametrize("name", ["causal", "edit_everything"])
def test_opcheck(name):
    c, flat, attention = _flat(name, grad=True)
    rows = c.q.shape[2]
    lse = torch.randn(c.q.shape[:3])
    torch.library.opcheck(torch.ops.interp_kernels_cpu.attention, attention)
    shared = flat.arguments()
    ops = torch.ops.interp_kernels_cpu
    torch.library.opcheck(ops.columns, (*shared, lse, torch.ones(1, rows, dtype=torch.uint8), 2, True, True, 5, True))
    torch.library.opcheck(ops.entries, (*shared, lse, torch.tensor([0, 3]), torch.tensor([1, 2])))
    torch.library.opcheck(ops.tile, (*shared, lse, torch.tensor([0, 3, 9]), torch.tensor([1, 2, 20]), False))
    grad = torch.randn(*c.q.shape[:3], c.v.shape[3])
    torch.library.opcheck(ops.attention_backward, (*shared, c.v, lse, lse, grad, lse, lse))


def test_survives_torch_compile():
    def loss(q, k, v):
        got = interp_kernels.attention(q, k, v, mask=Mask.causal(), collect=Collect(entropy=True), backend="cpu")
        return got.out.square().sum() + got.stats["entropy"].sum() + got.lse.sum()

    g = torch.Generator().manual_seed(5)
    inputs = [torch.randn(1, n, 17, 8, generator=g, requires_grad=True) for n in (4, 2, 2)]
    want = torch.autograd.grad(loss(*inputs), inputs)
    got = torch.autograd.grad(torch.compile(loss, backend="aot_eager")(*inputs), inputs)
    for a, b in zip(want, got, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_statistics_without_a_gradient_do_not_seem_to_have_one():
    q = torch.randn(1, 2, 7, 8, requires_grad=True)
    wish = Collect(entropy=True, row_max=True, prob_square=True)
    got = interp_kernels.attention(q, q, q, mask=Mask.causal(), collect=wish, backend="cpu")
    assert got.out.requires_grad and got.lse.requires_grad and got.stats["entropy"].requires_grad
    assert not got.stats["row_max"].requires_grad and not got.stats["prob_square"].requires_grad


def test_gradients_over_several_tiles():
    c = make(
        "gradient",
        Mask.causal(window=73),
        batch=1,
        key_heads=1,
        group=2,
        queries=211,
        keys=211,
        features=16,
        sink=True,
        softcap=6.0,
    )

    def gradients(dtype, backend):
        inputs = [x.to(dtype).requires_grad_() for x in (c.q, c.k, c.v, c.sink_logits)]
        q, k, v, sink = inputs
        wish = Collect(entropy=True)
        got = interp_kernels.attention(q, k, v, sink_logits=sink, collect=wish, backend=backend, **c.map_options())
        g = torch.Generator().manual_seed(7)
        loss = sum((x * torch.randn(x.shape, generator=g)).sum() for x in (got.out, got.lse, got.stats["entropy"]))
        return torch.autograd.grad(loss, inputs)

    for want, got in zip(gradients(torch.float64, "reference"), gradients(torch.float32, "cpu"), strict=True):
        assert float((got - want).abs().max()) <= 3e-6 * float(want.abs().max())


def test_edits_that_want_gradients_are_refused():
    q = torch.randn(1, 2, 7, 8)
    edit = interp_kernels.Edit(gate=torch.ones(1, 2, 1, requires_grad=True))
    with pytest.raises(interp_kernels.BackendError, match="no gradients of edits"):
        interp_kernels.attention(q, q, q, mask=Mask.causal(), edit=edit, backend="cpu")
