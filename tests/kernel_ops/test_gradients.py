"""Gradients of out, lse and entropy on every backend that runs here, against torch's autograd through the dense map."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from kernel_cases import SMALL, case, make, problems
from kernel_checks import assert_gradients, backend_gradients, defined_gradients, run_attention, with_leaves

import interp_kernels
from interp_kernels import BackendError, Collect, Edit, Mask, row_blocks

EDITED = tuple(name for name in SMALL if name.startswith("edit"))


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_those_of_the_dense_map(name, backend):
    assert_gradients(case(name), backend)


@pytest.mark.parametrize("name", EDITED)
def test_gradients_of_edits(name, backend):
    assert_gradients(case(name), backend, edits=True)


@pytest.mark.parametrize("part", ["out", "lse", "entropy"])
@pytest.mark.parametrize("name", ["causal", "softcap_sink_window", "many_features"])
def test_gradients_of_one_result_alone(name, part, backend):
    assert_gradients(case(name), backend, parts=(part,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["causal", "features_64", "softcap_sink_window"])
def test_gradients_of_narrow_dtypes(name, dtype, backend):
    assert_gradients(case(name, dtype), backend)


@pytest.mark.parametrize("entries", [1, 300, 2**19])
@pytest.mark.parametrize(
    "name",
    [*EDITED, "many_features", "sink_logits_and_empty_rows", "softcap_sink_window", "dense_bias_with_lowest_values"],
)
def test_portable_meets_autograd_in_float64_whatever_the_blocks(name, entries, monkeypatch):
    monkeypatch.setattr(row_blocks, "ENTRIES_PER_THREAD", entries)
    problem = case(name, torch.float64)
    got, want = backend_gradients(problem, "portable", edits=True), defined_gradients(problem, edits=True)
    for leaf, value in got.items():
        torch.testing.assert_close(value, want[leaf], rtol=1e-8, atol=1e-8, msg=lambda m, leaf=leaf: f"{leaf}: {m}")


def _finite_edit(g):
    which = torch.randint(0, 3, (1, 4, 1, 7), generator=g)
    return Edit(
        logit_scale=torch.randn(1, 4, 5, generator=g),
        key_bias=torch.randn(1, 4, 7, generator=g),
        sets=which == torch.arange(2)[:, None],
        factors=torch.rand(1, 1, 5, 3, generator=g),
        gate=torch.rand(1, 4, 1, generator=g),
    )


def test_gradcheck_of_portable_with_every_option():
    problem = make(
        "gradcheck",
        Mask.causal(offset=-1),
        batch=1,
        key_heads=2,
        queries=5,
        keys=7,
        features=3,
        values=2,
        edit=_finite_edit,
        sink=True,
        softcap=2.0,
    )
    problem = problem.cast(torch.float64)
    _, leaves = with_leaves(problem, edits=True)
    leaves = {name: x.detach().double().requires_grad_() for name, x in leaves.items()}
    sets = problem.edit.sets

    def run(q, k, v, sink_logits, logit_scale, key_bias, factors, gate):
        edit = Edit(logit_scale=logit_scale, key_bias=key_bias, sets=sets, factors=factors, gate=gate)
        got = interp_kernels.attention(
            q,
            k,
            v,
            mask=problem.mask,
            softcap=2.0,
            sink_logits=sink_logits,
            edit=edit,
            collect=Collect(entropy=True),
            backend="portable",
        )
        return got.out, got.lse, got.stats["entropy"]

    assert torch.autograd.gradcheck(run, tuple(leaves.values()))


@pytest.mark.medium
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problem=problems(largest=17))
def test_gradients_of_any_combination(problem, backend):
    assert_gradients(problem, backend)


def test_only_out_lse_and_entropy_carry_gradients(backend):
    problem = case("sink_logits")
    q = problem.q.clone().requires_grad_()
    got = interp_kernels.attention(**{**problem.attention_arguments(), "q": q}, backend=backend)
    assert got.out.requires_grad and got.lse.requires_grad
    assert {name for name, x in got.stats.items() if x.requires_grad} == {"entropy"}


def test_no_gradient_is_kept_under_no_grad(backend):
    problem, _ = with_leaves(case("causal"), edits=False)
    with torch.no_grad():
        got = run_attention(problem, backend)
    assert not got.out.requires_grad


def test_fully_masked_rows_give_zero_gradients(backend):
    problem, leaves = with_leaves(case("padding_hides_an_item"), edits=False)
    got = run_attention(problem, backend)
    (got.out.sum() + got.stats["entropy"].sum() + got.lse[1].sum()).backward()
    assert torch.equal(leaves["q"].grad[0], torch.zeros_like(leaves["q"][0]))
    assert leaves["k"].grad.isfinite().all() and leaves["q"].grad[1].abs().sum() > 0


@pytest.mark.parametrize("which", ["alibi", "dense"])
def test_portable_refuses_the_gradients_it_does_not_give(which):
    problem = case("alibi" if which == "alibi" else "dense_bias")
    mask = problem.mask
    leaf = (mask.alibi_slopes if which == "alibi" else mask.dense_bias).clone().requires_grad_()
    mask = Mask.causal().alibi(leaf) if which == "alibi" else Mask.causal().biased(leaf)
    arguments = {**problem.attention_arguments(), "mask": mask}
    with pytest.raises(
        BackendError, match="no gradient of the ALiBi slopes" if which == "alibi" else "no gradient of a dense bias"
    ):
        interp_kernels.attention(**arguments, backend="portable")
    interp_kernels.attention(**arguments, backend="reference").out.sum().backward()
    assert leaf.grad.isfinite().all() and leaf.grad.abs().sum() > 0
