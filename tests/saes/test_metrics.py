"""Metrics against their definitions written out, both readings; losses in the model against plain hooks on the Hugging Face module."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from interp.errors import CorruptFileError, EditError, OptionError
from interp.models.hooked import HookedModel
from interp.models.toy import tiny
from interp.saes.config import SAEConfig
from interp.saes.core import SAE
from interp.saes.evaluation import Evaluation, evaluate
from interp.saes.harvest import HarvestPlan, harvest
from interp.saes.metrics import density_histogram, reconstruction, weight_cosines
from interp.saes.model_losses import LossMeter
from interp.saes.probing import TASKS, sparse_probing
from interp.saes.splice import ReplaceOutputs
from interp.saes.store import Store, z_path

LENGTHS = (11, 7, 13)
LAYER = 1


@pytest.fixture(scope="module")
def model() -> HookedModel:
    return tiny("llama")


def contexts() -> list[list[int]]:
    ids = 7 + torch.randperm(200, generator=torch.Generator().manual_seed(3))
    return [part.tolist() for part in ids[: sum(LENGTHS)].split(list(LENGTHS))]


@pytest.fixture(scope="module")
def store(model: HookedModel, tmp_path_factory: pytest.TempPathFactory) -> Store:
    plan = HarvestPlan(layers=(LAYER,), dtype="float32", shard_tokens=15)
    return harvest(model, contexts(), tmp_path_factory.mktemp("z"), plan)


def build(d_in: int, features: int = 23) -> SAE:
    generator = torch.Generator().manual_seed(5)
    weights = {
        "W_enc": torch.randn(d_in, features, generator=generator) * 0.3,
        "W_dec": torch.randn(features, d_in, generator=generator) * 0.2,
        "b_dec": torch.randn(d_in, generator=generator) * 0.1,
        "b_enc": torch.randn(features, generator=generator) - 0.5,
        "threshold": torch.full((features,), 0.2),
    }
    weights["b_enc"][4] = -1e6  # a dead feature
    return SAE(SAEConfig(architecture="jumprelu", d_in=d_in, d_sae=features), weights)


def value(table: pd.DataFrame, metric: str, positions: str = "all") -> float:
    (found,) = table[(table["metric"] == metric) & (table["positions"] == positions)]["value"]
    return float(found)


@pytest.mark.parametrize("positions", ["all", "without first"])
def test_reconstruction_by_definition(positions: str, store: Store) -> None:
    sae = build(store.d_in)
    x = torch.cat([store.z(LAYER, s) for s in range(store.shards)]).double()
    place = np.concatenate([np.arange(n) for n in LENGTHS])
    x = x if positions == "all" else x[torch.from_numpy(place > 0)]
    with torch.no_grad():
        f = sae.encode(x.float()).double()
        out = sae(x.float()).double()
    found = reconstruction(sae, store, LAYER)
    density = (f > 0).double().mean(0)
    cosine = torch.cosine_similarity(x, out, dim=-1)
    wanted = {
        "rows": len(x),
        "l0": (f > 0).sum(-1).double().mean(),
        "l1": f.sum(-1).mean(),
        "mse": (x - out).pow(2).sum(-1).mean(),
        "ev": 1 - (x - out).pow(2).sum() / (x - x.mean(0)).pow(2).sum(),
        "cosine": cosine.mean(),
        "l2_ratio": (out.norm(dim=-1) / x.norm(dim=-1)).mean(),
        "bias": out.pow(2).sum() / (x * out).sum(),
        "alive": (density > 0).double().mean(),
        "above_1": (density > 0.01).double().mean(),
        "above_10": (density > 0.1).double().mean(),
    }
    for metric, number in wanted.items():
        assert value(found.table, metric, positions) == pytest.approx(float(number), rel=1e-5), metric
    assert torch.allclose(found.density[0 if positions == "all" else 1], density)
    assert 0 < value(found.table, "alive", positions) < 1


def test_cosines_of_weights() -> None:
    sae = build(13)
    with torch.no_grad():
        sae.W_dec[3] = 2.0 * sae.W_dec[8]
    encoder, decoder = (w.detach() / w.detach().norm(dim=-1, keepdim=True) for w in (sae.W_enc.T, sae.W_dec))
    found = weight_cosines(sae)
    assert found["encoder_decoder"] == pytest.approx(float((encoder * decoder).sum(-1).mean()), abs=1e-6)
    for name, rows in (("decoder_max", decoder), ("encoder_max", encoder)):
        best = [max(float(a @ b) for j, b in enumerate(rows) if j != i) for i, a in enumerate(rows)]
        assert found[name] == pytest.approx(float(np.mean(best)), abs=1e-6)


def test_densities_as_a_histogram() -> None:
    edges, counts = density_histogram(torch.tensor([0.0, 0.0, 1e-9, 0.5, 0.05, 0.02, 1.0]), bins=6, lowest=-6.0)
    assert edges.tolist() == [-6, -5, -4, -3, -2, -1, 0]
    assert counts.tolist() == [1, 0, 0, 0, 2, 2]


def test_an_autoencoder_of_something_else_is_refused(store: Store) -> None:
    with pytest.raises(OptionError, match="of this model"):
        reconstruction(build(7), store, LAYER)
    sae = build(store.d_in)
    weights = {n: w for n, w in sae.weights.items() if n != "threshold"}
    by_batch = SAE(SAEConfig(architecture="batchtopk", d_in=store.d_in, d_sae=23, k=2), weights)
    with pytest.raises(OptionError, match="threshold"):
        reconstruction(by_batch, store, LAYER)


# ---------------------------------------------------------------------- in the model
class Replace:
    """What o_proj of the layer reads, replaced from outside by plain torch hooks."""

    def __init__(self, model: HookedModel, function: object, spare: bool) -> None:
        self.projection: nn.Module = model.hf.model.layers[LAYER].self_attn.o_proj
        self.function, self.spare = function, spare

    def __call__(self, module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        new = self.function(given[0])
        return (torch.cat([given[0][:, :1], new[:, 1:]], 1) if self.spare else new,)

    def __enter__(self) -> None:
        self.handle = self.projection.register_forward_pre_hook(self)

    def __exit__(self, *_: object) -> None:
        self.handle.remove()


def by_hooks(model: HookedModel, function: object, positions: str) -> tuple[float, float]:
    """Mean cross-entropy and divergence from the clean prediction, from the model's own logits."""
    first = 0 if positions == "all" else 1
    loss, divergence, count = 0.0, 0.0, 0
    for ids in contexts():
        batch = torch.tensor([ids])
        with torch.no_grad():
            clean = model.hf(batch).logits[0].double().log_softmax(-1)
            with Replace(model, function, first == 1):
                changed = model.hf(batch).logits[0].double().log_softmax(-1)
        for place in range(first, len(ids) - 1):
            loss -= float(changed[place, ids[place + 1]])
            divergence += float((clean[place].exp() * (clean[place] - changed[place])).sum())
            count += 1
    return loss / count, divergence / count


@pytest.mark.parametrize("positions", ["all", "without first"])
def test_losses_in_the_model_are_those_of_plain_hooks(positions: str, model: HookedModel, store: Store) -> None:
    sae = build(store.d_in)
    meter = LossMeter(model, LAYER, contexts())
    table = meter.measure(sae)
    z = torch.cat([store.z(LAYER, s) for s in range(store.shards)])
    place = torch.cat([torch.arange(n) for n in LENGTHS])
    mean = z.mean(0) if positions == "all" else z[place > 0].mean(0)
    clean, _ = by_hooks(model, lambda x: x, positions)
    found = {
        "sae": by_hooks(model, sae, positions),
        "zero": by_hooks(model, torch.zeros_like, positions),
        "mean": by_hooks(model, lambda x: mean.expand_as(x), positions),
    }
    assert value(table, "ce_clean", positions) == pytest.approx(clean, abs=1e-4)
    for name, (ce, kl) in found.items():
        assert value(table, f"ce_{name}", positions) == pytest.approx(ce, abs=1e-4)
        assert value(table, f"kl_{name}", positions) == pytest.approx(kl, abs=1e-4)
        assert kl > 0.01
    for name in ("zero", "mean"):
        share = (found[name][0] - found["sae"][0]) / (found[name][0] - clean)
        assert value(table, f"recovered_{name}", positions) == pytest.approx(share, rel=1e-2)
        assert value(table, f"kl_recovered_{name}", positions) == pytest.approx(
            1 - found["sae"][1] / found[name][1], rel=1e-2
        )
    if positions == "all":
        assert meter.recovered(sae) == value(table, "recovered_zero")


def test_a_perfect_reconstruction_recovers_everything(model: HookedModel, store: Store) -> None:
    d = store.d_in
    weights = {
        "W_enc": torch.cat([torch.eye(d), -torch.eye(d)], 1),
        "W_dec": torch.cat([torch.eye(d), -torch.eye(d)]),
        "b_dec": torch.zeros(d),
    }
    sae = SAE(SAEConfig(architecture="standard", d_in=d, d_sae=2 * d), {**weights, "b_enc": torch.zeros(2 * d)})
    table = LossMeter(model, LAYER, contexts()).measure(sae)
    for positions in ("all", "without first"):
        assert value(table, "recovered_zero", positions) == pytest.approx(1.0, abs=1e-4)
        assert value(table, "kl_sae", positions) == pytest.approx(0.0, abs=1e-5)
    ev = reconstruction(sae, store, LAYER)
    assert value(ev.table, "ev") == pytest.approx(1.0, abs=1e-6)


def test_replacing_is_for_one_whole_layer_and_keeps_shapes(model: HookedModel) -> None:
    with pytest.raises(EditError, match="one layer"):
        ReplaceOutputs(layers=(0, 1), function=torch.zeros_like, label="zero")
    with (
        pytest.raises(EditError, match="shape"),
        model.edit(ReplaceOutputs(layers=(0,), function=lambda z: z[:, :1], label="cut")),
    ):
        model.run([9, 8, 7])
    with pytest.raises(OptionError, match="at least 3"):
        LossMeter(model, LAYER, [[9, 8]])


# ---------------------------------------------------------------------- probes
def test_answers_of_the_tasks() -> None:
    strings = [" The", " sum", "(", "12", ")", "\n", " sum", "x"]
    ids = [1, 2, 3, 4, 5, 6, 2, 7]
    answers = {task: [i for i, yes in enumerate(answer(strings, ids)) if yes] for task, answer in TASKS.items()}
    assert answers == {
        "digit": [3],
        "capital": [0],
        "word start": [0, 1, 6],
        "repeated": [6],
        "after a repeated token": [7],
        "in brackets": [3, 4],
        "after a line end": [6],
    }


def test_a_feature_that_tells_is_found(model: HookedModel, tmp_path: Path) -> None:
    """One feature of the autoencoder copies a number of z that says whether the token is a digit; nothing else tells."""
    generator = torch.Generator().manual_seed(0)
    letters = string.ascii_letters + string.digits
    draws = [torch.randint(len(letters), (40,), generator=generator).tolist() for _ in range(40)]
    texts = [model.encode("".join(letters[i] for i in draw)) for draw in draws]
    harvest(model, texts, tmp_path, HarvestPlan(layers=(0,), dtype="float32", shard_tokens=400, keep_special=True))
    store = Store(tmp_path)
    strings = [model.tokens(t) for t in texts]
    digits = torch.tensor([any(c.isdigit() for c in s) for t in strings for s in t])
    assert 200 < int(digits.sum()) < 320
    start = 0
    for shard, rows in enumerate(store.shard_rows):
        z = torch.randn(rows, store.d_in, generator=generator)
        z[:, 3] = digits[start : start + rows].float() * 4.0 + 0.1 * torch.randn(rows, generator=generator)
        save_file({"z": z}, z_path(tmp_path, 0, shard))
        start += rows
    d = store.d_in
    mix = torch.linalg.qr(torch.randn(d, d, generator=generator)).Q
    eye = torch.eye(d)
    sae = SAE(
        SAEConfig(architecture="standard", d_in=d, d_sae=d),
        {"W_enc": eye, "W_dec": eye, "b_dec": torch.zeros(d), "b_enc": torch.zeros(d)},
    )
    table = sparse_probing(sae, store, 0, model.tokens, ks=(1, 2))
    row = table[(table["task"] == "digit") & (table["k"] == 1)].iloc[0]
    assert row["accuracy"] > 0.95 and row["z_same_k"] > 0.95 and row["z_all"] > 0.95
    assert abs(row["shuffled"] - 0.5) < 0.2
    other = table[(table["task"] == "capital") & (table["k"] == 2)].iloc[0]
    assert other["accuracy"] < 0.75
    turned = SAE(sae.config, {"W_enc": mix, "W_dec": mix.T, "b_dec": torch.zeros(d), "b_enc": torch.zeros(d)})
    mixed = sparse_probing(turned, store, 0, model.tokens, ks=(1,))
    assert float(mixed[mixed["task"] == "digit"]["accuracy"].iloc[0]) < row["accuracy"]
    with pytest.raises(OptionError, match="ks must be"):
        sparse_probing(sae, store, 0, model.tokens, ks=(0,))


def test_an_evaluation_is_saved_read_and_drawn(model: HookedModel, store: Store, tmp_path: Path) -> None:
    sae = build(store.d_in)
    found = evaluate(sae, model, store, LAYER, probing_rows=0)
    assert {"ev", "ce_sae", "kl_zero", "encoder_decoder"} <= set(found.frame.index)
    assert list(found.frame.columns) == ["all", "without first"]
    assert found.frame.loc["ce_clean", "all"] == value(found.table, "ce_clean")
    again = Evaluation.load(found.save(tmp_path / "eval"))
    assert again.table.equals(found.table)
    assert torch.equal(again.density, found.density)
    assert again.manifest["autoencoder"]["d_sae"] == 23
    figure = again.plot()
    assert "density" in str(figure.layout)
    with pytest.raises(CorruptFileError, match="no evaluation"):
        Evaluation.load(tmp_path)
