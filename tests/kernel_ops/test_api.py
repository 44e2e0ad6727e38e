"""The doors of the kernels: what they refuse and how they say it, which backend they choose, what they leave untouched."""

from __future__ import annotations

import logging

import pytest
import torch
from kernel_cases import case
from kernel_checks import run_attention

import interp_kernels
from interp_kernels import BackendError, Collect, ColumnCollect, Edit, Mask, dispatch
from interp_kernels.attention import api as attention_api

Q, K, V = torch.randn(2, 6, 13, 5), torch.randn(2, 3, 29, 5), torch.randn(2, 3, 29, 7)
LSE = torch.zeros(2, 6, 13)
BITS = torch.ones(29, dtype=torch.bool)


def refusal(**changes) -> str:
    arguments = {"q": Q, "k": K, "v": V, "mask": Mask.causal(), "backend": "portable", **changes}
    with pytest.raises(ValueError) as raised:
        interp_kernels.attention(**arguments)
    return str(raised.value)


def test_one_message_names_every_mismatch():
    said = refusal(
        k=torch.randn(3, 4, 29, 6),
        softcap=-1.0,
        sink_logits=torch.zeros(5),
        mask=Mask.causal().padded(left=torch.zeros(5, dtype=torch.int64)).alibi(torch.zeros(7)),
        edit=Edit(gate=torch.zeros(1, 4, 1), key_bias=torch.zeros(1, 1, 28)),
        collect=Collect(rest=torch.ones(31, dtype=torch.bool), topk=1, topk_rows=torch.tensor([13])),
    )
    for part in (
        "wanted equal batch and feature axes",
        "wanted a multiple of the 4 key heads, got 6",
        "softcap: wanted a positive number or None, got -1.0",
        "one per query head (6), got shape (5,)",
        "padded(left): wanted (2,), got (5,)",
        "alibi: wanted (6,), got (7,)",
        "gate: got (1, 4, 1)",
        "key_bias: got (1, 1, 28)",
        "v: wanted (3, 4, 29) + [Dv]",
        "rest: wanted [2 or 1, ..., 29], got (1, 31)",
        "topk_rows: wanted integer row numbers [T] in [0, 13)",
    ):
        assert part in said, f"{part!r} is not in {said!r}"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"q": Q[0]}, "wanted [batch, head, token, feature]"),
        ({"q": Q.long()}, "wanted one floating dtype"),
        ({"k": K.half(), "v": V.half()}, "wanted one floating dtype"),
        ({"q": Q[:, :, :0]}, "at least 1 along every axis"),
        ({"k": K[:, :, :0], "v": V[:, :, :0]}, "at least 1 along every axis"),
        ({"v": V[..., :0]}, "v: wanted (2, 3, 29) + [Dv]"),
        ({"v": V.half()}, "v: wanted"),
        ({"mask": Mask.dense(torch.zeros(2, 6, 13, 28))}, "dense bias: wanted (2, 6, 13, 29)"),
        ({"mask": Mask.causal().blocks(torch.ones(6, 3, 5, dtype=torch.bool), 5)}, "blocks: wanted (2, 6, 3, 6)"),
        ({"mask": Mask.causal().hide(BITS[:13], BITS, heads=[6])}, "hide(heads): wanted heads below 6"),
        ({"mask": Mask.causal().documents(torch.zeros(13), torch.zeros(28))}, "documents(key_ids): wanted (2, 29)"),
        ({"collect": Collect(match=(torch.zeros(1, 12).long(), torch.zeros(1, 29).long()))}, "match (query ids)"),
    ],
)
def test_what_does_not_fit_is_refused(changes, words):
    assert words in refusal(**changes)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Mask.causal(window=0), "window: wanted at least 1"),
        (lambda: Mask.full().sink_window(-1, 3), "sinks >= 0"),
        (lambda: Mask.full().padded(left=torch.zeros(2)), "left: wanted an integer tensor"),
        (lambda: Mask.full().hide(torch.zeros(3), BITS), "wanted bool membership"),
        (lambda: Mask.dense(torch.zeros(3, 3)), "wanted 4 axes"),
        (lambda: Mask.full().blocks(torch.zeros(2, 2, 2), 4), "wanted a bool tensor"),
        (lambda: Collect(key_sets=torch.zeros(3, 5)), "key_sets: wanted a bool"),
        (lambda: Collect(key_sets=torch.zeros(33, 5, dtype=torch.bool)), "wanted 1 to 32 sets, got 33"),
        (lambda: Collect(rest=torch.zeros(5)), "rest: wanted a bool"),
        (lambda: Collect(topk=-1), "wanted topk >= 0"),
        (lambda: Collect(windows=(0,)), "windows >= 1"),
        (lambda: Collect(offsets=(-1,)), "offsets >= 0"),
        (lambda: Collect(match=(torch.zeros(1, 5), torch.zeros(1, 5))), "two integer tensors"),
        (lambda: ColumnCollect(received=False), "nothing was asked for"),
        (lambda: ColumnCollect(block=-1), "block: wanted 0"),
        (lambda: Edit(gate=torch.zeros(2, 2)), "gate: wanted 3 axes"),
        (lambda: Edit(factors=torch.zeros(1, 1, 1, 2)), "sets and factors come together"),
        (lambda: Edit(sets=torch.ones(1, 1, 2, 5).bool(), factors=torch.zeros(1, 1, 1, 3)), "some key is in two"),
        (lambda: Edit(sets=torch.ones(1, 1, 1, 5).bool(), factors=torch.zeros(1, 1, 1, 3)), "wanted 2 columns"),
        (lambda: Edit(sets=torch.zeros(1, 1, 5, 5).bool(), factors=torch.zeros(1, 1, 1, 6)), "wanted 1 to 4"),
    ],
)
def test_words_that_mean_nothing_are_refused_at_once(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_a_mask_holds_thirty_one_rectangles():
    mask = Mask.full()
    for _ in range(31):
        mask = mask.hide(BITS, BITS)
    with pytest.raises(ValueError, match="at most 31 rectangles"):
        mask.hide(BITS, BITS)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: interp_kernels.columns(Q, K, LSE[:, :, :5], mask=Mask.causal()), "lse: wanted (2, 6, 13)"),
        (lambda: interp_kernels.columns(Q, K, LSE, mask=Mask.causal(), rows=BITS[None]), "rows: wanted bool [S, 13]"),
        (
            lambda: interp_kernels.columns(Q, K, LSE, mask=Mask.causal(), rows=torch.ones(9, 13).bool()),
            "1 to 8 subsets, got 9",
        ),
        (
            lambda: interp_kernels.entries(Q, K, LSE, torch.tensor([13]), torch.tensor([0]), mask=Mask.causal()),
            "i: wanted numbers in [0, 13)",
        ),
        (
            lambda: interp_kernels.entries(Q, K, LSE, torch.tensor([0]), torch.tensor([-1]), mask=Mask.causal()),
            "j: wanted numbers in [0, 29)",
        ),
        (
            lambda: interp_kernels.entries(Q, K, LSE, torch.tensor([0.0]), torch.tensor([1]), mask=Mask.causal()),
            "two integer tensors",
        ),
        (
            lambda: interp_kernels.tile(Q, K, LSE, (3, 3), (0, 29), 4, mask=Mask.causal()),
            "rows: wanted a non-empty range",
        ),
        (
            lambda: interp_kernels.tile(Q, K, LSE, (0, 13), (0, 30), 4, mask=Mask.causal()),
            "cols: wanted a non-empty range",
        ),
        (lambda: interp_kernels.tile(Q, K, LSE, (0, 13), (0, 29), 0, mask=Mask.causal()), "at least 1 pixel"),
        (
            lambda: interp_kernels.tile(Q, K, LSE, (0, 13), (0, 29), 4, "median", mask=Mask.causal()),
            "valid are mean, max",
        ),
    ],
)
def test_the_other_operations_refuse_too(call, words):
    with pytest.raises(ValueError) as raised:
        call()
    assert words in str(raised.value)


def test_an_unknown_backend_is_refused_with_the_valid_ones():
    assert "valid are auto, reference, portable, cpu, triton" in refusal(backend="cuda")


def test_an_explicit_backend_never_falls_back(monkeypatch):
    refuse = {**attention_api.IMPLEMENTATIONS, "cpu": "interp_kernels.attention.reference"}
    monkeypatch.setattr(attention_api, "IMPLEMENTATIONS", refuse)
    x = torch.zeros(1, 1, 8193, 1)
    before = dispatch.launches.copy()
    with pytest.raises(
        BackendError, match=r"attention: no backend can serve this call \(cpu: the reference stores the dense map"
    ):
        interp_kernels.attention(x, x, x, mask=Mask.causal(), backend="cpu")
    assert dispatch.launches == before


def test_auto_falls_back_and_says_why_once(monkeypatch, caplog):
    refuse = {**attention_api.IMPLEMENTATIONS, "cpu": "interp_kernels.attention.reference"}
    monkeypatch.setattr(attention_api, "IMPLEMENTATIONS", refuse)
    monkeypatch.setattr(dispatch, "_told", set())
    x = torch.zeros(1, 1, 8193, 1)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert interp_kernels.attention(x, x, x, mask=Mask.full(window=1)).backend == "portable"
    said = [r.getMessage() for r in caplog.records if r.name.startswith("interp_kernels")]
    assert len(said) == 1 and said[0].startswith("attention runs on backend portable because cpu: the reference stores")


def test_explain_tells_of_every_backend():
    verdicts = {v.backend: v for v in interp_kernels.explain(Q, K, V, mask=Mask.causal())}
    assert set(verdicts) == {"cpu", "triton", "portable", "reference"}
    assert verdicts["portable"].ok and verdicts["reference"].ok
    assert all(v.ok == (v.reason == "") for v in verdicts.values())


def test_arguments_stay_as_they_were(backend):
    problem = case("edit_everything")
    tensors = [problem.q, problem.k, problem.v, problem.edit.factors, problem.edit.key_bias, problem.collect.key_sets]
    before = [x.clone() for x in tensors]
    run_attention(problem, backend)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


def test_strided_arguments(backend):
    """As models give them: views of one projection, heads and tokens swapped."""
    problem = case("causal")
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (problem.q, problem.k, problem.v))
    wide = torch.stack([q, q], -1)[..., 0]
    got = interp_kernels.attention(wide, k, v, mask=problem.mask, collect=problem.collect, backend=backend)
    want = run_attention(problem, backend)
    torch.testing.assert_close(got.out, want.out)
    torch.testing.assert_close(got.stats["entropy"], want.stats["entropy"])


def test_no_tensor_of_the_size_of_the_map_is_made():
    """The largest tensor that portable allocates at 4096 x 4096 is its block, whatever is asked for."""
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            sizes.extend(x.numel() for x in torch.utils._pytree.tree_leaves(result) if isinstance(x, torch.Tensor))
            return result

    q, k = torch.randn(1, 2, 4096, 4), torch.randn(1, 1, 4096, 4)
    collect = Collect(
        entropy=True, logit_moments=True, distance=True, windows=(1000,), rest=torch.rand(4096) < 0.5, topk=1
    )
    with Watch():
        lse = interp_kernels.attention(q, k, k, mask=Mask.causal(), collect=collect, backend="portable").lse
        interp_kernels.columns(
            q, k, lse, mask=Mask.causal(), collect=ColumnCollect(diagonals=True, block=64), backend="portable"
        )
    bound = 2 * interp_kernels.row_blocks.block_entries(q.device)
    assert max(sizes) <= bound < 2 * 4096**2
