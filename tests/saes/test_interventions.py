"""Feature interventions against dense float64, written out by hand; the splice with its error term against the model itself."""

from __future__ import annotations

import pytest
import torch

from interp.errors import EditError
from interp.models.toy import tiny
from interp.saes.config import SAEConfig
from interp.saes.core import SAE
from interp.saes.interventions import AblateFeatures, ClampFeatures, SpliceSAE, SteerFeatures

LAYER, HEADS, SIZE, FEATURES = 1, 6, 10, 37
IDS = [11, 17, 23, 29, 31, 37, 41, 43, 47, 53, 59]


def autoencoder(seed=0, **options):
    """Random weights; a bias that makes about a third of the features active."""
    draw = torch.Generator().manual_seed(seed)
    d_in = HEADS * SIZE
    kind = options.pop("architecture", "standard")
    config = SAEConfig(architecture=kind, d_in=d_in, d_sae=FEATURES, **options)
    weights = {
        "W_enc": torch.randn(d_in, FEATURES, generator=draw),
        "W_dec": torch.randn(FEATURES, d_in, generator=draw) / 4,
        "b_dec": torch.randn(d_in, generator=draw) / 5,
        "b_enc": torch.randn(FEATURES, generator=draw) / 2,
    }
    if kind == "jumprelu":
        weights["threshold"] = torch.rand(FEATURES, generator=draw)
    return SAE(config, weights)


@pytest.fixture(scope="module")
def model():
    return tiny("llama")


def z_under(model, *edits, ids=IDS):
    """z of the layer [token, head x size] that its output projection reads, by a plain hook."""
    seen = []
    hook = model.hf.model.layers[LAYER].self_attn.o_proj.register_forward_pre_hook(lambda m, x: seen.append(x[0][0]))
    with torch.no_grad(), model.edit(*edits):
        model.hf(torch.tensor([ids]))
    hook.remove()
    return seen[0].double()


def parts(sae, z):
    """Features and reconstruction of z in float64, by the formula."""
    w = {name: x.detach().double() for name, x in sae.weights.items()}
    pre = (z - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    f = pre.clamp(min=0)
    if "threshold" in w:
        f = f * (pre > w["threshold"])
    return f, w["W_dec"], w["b_dec"]


@pytest.mark.parametrize("kind", ["standard", "jumprelu"])
@pytest.mark.parametrize("error", ["keep", "drop"])
def test_each_kind_is_its_formula(model, kind, error):
    sae = autoencoder(architecture=kind)
    z = z_under(model)
    f, w_dec, b_dec = parts(sae, z)
    left = z - (f @ w_dec + b_dec) if error == "keep" else torch.zeros_like(z)
    given = {"sae": sae, "layers": (LAYER,), "error": error}
    ablated, fixed, active, steered = f.clone(), f.clone(), f.clone(), f.clone()
    ablated[:, [3, 19]] = 0
    fixed[:, 5], fixed[:, 2] = 1.5, -0.25
    active[:, 5] = torch.where(f[:, 5] > 0, 1.5, 0.0)
    steered[:, 5] += 2.5
    steered[:, 7] -= 1.25
    assert 0 < (f[:, 5] > 0).sum() < len(f)
    cases = [
        (SpliceSAE(**given), f),
        (AblateFeatures(**given, features=(3, 19)), ablated),
        (ClampFeatures(**given, values={5: 1.5, 2: -0.25}), fixed),
        (ClampFeatures(**given, values={5: 1.5}, when="active"), active),
        (SteerFeatures(**given, amounts={5: 2.5, 7: -1.25}), steered),
    ]
    for edit, features in cases:
        found = z_under(model, edit)
        torch.testing.assert_close(found, features @ w_dec + b_dec + left, atol=2e-5, rtol=1e-5)
    assert (z_under(model, cases[1][0]) - z).abs().max() > 0.1


@pytest.mark.parametrize("normalise", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_splice_with_its_error_reproduces_the_logits(family, normalise):
    hooked = tiny(family)
    width = hooked.head_outputs(IDS)[LAYER]
    d_in = width.shape[1] * width.shape[3]
    draw = torch.Generator().manual_seed(3)
    config = SAEConfig(architecture="topk", k=5, d_in=d_in, d_sae=FEATURES, normalize_activations=normalise)
    shapes = {"W_enc": (d_in, FEATURES), "W_dec": (FEATURES, d_in), "b_dec": (d_in,), "b_enc": (FEATURES,)}
    sae = SAE(config, {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()})
    clean = hooked.run(IDS).logits
    with hooked.edit(SpliceSAE(sae=sae, layers=(LAYER,))):
        spliced = hooked.run(IDS).logits
    assert (spliced - clean).abs().max() < 1e-4
    with hooked.edit(SpliceSAE(sae=sae, layers=(LAYER,), error="drop")):
        assert (hooked.run(IDS).logits - clean).abs().max() > 1e-2


def test_positions_and_batches(model):
    """Only the named tokens change, wherever padding puts them."""
    sae = autoencoder()
    edit = AblateFeatures(sae=sae, layers=(LAYER,), features=tuple(range(FEATURES)), positions=(2, (5, None)))
    z, found = z_under(model), z_under(model, edit)
    named = torch.tensor([2, *range(5, len(IDS))])
    assert ((found - z).abs().amax(1) > 1e-3).nonzero()[:, 0].tolist() == named.tolist()
    with model.edit(edit):
        together = model.head_outputs([IDS[:7], IDS])[LAYER]
    torch.testing.assert_close(together[1].transpose(0, 1).flatten(1).double(), found, atol=1e-5, rtol=1e-5)
    alone = z_under(model, edit, ids=IDS[:7])
    torch.testing.assert_close(together[0, :, :7].transpose(0, 1).flatten(1).double(), alone, atol=1e-5, rtol=1e-5)


def test_decoding_with_a_cache_is_one_pass(model):
    edit = SteerFeatures(sae=autoencoder(), layers=(LAYER,), amounts={4: 3.0}, positions=((6, None),))
    with model.edit(edit), torch.no_grad():
        whole = model.hf(torch.tensor([IDS])).logits[0]
        first = model.hf(torch.tensor([IDS[:8]]), use_cache=True)
        rest = model.hf(torch.tensor([IDS[8:]]), past_key_values=first.past_key_values).logits[0]
    torch.testing.assert_close(rest, whole[8:], atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        assert (model.hf(torch.tensor([IDS])).logits[0, 8:] - rest).abs().max() > 1e-2


def test_what_is_refused(model):
    sae = autoencoder()
    given = {"sae": sae, "layers": (LAYER,)}
    with pytest.raises(EditError, match="one layer"):
        SpliceSAE(sae=sae)
    with pytest.raises(EditError, match="no features"):
        AblateFeatures(**given, features=(3, FEATURES))
    with pytest.raises(EditError, match="each once"):
        AblateFeatures(**given, features=(3, 3))
    with pytest.raises(EditError, match="at least one"):
        ClampFeatures(**given, values={})
    batch = SAE(SAEConfig(architecture="batchtopk", k=3, d_in=HEADS * SIZE, d_sae=FEATURES), sae.weights)
    with pytest.raises(EditError, match="with_threshold"):
        SpliceSAE(sae=batch, layers=(LAYER,))
    other = tiny("gpt2")
    with pytest.raises(EditError, match="is it of this model"), other.edit(SpliceSAE(**given)):
        other.run(IDS)
    with pytest.raises(EditError, match="never acted"), model.edit(SpliceSAE(**given, positions=(99,))):
        model.run(IDS)


def test_names_say_what_is_done():
    edit = SteerFeatures(sae=autoencoder(), layers=(LAYER,), amounts={n: 1.0 for n in range(8)}, error="drop")
    assert edit.name == "SteerFeatures(features 0 +1, 1 +1, 2 +1, 3 +1, 4 +1, 5 +1 and 2 more, error dropped: layers 1)"
