"""The six encoders against their definitions, worked token by token in float64; shapes of z; changes of weights that change nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from interp.errors import OptionError, ShapeError
from interp.saes.architectures import KINDS, shapes
from interp.saes.config import SAEConfig
from interp.saes.core import SAE, by_token

HEADS, SIZE, FEATURES, TOKENS = 3, 5, 23, 7
D = HEADS * SIZE
OPTIONS: dict[str, dict] = {
    "standard": {},
    "gated": {},
    "topk": {"k": 4},
    "batchtopk": {"k": 2.5},
    "jumprelu": {},
    "matryoshka_batchtopk": {"k": 2.5, "widths": (5, 11, FEATURES)},
}


def build(architecture: str, seed: int = 0, **options: object) -> SAE:
    config = SAEConfig(
        architecture=architecture, d_in=D, d_sae=FEATURES, dtype="float64", **OPTIONS[architecture] | options
    )
    generator = torch.Generator().manual_seed(seed)
    weights = {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in shapes(config).items()}
    if "threshold" in weights:
        weights["threshold"] = weights["threshold"].abs()
    return SAE(config, weights)


def z(seed: int = 9) -> Tensor:
    return torch.randn(2, TOKENS, HEADS, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def by_hand(sae: SAE, x: Tensor) -> Tensor:
    """Features of x [token, d_in], one number at a time."""
    w = sae.weights
    p = torch.stack([torch.stack([(row - w["b_dec"]) @ w["W_enc"][:, i] for i in range(FEATURES)]) for row in x])
    kind = sae.config.architecture
    if kind == "gated":
        magnitude = p * w["r_mag"].exp() + w["b_mag"]
        return torch.where(p + w["b_gate"] > 0, magnitude.clamp(min=0), 0.0)
    acts = (p + w["b_enc"]).clamp(min=0)
    if kind == "jumprelu":
        return torch.where(acts > w["threshold"], acts, 0.0)
    if kind == "topk":
        for row in acts:
            row[row.argsort(descending=True)[4:]] = 0
    if "batch" in kind:
        flat = acts.flatten()
        flat[flat.argsort(descending=True)[int(2.5 * len(x)) :]] = 0
    return acts


@pytest.mark.parametrize("architecture", KINDS)
def test_features_and_reconstruction_by_hand(architecture: str) -> None:
    sae = build(architecture)
    x = z().flatten(0, 1).flatten(-2)
    wanted = by_hand(sae, x)
    assert 0 < int((wanted > 0).sum()) < wanted.numel()
    features = sae.encode(x)
    assert torch.allclose(features, wanted, atol=1e-10)
    assert torch.allclose(sae.decode(features), wanted @ sae.W_dec + sae.b_dec, atol=1e-10)


@pytest.mark.parametrize("architecture", KINDS)
def test_z_comes_flat_or_by_heads_in_3_or_4_dimensions(architecture: str) -> None:
    sae = build(architecture)
    by_heads = z()
    features = sae.encode(by_heads)
    assert features.shape == (2, TOKENS, FEATURES)
    assert torch.equal(features, sae.encode(by_heads.flatten(-2)))
    assert torch.equal(sae.encode(by_heads.flatten(0, 1)), features.flatten(0, 1))
    assert sae(by_heads).shape == by_heads.shape
    assert torch.equal(sae(by_heads).flatten(-2), sae(by_heads.flatten(-2)))
    assert torch.equal(sae.decode(features), sae(by_heads).flatten(-2))


def test_head_outputs_are_brought_by_token() -> None:
    ours = z().transpose(1, 2)
    assert torch.equal(by_token(ours), z().flatten(-2))
    with pytest.raises(ShapeError, match="batch, head, token"):
        by_token(z()[0])


@pytest.mark.parametrize("shape", [(2, 7, 4, 5), (14,), (3, 5, 2)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="head x d_head = 15"):
        build("standard").encode(torch.zeros(shape))


@pytest.mark.parametrize("architecture", ["standard", "gated", "jumprelu", "topk", "batchtopk"])
def test_folding_the_decoder_norms_changes_units_alone(architecture: str) -> None:
    by_norm = {"rescale_acts_by_decoder_norm": True} if "topk" in architecture else {}
    sae = build(architecture, **by_norm)
    folded, x = sae.folded(), z()
    assert torch.allclose(folded.W_dec.norm(dim=-1), torch.ones(FEATURES, dtype=torch.float64))
    assert torch.allclose(folded(x), sae(x), atol=1e-9)
    units = 1.0 if by_norm else sae.W_dec.norm(dim=-1)
    assert torch.allclose(folded.encode(x), sae.encode(x) * units, atol=1e-9)
    assert not folded.config.rescale_acts_by_decoder_norm


def test_by_norm_the_k_largest_are_those_that_write_most() -> None:
    sae, x = build("topk", rescale_acts_by_decoder_norm=True), z().flatten(0, 1).flatten(-2)
    plain = build("standard").encode(x) * sae.W_dec.norm(dim=-1)
    kept = plain >= plain.sort(-1).values[:, -4:-3]
    assert torch.allclose(sae.encode(x), plain * kept, atol=1e-10)
    assert not torch.equal(sae.encode(x) > 0, build("topk").encode(x) > 0)


@pytest.mark.parametrize("architecture", ["standard", "gated", "jumprelu", "topk"])
def test_a_scale_of_the_inputs_goes_into_the_weights(architecture: str) -> None:
    sae, x = build(architecture), z()
    assert torch.allclose(sae.unscaled(2.5).encode(x), sae.encode(2.5 * x), atol=1e-9)
    assert torch.allclose(sae.unscaled(2.5)(x), sae(2.5 * x) / 2.5, atol=1e-9)
    kept = sae.unscaled(2.5, keep="decoder")
    assert torch.equal(kept.W_dec, sae.W_dec)
    assert torch.allclose(kept.encode(x), sae.encode(2.5 * x) / 2.5, atol=1e-9)
    assert torch.allclose(kept(x), sae(2.5 * x) / 2.5, atol=1e-9)


def test_a_threshold_frees_a_token_from_its_batch() -> None:
    sae, x = build("batchtopk"), z().flatten(0, 1).flatten(-2)
    acts = build("standard").encode(x)
    fixed = sae.with_threshold(0.8)
    assert fixed.config.architecture == "jumprelu"
    assert torch.allclose(fixed.encode(x), acts * (acts > 0.8), atol=1e-10)
    assert torch.allclose(fixed.encode(x[:1]), fixed.encode(x)[:1])
    alone = torch.cat([sae.encode(row[None]) for row in x])
    assert not torch.equal(alone > 0, sae.encode(x) > 0)


@pytest.mark.parametrize("kind", ["layer_norm", "constant_norm_rescale"])
def test_normalisation_is_undone(kind: str) -> None:
    sae, x = build("standard", normalize_activations=kind), z().flatten(-2)
    plain = build("standard")
    if kind == "layer_norm":
        shift, scale = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        inner = (x - shift) / (scale + 1e-5)
    else:
        shift, scale = torch.zeros(1, dtype=torch.float64), x.norm(dim=-1, keepdim=True) / D**0.5
        inner = x / scale
    assert torch.allclose(sae.encode(x), plain.encode(inner), atol=1e-10)
    assert torch.allclose(sae(x), plain(inner) * scale + shift, atol=1e-9)
    with pytest.raises(OptionError, match="like=z"):
        sae.decode(sae.encode(x))


def test_no_input_is_written_to() -> None:
    x = z()
    before = x.clone()
    for architecture in KINDS:
        build(architecture)(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 3}, "k is for"),
        ({"architecture": "topk"}, "k is for"),
        ({"architecture": "topk", "k": 2.5}, "whole number"),
        ({"architecture": "topk", "k": 99}, "at most d_sae"),
        ({"widths": (3, 23)}, "widths are for"),
        ({"architecture": "matryoshka_batchtopk", "k": 2, "widths": (5, 5, 23)}, "must increase"),
        ({"architecture": "matryoshka_batchtopk", "k": 2, "widths": (5, 11)}, "must increase"),
        ({"dtype": "int8"}, "dtype must be"),
        ({"d_sae": 0}, "at least 1"),
    ],
)
def test_a_configuration_that_makes_no_sense(options: dict, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        SAEConfig(**{"architecture": "standard", "d_in": D, "d_sae": FEATURES} | options)


def test_weights_that_do_not_fit_are_all_named() -> None:
    sae = build("jumprelu")
    weights = {n: w for n, w in sae.weights.items() if n != "threshold"} | {
        "b_gate": torch.zeros(FEATURES),
        "b_dec": torch.zeros(4),
    }
    with pytest.raises(
        ShapeError, match=r"b_dec: wanted \(15,\), got \(4,\); b_gate: wanted none.*threshold.*got none"
    ):
        SAE(sae.config, weights)


def test_changes_that_would_change_the_function_are_refused() -> None:
    for refused in (
        lambda: build("topk").folded(),
        lambda: build("topk", rescale_acts_by_decoder_norm=True).unscaled(2.0),
    ):
        with pytest.raises(OptionError, match="norms"):
            refused()
    with pytest.raises(OptionError, match="batchtopk"):
        build("topk").with_threshold(0.5)
