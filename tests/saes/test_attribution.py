"""Shares by weights, linear readings of every architecture, agreement of two tables: hand-worked or against the encoder itself."""

from __future__ import annotations

import itertools

import pytest
import torch

from interp.errors import OptionError
from interp.saes.attribution import agreement, reading, top_features, weight_share
from interp.saes.config import Architecture, Normalisation, SAEConfig
from interp.saes.core import SAE
from interp.saes.planted import planted

HEADS, D_HEAD, FEATURES, TOKENS = 3, 5, 17, 11


def build(architecture: Architecture, normalisation: Normalisation = "none", *, rescale: bool = False) -> SAE:
    generator = torch.Generator().manual_seed(2)
    d_in = HEADS * D_HEAD

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = {"W_enc": draw(d_in, FEATURES), "W_dec": draw(FEATURES, d_in), "b_dec": draw(d_in)}
    if architecture == "gated":
        weights |= {"b_gate": draw(FEATURES), "b_mag": draw(FEATURES), "r_mag": 0.3 * draw(FEATURES)}
    else:
        weights["b_enc"] = draw(FEATURES)
    if architecture == "jumprelu":
        weights["threshold"] = torch.full((FEATURES,), 0.5, dtype=torch.float64)
    chosen = {"k": 7} if architecture in ("topk", "batchtopk") else {}
    config = SAEConfig(
        architecture=architecture, d_in=d_in, d_sae=FEATURES, dtype="float64", normalize_activations=normalisation,
        rescale_acts_by_decoder_norm=rescale, **chosen,
    )  # fmt: skip
    return SAE(config, weights)


CASES = [
    *itertools.product(("standard", "gated", "topk", "batchtopk", "jumprelu"), ("none",), (False,)),
    ("topk", "none", True),
    ("standard", "layer_norm", False),
    ("standard", "constant_norm_rescale", False),
]


@pytest.mark.parametrize(("architecture", "normalisation", "rescale"), CASES)
def test_a_feature_that_fires_has_the_value_of_its_linear_reading(
    architecture: Architecture, normalisation: Normalisation, rescale: bool
) -> None:
    sae = build(architecture, normalisation, rescale=rescale)
    z = torch.randn(TOKENS, HEADS * D_HEAD, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    read = reading(sae, HEADS)
    by_head = torch.einsum("nhd,hdf->nhf", z.unflatten(1, (HEADS, D_HEAD)), read.columns) * read.scale(z)[:, None, None]
    pre = by_head.sum(1) + read.bias
    codes = sae.encode(z).detach()
    fires = codes > 0
    assert 10 < int(fires.sum()) < fires.numel()
    torch.testing.assert_close(pre[fires], codes[fires], atol=1e-10, rtol=0)


def test_a_reading_of_some_features_is_part_of_the_whole() -> None:
    sae = build("gated")
    whole, some = reading(sae, HEADS), reading(sae, HEADS, [13, 2])
    assert some.features.tolist() == [13, 2]
    torch.testing.assert_close(some.columns, whole.columns[..., [13, 2]])
    torch.testing.assert_close(some.bias, whole.bias[[13, 2]])


def test_weight_shares_of_a_planted_dictionary_are_exact() -> None:
    known = planted(heads=HEADS, d_head=D_HEAD, features=FEATURES, active=2, rows=3, confined=0.6, seed=1)
    config = SAEConfig(architecture="standard", d_in=HEADS * D_HEAD, d_sae=FEATURES)
    weights = {
        "W_enc": known.dictionary.T, "W_dec": known.dictionary, "b_dec": torch.zeros(15), "b_enc": torch.zeros(FEATURES)
    }  # fmt: skip
    share = weight_share(SAE(config, weights), HEADS)
    confined = known.head >= 0
    assert int(confined.sum()) == 10
    assert torch.equal(share[confined].argmax(1), known.head[confined])
    torch.testing.assert_close(share[confined].max(1).values, torch.ones(10, dtype=torch.float64), atol=1e-7, rtol=0)
    torch.testing.assert_close(share.sum(1), torch.ones(FEATURES, dtype=torch.float64))
    assert float(share[~confined].max()) < 0.9
    best = top_features(share, 1, 3)
    assert [feature for feature, _ in best] == (known.head == 1).nonzero()[:3, 0].tolist()


def test_top_features_leave_out_what_never_fired() -> None:
    share = torch.tensor([[0.5, 0.5], [torch.nan, torch.nan], [0.9, 0.1]])
    assert top_features(share, 0, 5) == [(2, pytest.approx(0.9)), (0, 0.5)]


def test_agreement_by_hand() -> None:
    a = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.2, 0.5, 0.3], [torch.nan] * 3])
    b = torch.tensor([[0.5, 0.4, 0.1], [0.2, 0.1, 0.7], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    found = agreement(a, b, shuffles=50)
    assert found.features == 3
    # ranks: (2 1 0)(2 1 0) -> 1; (0 1 2)(1 0 2) -> 0.5; (0 2 1)(2 1 0) -> -0.5
    assert found.rank == pytest.approx((1 + 0.5 - 0.5) / 3)
    assert found.top_head == pytest.approx(2 / 3)
    # centred at 1/3: sum of products 0.2, of squares 0.34 and 0.37
    x, y = a[:3].double() - 1 / 3, b[:3].double() - 1 / 3
    assert found.pearson == pytest.approx(float((x * y).sum() / (x.square().sum() * y.square().sum()).sqrt()))
    assert found.top_head_control < found.top_head


def test_agreement_of_a_table_with_itself_is_whole_and_its_control_is_not() -> None:
    share = torch.rand(200, 7, generator=torch.Generator().manual_seed(4)).double()
    found = agreement(share, share)
    assert (found.rank, found.top_head) == (pytest.approx(1.0), 1.0)
    assert abs(found.rank_control) < 0.05
    assert found.top_head_control == pytest.approx(1 / 7, abs=0.05)


def test_what_makes_no_sense_is_refused() -> None:
    sae = build("standard")
    with pytest.raises(OptionError, match="divide"):
        weight_share(sae, 4)
    with pytest.raises(OptionError, match="features"):
        reading(sae, HEADS, [FEATURES])
    with pytest.raises(OptionError, match="tables"):
        agreement(torch.rand(3, 2), torch.rand(3, 3))
    with pytest.raises(OptionError, match="at least 2"):
        agreement(torch.full((3, 2), torch.nan), torch.rand(3, 2))
