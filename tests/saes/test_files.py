"""Files of autoencoders: what SAELens itself wrote, what dictionary_learning and Kissane wrote, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.errors import CorruptFileError, OptionError, OutputError, UnsupportedModelError
from interp.saes.config import SAEConfig
from interp.saes.core import SAE
from interp.saes.files import load, load_density, save

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(p.name for p in GOLDEN.iterdir() if p.is_dir() and (p / "cfg.json").exists())
D, F = 7, 11


def test_there_are_golden_folders() -> None:
    assert len(NAMES) == 11


@pytest.mark.parametrize("name", NAMES)
def test_what_saelens_wrote_computes_what_saelens_computed(name: str) -> None:
    sae, expected = load(GOLDEN / name), load_file(GOLDEN / name / "expected.safetensors")
    features = sae.encode(expected["z"])
    assert torch.equal(features > 0, expected["features"] > 0)
    assert torch.allclose(features, expected["features"], atol=2e-6)
    assert torch.allclose(sae(expected["z"]), expected["out"], atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_saving_it_again_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    save(load(GOLDEN / name), tmp_path)
    for file in ("cfg.json", "sae_weights.safetensors"):
        assert (tmp_path / file).read_bytes() == (GOLDEN / name / file).read_bytes()


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def own() -> SAE:
    weights = {"W_enc": drawn(D, F), "W_dec": drawn(F, D), "b_dec": drawn(D), "b_enc": drawn(F)}
    return SAE(
        SAEConfig(architecture="standard", d_in=D, d_sae=F, metadata={"model_name": "tiny", "layer": 3}), weights
    )


def test_an_own_one_round_trips_with_its_densities(tmp_path: Path) -> None:
    density = torch.rand(F)
    save(own(), tmp_path, density=density)
    again, x = load(tmp_path), drawn(5, D)
    assert torch.equal(again.encode(x), own().encode(x))
    assert again.config.metadata["layer"] == 3
    found = load_density(tmp_path)
    assert found is not None
    assert torch.allclose(found, density, atol=1e-6)
    assert load_density(GOLDEN / "topk") is None


def test_a_saelens_before_6_is_read(tmp_path: Path) -> None:
    weights = {
        "W_enc": drawn(D, F),
        "W_dec": drawn(F, D),
        "b_dec": drawn(D),
        "b_enc": drawn(F),
        "scaling_factor": torch.ones(F),
    }
    save_file(weights, tmp_path / "sae_weights.safetensors")
    old = {
        "hook_point": "blocks.2.attn.hook_z", "d_in": D, "d_sae": F, "dtype": "torch.float32", "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 2}, "normalize_activations": False, "model_name": "gpt2",
    }  # fmt: skip
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    sae = load(tmp_path)
    assert (sae.config.architecture, sae.config.k, sae.config.reshape_activations) == ("topk", 2, "hook_z")
    assert sae.config.metadata == {"model_name": "gpt2", "hook_name": "blocks.2.attn.hook_z"}


def test_inputs_that_were_scaled_need_their_factor(tmp_path: Path) -> None:
    save(own(), tmp_path)
    record = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(record | {"normalize_activations": "expected_average_only_in"}))
    with pytest.raises(OptionError, match="give scale="):
        load(tmp_path)
    x = drawn(5, D)
    assert torch.allclose(load(tmp_path, scale=2.5)(x), own()(2.5 * x) / 2.5, atol=1e-5)


def dictionary_learning(folder: Path, name: str, weights: dict[str, torch.Tensor]) -> SAE:
    torch.save(weights, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": name, "lm_name": "m", "layer": 4}}))
    return load(folder)


def linear(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"encoder.weight": drawn(F, D), "decoder.weight": drawn(D, F), **more}


# The encoders of dictionary_learning, from its published definitions, in torch's own words.
def test_dictionary_learning_standard(tmp_path: Path) -> None:
    w = linear(**{"encoder.bias": drawn(F), "bias": drawn(D)})
    sae, x = dictionary_learning(tmp_path, "AutoEncoder", w), drawn(5, D)
    f = torch.relu((x - w["bias"]) @ w["encoder.weight"].T + w["encoder.bias"])
    assert torch.allclose(sae.encode(x), f, atol=1e-6)
    assert torch.allclose(sae(x), f @ w["decoder.weight"].T + w["bias"], atol=1e-5)
    assert sae.config.metadata["hook_name"] == "layer 4"


def test_dictionary_learning_new_takes_no_bias_off(tmp_path: Path) -> None:
    w = linear(**{"encoder.bias": drawn(F), "decoder.bias": drawn(D)})
    sae, x = dictionary_learning(tmp_path, "AutoEncoderNew", w), drawn(5, D)
    assert torch.allclose(sae.encode(x), torch.relu(x @ w["encoder.weight"].T + w["encoder.bias"]), atol=1e-6)


def test_dictionary_learning_gated_counts_in_decoder_norms(tmp_path: Path) -> None:
    w = linear(decoder_bias=drawn(D), gate_bias=drawn(F, seed=1), mag_bias=drawn(F, seed=2), r_mag=drawn(F, seed=3))
    sae, x = dictionary_learning(tmp_path, "GatedAutoEncoder", w), drawn(5, D)
    p = (x - w["decoder_bias"]) @ w["encoder.weight"].T
    f = (p + w["gate_bias"] > 0) * torch.relu(w["r_mag"].exp() * p + w["mag_bias"])
    assert torch.allclose(sae.encode(x), f * w["decoder.weight"].norm(dim=0), atol=1e-5)
    assert torch.allclose(sae(x), f @ w["decoder.weight"].T + w["decoder_bias"], atol=1e-5)


def test_dictionary_learning_topk(tmp_path: Path) -> None:
    w = linear(**{"encoder.bias": drawn(F), "b_dec": drawn(D), "k": torch.tensor(3), "threshold": torch.tensor(0.5)})
    sae, x = dictionary_learning(tmp_path, "AutoEncoderTopK", w), drawn(5, D)
    acts = torch.relu((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"])
    kept = acts >= acts.sort(-1).values[:, -3:-2]
    assert torch.allclose(sae.encode(x), acts * kept, atol=1e-6)


@pytest.mark.parametrize(("threshold", "bar"), [(0.75, 0.75), (-1.0, 0.0)])
def test_dictionary_learning_batchtopk_is_read_with_its_threshold(tmp_path: Path, threshold: float, bar: float) -> None:
    more = {"encoder.bias": drawn(F), "b_dec": drawn(D), "k": torch.tensor(3), "threshold": torch.tensor(threshold)}
    w = linear(**more)
    sae, x = dictionary_learning(tmp_path, "BatchTopKSAE", w), drawn(5, D)
    acts = torch.relu((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"])
    assert torch.allclose(sae.encode(x), acts * (acts > bar), atol=1e-6)


def test_dictionary_learning_jumprelu_and_matryoshka(tmp_path: Path) -> None:
    w = {
        "W_enc": drawn(D, F),
        "b_enc": drawn(F),
        "W_dec": drawn(F, D),
        "b_dec": drawn(D),
        "threshold": drawn(F, seed=1).abs(),
    }
    sae, x = dictionary_learning(tmp_path, "JumpReluAutoEncoder", w), drawn(5, D)
    pre = x @ w["W_enc"] + w["b_enc"]
    f = torch.relu(pre * (pre > w["threshold"]))
    assert torch.allclose(sae.encode(x), f * w["W_dec"].norm(dim=1), atol=1e-5)
    assert torch.allclose(sae(x), f @ w["W_dec"] + w["b_dec"], atol=1e-5)
    sae = dictionary_learning(tmp_path, "MatryoshkaBatchTopKSAE", w | {"threshold": torch.tensor(0.4)})
    acts = torch.relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    assert torch.allclose(sae.encode(x), acts * (acts > 0.4), atol=1e-6)


def test_kissane(tmp_path: Path) -> None:
    w = {"W_enc": drawn(D, F), "b_enc": drawn(F), "W_dec": drawn(F, D), "b_dec": drawn(D)}
    torch.save(w, tmp_path / "L5.pt")
    with pytest.raises(CorruptFileError, match=r"L5_cfg\.json"):
        load(tmp_path / "L5.pt")
    record = {"act_size": D, "dict_size": F, "act_name": "blocks.5.attn.hook_z", "model_name": "gpt2"}
    (tmp_path / "L5_cfg.json").write_text(json.dumps(record))
    sae, x = load(tmp_path / "L5.pt"), drawn(5, D)
    assert torch.allclose(sae.encode(x), torch.relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]), atol=1e-6)
    assert sae.config.reshape_activations == "hook_z"
    assert sae.config.metadata["hook_name"] == "blocks.5.attn.hook_z"


class Bomb:
    """What a file that holds code would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return open, ("/nowhere",)


def test_a_file_that_holds_code_is_refused(tmp_path: Path) -> None:
    torch.save({"bias": Bomb()}, tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CorruptFileError, match="plain tensors"):
        load(tmp_path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sae.bin").write_bytes(b"x")
    for path in (tmp_path, tmp_path / "sae.bin", tmp_path / "missing.pt"):
        with pytest.raises(UnsupportedModelError, match="nothing else is read"):
            load(path)
    with pytest.raises(UnsupportedModelError, match="CrossCoder"):
        dictionary_learning(tmp_path, "CrossCoder", linear())
    with pytest.raises(CorruptFileError, match="do not fit"):
        dictionary_learning(tmp_path, "AutoEncoder", linear())


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    save(own(), tmp_path)
    (tmp_path / "sae_weights.safetensors").write_bytes(b"cut short")
    with pytest.raises(CorruptFileError, match="no readable autoencoder"):
        load(tmp_path)
    save(own(), tmp_path)
    record = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(record | {"d_sae": F + 1}))
    with pytest.raises(CorruptFileError, match="do not fit"):
        load(tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps(record | {"architecture": "temporal"}))
    with pytest.raises(UnsupportedModelError, match="temporal"):
        load(tmp_path)


def test_saving_says_where_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        save(own(), tmp_path / "file")
    config = SAEConfig(architecture="batchtopk", d_in=D, d_sae=F, k=2)
    with pytest.raises(OptionError, match="with_threshold"):
        save(SAE(config, own().weights), tmp_path / "new")
