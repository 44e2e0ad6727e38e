"""The entropy bound: on 20,000 random rows, on the extremal row, on rows of a model; the norm from moments; regimes by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

TEXT = "the quick brown fox jumps over the lazy dog and then it sleeps for a long while "


def entropy_of(scores: torch.Tensor) -> torch.Tensor:
    p = scores.softmax(-1)
    return -torch.where(p > 0, p * p.log(), 0.0).sum(-1)


def test_no_random_row_lies_below_the_bound() -> None:
    from interp.entropy.bound import centred_norm, entropy_bound

    draw = torch.Generator().manual_seed(7)
    checked = 0
    for outcomes in (2, 3, 5, 17, 64, 257, 1009):
        for shape in ("normal", "cauchy", "one raised", "one lowered", "two levels"):
            rows = torch.randn(572, outcomes, generator=draw, dtype=torch.float64)
            if shape == "cauchy":
                rows = rows / torch.randn(572, outcomes, generator=draw, dtype=torch.float64)
            elif shape in ("one raised", "one lowered"):
                rows = rows * 1e-3
                rows[:, 0] += 9.0 if shape == "one raised" else -9.0
            elif shape == "two levels":
                rows = (rows > 0.5).double() + 1e-9 * rows
            rows = rows * torch.logspace(-3, 2, 572, dtype=torch.float64)[:, None]
            bound = entropy_bound(centred_norm(rows), torch.full((572,), outcomes))
            slack = entropy_of(rows) - bound
            assert slack.min() > -1e-11, (outcomes, shape)
            assert bound.max() <= math.log(outcomes) + 1e-12
            checked += len(rows)
    assert checked >= 20_000


@pytest.mark.parametrize("outcomes", [2, 3, 11, 512])
@pytest.mark.parametrize("norm", [0.0, 0.01, 1.0, 7.0, 40.0])
def test_the_extremal_row_attains_it_and_has_the_norm(outcomes: int, norm: float) -> None:
    from interp.entropy.bound import centred_norm, entropy_bound, extremal_row

    row = extremal_row(norm, outcomes)
    assert abs(float(row.sum())) < 1e-10
    assert float(centred_norm(row)) == pytest.approx(norm, abs=1e-12)
    bound = entropy_bound(torch.tensor(norm, dtype=torch.float64), torch.tensor(outcomes))
    assert float(bound) == pytest.approx(float(entropy_of(row)), rel=1e-9, abs=1e-15)


def test_the_bound_has_the_values_of_the_notes_and_edge_cases() -> None:
    """Bound over log T at T = 64 and sigma 1, 4, 8, 12: .996, .692, .042, .001, worked out by hand in the methods notes."""
    from interp.entropy.bound import entropy_bound

    sigma = torch.tensor([1.0, 4.0, 8.0, 12.0], dtype=torch.float64)
    share = entropy_bound(sigma, torch.tensor(64)) / math.log(64)
    torch.testing.assert_close(
        share, torch.tensor([0.996, 0.692, 0.042, 0.001], dtype=torch.float64), atol=6e-4, rtol=0
    )
    edge = entropy_bound(torch.tensor([5.0, 5.0, 0.0, 1e30, torch.inf]), torch.tensor([0, 1, 2, 9, 9]))
    torch.testing.assert_close(edge, torch.tensor([0.0, 0.0, math.log(2), 0.0, 0.0]))


def test_the_norm_from_moments_does_not_depend_on_the_shift() -> None:
    from interp.entropy.bound import centred_norm, norm_of_moments

    scores = torch.randn(5, 13, dtype=torch.float64) * 3
    seen = torch.rand(5, 13) > 0.3
    seen[0], seen[1] = False, torch.arange(13) == 4
    by_hand = [
        float(torch.std(s[v], correction=0)) * int(v.sum()) ** 0.5 if v.any() else 0.0
        for s, v in zip(scores, seen, strict=True)
    ]
    torch.testing.assert_close(centred_norm(scores, seen), torch.tensor(by_hand, dtype=torch.float64))
    for shift in (0.0, 100.0):
        low = torch.where(seen, scores - shift, 0.0)
        moments = torch.stack([low.sum(-1), low.square().sum(-1)], -1)
        got = norm_of_moments(moments, seen.sum(-1))
        torch.testing.assert_close(got, centred_norm(scores, seen), atol=1e-6, rtol=1e-9)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss", "bert", "mistral"])
def test_rows_of_models_keep_it_and_agree_with_the_dense_map(family: str) -> None:
    """Soft-cap, learned sinks, windows, both directions: H, rho and n from dense logits in float64."""
    import interp
    from interp.entropy.rows import EntropyRows

    model = interp.tiny(family)
    ids = model.encode(TEXT)[:47]
    rows, dense = {}, {}

    def take(call, attended) -> None:
        rows[call.site.layer] = EntropyRows.of(call, attended)
        k = call.k[0].double().repeat_interleave(call.group, 0)
        s = call.q[0].double() @ k.mT * (call.scale if call.scale is not None else call.q.shape[3] ** -0.5)
        if call.softcap is not None:
            s = call.softcap * torch.tanh(s / call.softcap)
        gap = torch.arange(s.shape[1])[:, None] - torch.arange(s.shape[1])
        seen = (gap >= 0) if call.mask.is_causal else torch.ones_like(gap, dtype=torch.bool)
        if call.mask.window is not None:
            seen = seen & (gap < call.mask.window)
        dense[call.site.layer] = (s, seen, None if call.sink_logits is None else call.sink_logits.detach())

    with torch.no_grad():
        model.probe(ids, take, collect=EntropyRows.wish)
    assert len(rows) == model.layers
    for layer, (s, seen, sink) in dense.items():
        r = rows[layer]
        for h in range(len(s)):
            for i in (0, 1, 2, 23, len(ids) - 1):
                out = s[h, i][seen[i]]
                out = out if sink is None else torch.cat([out, sink[h : h + 1].double()])
                p = out.softmax(0)
                count = int(seen[i].sum())
                spread = float((out - out.mean()).norm())
                assert int(r.visible.expand(r.entropy.shape)[0, h, i]) == count
                assert int(r.outcomes.expand(r.entropy.shape)[0, h, i]) == len(out)
                assert float(r.entropy[0, h, i]) == pytest.approx(float(entropy_of(out)), abs=2e-5)
                assert float(r.logit_norm[0, h, i]) == pytest.approx(spread, rel=2e-4, abs=2e-3)
                first = bool(seen[i, 0])
                assert int(r.rest_visible.expand(r.entropy.shape)[0, h, i]) == count - first
                rest = p[int(first) : count]
                assert float(r.rest_mass[0, h, i]) == pytest.approx(float(rest.sum()), abs=2e-5)
                if len(rest) and float(rest.sum()) > 1e-3:
                    assert float(r.rest_entropy[0, h, i]) == pytest.approx(
                        float(entropy_of(out[int(first) : count])), abs=2e-4
                    )
                if len(rest) > 1 and float(rest.sum()) > 1e-3:
                    wanted = float(entropy_of(out[int(first) : count])) / math.log(len(rest))
                    assert float(r.rest_normalised[0, h, i]) == pytest.approx(wanted, abs=2e-4)
                wanted = math.nan if count < 2 else float(entropy_of(out)) / math.log(len(out))
                assert float(r.normalised[0, h, i]) == pytest.approx(wanted, abs=2e-5, nan_ok=True)
        assert float((r.entropy - r.bound).min()) > -1e-3


def test_entropies_do_not_depend_on_padding_batch_or_backend() -> None:
    import interp
    from interp.entropy.rows import EntropyRows

    model = interp.tiny("llama")
    texts = [model.encode(TEXT)[:n] for n in (31, 5, 17)]

    def rows(inputs, backend="auto"):
        found = {}
        model.backend = backend
        with torch.no_grad():
            model.probe(
                inputs, lambda c, a: found.update({c.site.layer: EntropyRows.of(c, a)}), collect=EntropyRows.wish
            )
        model.backend = "auto"
        return found

    together = rows(texts)
    for b, ids in enumerate(texts):
        for backend in ("auto", "portable", "reference"):
            alone = rows(ids, backend)
            for layer, r in alone.items():
                for name in ("entropy", "normalised", "rest_normalised", "bound", "rest_part"):
                    ours, theirs = getattr(r, name)[0], getattr(together[layer], name)[b]
                    assert theirs[:, len(ids) :].isfinite().sum() == 0 or name == "entropy", "padding is undefined"
                    torch.testing.assert_close(
                        ours.float(), theirs[:, : len(ids)], atol=2e-4, rtol=1e-4, equal_nan=True
                    )


def test_left_padding_moves_the_first_key() -> None:
    from interp.entropy.rows import Mask, measure

    q, k = torch.randn(2, 3, 11, 8), torch.randn(2, 1, 11, 8)
    padded = measure(q, k, mask=Mask.causal().padded(left=torch.tensor([4, 0])))
    alone = measure(q[:1, :, 4:], k[:1, :, 4:])
    for name in ("entropy", "rest_mass", "normalised", "rest_normalised", "bound"):
        torch.testing.assert_close(getattr(padded, name)[:1, :, 4:], getattr(alone, name), equal_nan=True)
    assert not padded.defined[0, :, :5].any()
    assert padded.defined[1, :, 1:].all()
    assert padded.normalised[0, :, :4].isnan().all()


def test_uniform_and_one_hot_rows() -> None:
    from interp.entropy.rows import Mask, measure

    same = measure(torch.zeros(1, 2, 9, 4), torch.randn(1, 2, 9, 4))
    torch.testing.assert_close(same.normalised[..., 1:], torch.ones(1, 2, 8))
    torch.testing.assert_close(same.rest_normalised[..., 2:], torch.ones(1, 2, 7))
    torch.testing.assert_close(same.bound, same.entropy, atol=1e-6, rtol=0)
    keys = torch.zeros(1, 1, 9, 4)
    keys[0, 0, 3, 0] = 160.0
    sharp = measure(torch.tensor([1.0, 0, 0, 0]).expand(1, 1, 9, 4), keys, mask=Mask.full(), scale=0.5)
    assert float(sharp.entropy.max()) < 1e-20
    assert bool(sharp.normalised.isfinite().all())
    assert float(sharp.max_logit.min()) == 80.0


def test_regimes_by_hand() -> None:
    from interp.entropy.regimes import regime_shares, regimes
    from interp.errors import OptionError, ShapeError

    entropy = np.array([[0.0, 0.9, 1.0, 1.99], [2.0, 3.0, 4.0, np.nan]])
    np.testing.assert_array_equal(regimes(entropy), [[0, 0, 1, 1], [2, 3, 3, -1]])
    np.testing.assert_array_equal(regimes(entropy / 4, top=1.0), [[0, 0, 1, 1], [2, 3, 3, -1]])
    shares = regime_shares(entropy)
    np.testing.assert_allclose(shares.loc[0, ["low", "medium_low", "medium_high", "high"]], [0.5, 0.5, 0, 0])
    np.testing.assert_allclose(shares.loc[1, ["low", "medium_low", "medium_high", "high"]], [0, 0, 1 / 3, 2 / 3])
    with pytest.raises(OptionError, match="above 0"):
        regimes(np.zeros((2, 2)))
    with pytest.raises(ShapeError, match="layer, head"):
        regime_shares(np.ones(3))
