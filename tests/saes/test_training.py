"""Training: a planted dictionary is found, a stopped training goes on to the very same weights, and the rules of a step hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from interp.errors import CorruptFileError, OptionError, PlanMismatchError
from interp.saes.core import SAE
from interp.saes.files import load, load_density
from interp.saes.finish import threshold_for
from interp.saes.initial import active_subspace, geometric_median, initial
from interp.saes.log import Report, Reporting, read_log
from interp.saes.planted import Planted, planted
from interp.saes.recipe import JumpReLURecipe, Recipe, after_resampling
from interp.saes.resampling import resample
from interp.saes.store import Store, tokens_path, write_manifest, z_path
from interp.saes.training import Trainer, train

HEADS, SIZE, FEATURES, ACTIVE = 3, 8, 24, 2
D = HEADS * SIZE


def stored(folder: Path, z: Tensor, shard: int = 1_000, layer: int = 5) -> Store:
    """A harvest of rows that no model made: contexts of 10 rows."""
    shards = []
    for number, part in enumerate(z.split(shard)):
        for path in (z_path(folder, layer, number), tokens_path(folder, number)):
            path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"z": part.contiguous()}, z_path(folder, layer, number))
        lengths = torch.full((len(part) // 10,), 10, dtype=torch.int32)
        rows = torch.arange(len(part), dtype=torch.int32)
        save_file({"ids": rows.clone(), "lengths": lengths, "rows": rows}, tokens_path(folder, number))
        shards.append({"rows": len(part), "contexts": len(lengths), "tokens": len(part)})
    model = {"name": "planted", "kind": "test"}
    settings = {"keep_special": True}
    manifest = {
        "layers": [layer],
        "d_in": z.shape[1],
        "heads": HEADS,
        "model": model,
        "settings": settings,
        "text": {},
        "versions": {},
    }
    write_manifest(folder, {**manifest, "shards": shards})
    return Store(folder)


@pytest.fixture(scope="module")
def truth() -> Planted:
    return planted(heads=HEADS, d_head=SIZE, features=FEATURES, active=ACTIVE, rows=20_000, seed=1)


@pytest.fixture(scope="module")
def store(truth: Planted, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return stored(tmp_path_factory.mktemp("planted"), truth.z)


def recipe(**options: object) -> Recipe:
    given = {
        "architecture": "topk",
        "d_sae": FEATURES,
        "k": ACTIVE,
        "tokens": 3_000,
        "batch": 100,
        "buffer": 5_000,
        "warmup": 5,
    }
    options = options if options.get("architecture", "topk") != "standard" else {"k": None, **options}
    return Recipe(**given | options)


def found_share(sae: SAE, truth: Planted) -> float:
    """Share of the planted vectors that some decoder row matches with a cosine above 0.95."""
    rows = sae.W_dec.detach() / sae.W_dec.detach().norm(dim=-1, keepdim=True)
    return float(((truth.dictionary @ rows.T).amax(-1) > 0.95).double().mean())


def test_what_is_planted(truth: Planted) -> None:
    assert torch.allclose(truth.dictionary.norm(dim=-1), torch.ones(FEATURES))
    assert ((truth.codes > 0).sum(-1) == ACTIVE).all()
    assert abs(float(truth.codes[truth.codes > 0].mean()) - 3.0) < 0.05
    for row, head in zip(truth.dictionary.unflatten(1, (HEADS, SIZE)), truth.head.tolist(), strict=True):
        used = (row.norm(dim=-1) > 0).nonzero()[:, 0].tolist()
        assert used == ([head] if head >= 0 else list(range(HEADS)))
    with pytest.raises(OptionError, match="active"):
        planted(heads=2, d_head=2, features=3, active=4, rows=5)


@pytest.mark.medium
@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("topk", {}),
        ("topk", {"decoder": "free"}),
        ("batchtopk", {}),
        ("matryoshka_batchtopk", {"widths": (36, 2 * FEATURES)}),
        ("standard", {"k": None, "sparsity": 1.5}),
        ("gated", {"k": None, "sparsity": 3.0}),
        ("jumprelu", {"k": None, "sparsity": 0.6, "jumprelu": JumpReLURecipe(threshold=0.1, bandwidth=0.5)}),
    ],
)
def test_a_planted_dictionary_is_found(
    architecture: str, options: dict, truth: Planted, store: Store, tmp_path: Path
) -> None:
    given = {"tokens": 600_000, "batch": 400, "learning_rate": 3e-3, "dead_after": 4_000, "warmup": 50}
    how = recipe(architecture=architecture, d_sae=2 * FEATURES, **given, **options)
    sae = train(store, 5, how, tmp_path, reporting=Reporting(log_every=500, checkpoint_every=0))
    assert found_share(sae, truth) >= 0.95
    with torch.no_grad():
        left = (truth.z - sae(truth.z)).square().sum() / (truth.z - truth.z.mean(0)).square().sum()
    assert float(left) < 0.1


def test_the_true_dictionary_loses_nothing(truth: Planted) -> None:
    from interp.saes.config import SAEConfig

    # More inputs than vectors, so that the pseudo-inverse reads every code exactly.
    known = planted(heads=5, d_head=6, features=11, active=3, rows=200, seed=2)
    weights = {
        "W_dec": known.dictionary,
        "W_enc": torch.linalg.pinv(known.dictionary),
        "b_dec": torch.zeros(30),
        "b_enc": torch.zeros(11),
    }
    sae = SAE(SAEConfig(architecture="topk", d_in=30, d_sae=11, k=3), weights)
    assert torch.allclose(sae(known.z), known.z, atol=1e-4)
    assert torch.allclose(sae.encode(known.z), known.codes, atol=1e-4)


class Stop(Exception):
    """Ends a training in the middle."""


def stop_at(step: int) -> Callable[[Report], None]:
    def hear(report: Report) -> None:
        if report.step >= step:
            raise Stop

    return hear


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"architecture": "batchtopk", "decoder": "free", "k_anneal": 10},
        {"architecture": "standard", "resample_every": 7, "sparsity": 5.0},
    ],
    ids=["topk", "batchtopk", "standard, resampled"],
)
def test_a_stopped_training_goes_on_to_the_same_weights(options: dict, store: Store, tmp_path: Path) -> None:
    how = recipe(dead_after=500, **options)
    reporting = Reporting(log_every=1, checkpoint_every=10)
    whole = train(store, 5, how, tmp_path / "whole", reporting=reporting)
    for step in (14, 23):  # stopped twice, each time behind a checkpoint
        with pytest.raises(Stop):
            train(store, 5, how, tmp_path / "parts", reporting=replace(reporting, progress=stop_at(step)))
    again = train(store, 5, how, tmp_path / "parts", reporting=reporting)
    for name, weight in whole.weights.items():
        assert torch.equal(weight, again.weights[name]), name
    for file in ("cfg.json", "sae_weights.safetensors", "sparsity.safetensors", "checkpoint.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes(), file
    logs = [read_log(tmp_path / d).drop(columns="speed") for d in ("whole", "parts")]
    assert logs[0].equals(logs[1])
    assert logs[0]["step"].tolist() == list(range(1, 31))


def test_a_finished_folder_says_what_it_is(store: Store, truth: Planted, tmp_path: Path) -> None:
    told: list[Report] = []
    written: list[tuple[str, float, int]] = []

    class Writer:
        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            written.append((tag, scalar_value, global_step))

    how = recipe(architecture="batchtopk")
    reporting = Reporting(
        log_every=10, evaluate=lambda sae: 0.25, evaluate_every=20, progress=told.append, tensorboard=Writer()
    )
    sae = train(store, 5, how, tmp_path, reporting=reporting)
    again, density = load(tmp_path), load_density(tmp_path)
    assert again.config.architecture == "jumprelu"
    x = truth.z[:50]
    assert torch.equal(again.encode(x), sae.encode(x))
    active = (sae.encode(store.sample(5, how.threshold_rows)) > 0).double()
    assert float(active.sum(-1).mean()) == pytest.approx(ACTIVE, abs=0.01)
    assert density is not None
    assert torch.allclose(density.double(), active.mean(0), atol=1e-6)
    metadata = json.loads((tmp_path / "cfg.json").read_text())["metadata"]
    assert metadata["hook_name"] == "blocks.5.attn.hook_z"
    assert metadata["interp"]["trained_on"] == 3_000
    assert Recipe.read(metadata["interp"]["recipe"]) == how
    assert [(r.step, r.ce_recovered) for r in told] == [(10, None), (20, 0.25), (30, 0.25)]
    log = read_log(tmp_path)
    assert log["step"].tolist() == [10, 20, 30]
    assert np.isnan(log["ce_recovered"][0]) and log["ce_recovered"][2] == 0.25
    assert log["ev"].iloc[-1] > log["ev"].iloc[0]
    assert ("sae/ce_recovered", 0.25, 30) in written
    assert not any(tag == "sae/ce_recovered" and step == 10 for tag, _, step in written)


def test_another_recipe_or_harvest_in_the_folder_is_refused(store: Store, truth: Planted, tmp_path: Path) -> None:
    train(store, 5, recipe(), tmp_path / "out")
    with pytest.raises(PlanMismatchError, match=r"recipe.*clip"):
        train(store, 5, recipe(clip=2.0), tmp_path / "out")
    other = stored(tmp_path / "other", truth.z[:9_000])
    with pytest.raises(PlanMismatchError, match=r"source.*rows"):
        train(other, 5, recipe(), tmp_path / "out")
    (tmp_path / "out" / "checkpoint.safetensors").write_bytes(b"cut")
    with pytest.raises(CorruptFileError, match="checkpoint"):
        train(store, 5, recipe(), tmp_path / "out")
    with pytest.raises(OptionError, match="held-out"):
        train(store, 5, recipe(), tmp_path / "new", held_out=stored(tmp_path / "held", truth.z[:1_000], layer=6))


def test_the_scale_is_folded_in(store: Store, truth: Planted, tmp_path: Path) -> None:
    trainer = Trainer(store, 5, recipe())
    assert float(trainer.sample.norm(dim=-1).mean()) == pytest.approx(D**0.5, rel=1e-5)
    for _ in range(5):
        trainer.advance()
    x = truth.z[:20]
    with torch.no_grad():
        inner, outer = trainer.sae, trainer.finished()
        assert torch.allclose(outer.encode(x), inner.encode(x * trainer.scale) / trainer.scale, atol=1e-5)
        assert torch.allclose(outer(x), inner(x * trainer.scale) / trainer.scale, atol=1e-5)
    assert Trainer(store, 5, recipe(scale="none")).scale == 1.0


def test_decoder_rows_keep_norm_1_and_the_gradient_does_not_push_along_them(store: Store) -> None:
    trainer = Trainer(store, 5, recipe())
    for _ in range(3):
        before = trainer.sae.W_dec.detach().clone()
        trainer.advance()
        grad = trainer.sae.W_dec.grad
        assert grad is not None
        assert float((grad * before).sum(-1).abs().max()) < 1e-5
        assert torch.allclose(trainer.sae.W_dec.norm(dim=-1), torch.ones(FEATURES), atol=1e-6)
    free = Trainer(store, 5, recipe(decoder="free"))
    for _ in range(20):
        free.advance()
    assert float((free.finished().W_dec.detach().norm(dim=-1) - 1).abs().max()) < 1e-5
    assert float((free.sae.W_dec.detach().norm(dim=-1) - 1).abs().min()) > 1e-3


def test_a_feature_is_dead_after_so_many_rows(store: Store) -> None:
    trainer = Trainer(store, 5, recipe(dead_after=250))
    trainer.sae.weights["b_enc"].data[7] = -1e6
    states = []
    for _ in range(4):
        done = trainer.advance()
        states.append((bool(trainer.dead[7]), "auxk" in done.parts))
    assert [dead for dead, _ in states] == [False, False, True, True]
    assert states[3][1]  # the step after it died


def test_the_active_subspace_holds_99_percent_of_the_variance() -> None:
    signs = torch.tensor([[a, b, c, d] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1) for d in (-1, 1)])
    # Variances 0.5, 25, 70 and 4.5 % along the axes: the second alone 70, with the next 95, with the next 99.5.
    x = signs * torch.tensor([0.5, 25.0, 70.0, 4.5]).sqrt() + 3.0
    basis = active_subspace(x)
    assert torch.allclose(basis.abs(), torch.eye(4)[:, [2, 1, 3]], atol=1e-6)
    assert torch.allclose(active_subspace(x, 1).abs(), torch.eye(4)[:, [2]], atol=1e-6)
    with pytest.raises(OptionError, match="1 to 4"):
        active_subspace(x, 5)


def test_weights_at_the_start(truth: Planted) -> None:
    flat = truth.z.clone()
    flat[:, -5:] = 0.0  # so that nothing of z lies there
    sae = initial(recipe(), flat)
    assert float(sae.W_dec[:, -5:].detach().abs().max()) < 1e-5
    assert torch.allclose(sae.W_dec.norm(dim=-1), torch.ones(FEATURES), atol=1e-5)
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    assert torch.allclose(sae.b_dec, flat.mean(0), atol=1e-6)
    whole = initial(recipe(start="random", bias="zero", decoder="free", seed=1), flat)
    assert float(whole.W_dec[:, -5:].detach().norm()) > 0.1
    assert torch.allclose(whole.W_dec.norm(dim=-1), torch.full((FEATURES,), 0.1), atol=1e-6)
    assert not whole.b_dec.any()
    jump = initial(recipe(architecture="jumprelu", k=None, jumprelu=JumpReLURecipe(threshold=0.25)), flat)
    assert (jump.weights["threshold"] == 0.25).all()


def test_the_geometric_median_is_where_unit_vectors_cancel() -> None:
    x = torch.randn(101, 5, generator=torch.Generator().manual_seed(0))
    x[:20] += 1000.0  # which drags the mean along, not the median
    at = geometric_median(x)
    assert float(((x - at) / (x - at).norm(dim=-1, keepdim=True)).sum(0).norm()) < 0.05
    assert float(at.norm()) < 5.0


def test_the_threshold_is_the_quantile(truth: Planted) -> None:
    sae = initial(recipe(architecture="batchtopk", k=1.5), truth.z)
    rows = truth.z[:2_500]
    acts = ((rows - sae.b_dec) @ sae.W_enc).relu().detach()
    threshold = threshold_for(sae, rows, 1.5)
    assert int((acts > threshold).sum()) == 3_750
    assert float((sae.with_threshold(threshold).encode(rows) > 0).double().sum(-1).mean()) == pytest.approx(1.5)
    assert threshold_for(sae, rows, float(FEATURES)) == 0.0


def test_resampling_points_dead_features_at_what_is_badly_explained(truth: Planted) -> None:
    how = recipe(architecture="standard")
    sae = initial(how, truth.z)
    with torch.no_grad():
        sae.W_dec.zero_()  # so that the error of a row is the row itself, off the mean
    rows = torch.zeros(500, D) + sae.b_dec.detach()
    rows[17] += 50.0 * torch.eye(D)[3]
    rows[200] += 40.0 * torch.eye(D)[8]
    dead = torch.zeros(FEATURES, dtype=torch.bool)
    dead[[2, 9]] = True
    live_norm = float(sae.W_enc.detach()[:, ~dead].norm(dim=0).mean())
    before = {name: w.detach().clone() for name, w in sae.weights.items()}
    forget = resample(sae, dead, lambda n: rows, 1, how)
    hit = {int(i): sae.W_dec.detach()[int(i)] for i in (2, 9)}
    assert {int(row.argmax()) for row in hit.values()} == {3, 8}
    for i, row in hit.items():
        assert float(row.max()) == pytest.approx(1.0, abs=1e-5)
        assert torch.allclose(sae.W_enc.detach()[:, i], 0.2 * live_norm * row, atol=1e-5)
        assert float(sae.weights["b_enc"].detach()[i]) == 0.0
    assert torch.equal(sae.W_enc.detach()[:, ~dead], before["W_enc"][:, ~dead])
    assert torch.equal(forget["W_enc"], dead.expand(D, -1)) and torch.equal(forget["b_enc"], dead)
    assert not forget["b_dec"].any()
    assert not any(f.any() for f in resample(sae, dead & False, lambda n: rows, 1, how).values())


def test_schedules() -> None:
    how = recipe(tokens=100_000, warmup=9, sparsity=2.0, sparsity_warmup=3, decay=0.2, learning_rate=1.0, k_anneal=10)
    assert how.steps == 1_000
    assert [how.learning_rate_at(s) for s in (0, 4, 9, 799, 800, 900, 999)] == pytest.approx(
        [0.1, 0.5, 1, 1, 1, 0.5, 0.005]
    )
    assert [how.sparsity_at(s) for s in (0, 1, 3, 500)] == pytest.approx([0.5, 1.0, 2.0, 2.0])
    assert [how.k_at(s, D) for s in (0, 5, 10, 99)] == pytest.approx([24, 13, 2, 2])
    assert recipe(d_sae=2**14, k=2).rate == pytest.approx(2e-4) and recipe(d_sae=2**12, k=2).rate == pytest.approx(4e-4)
    assert [after_resampling(s, (100, 5_000)) for s in (99, 100, 600, 1_100, 5_000)] == pytest.approx(
        [1, 0.1, 0.55, 1, 0.1]
    )
    assert recipe(architecture="matryoshka_batchtopk", d_sae=64).nested == (4, 16, 64)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": None}, "k is for"),
        ({"architecture": "standard", "k": 3}, "k is for"),
        ({"tokens": 50}, "one batch"),
        ({"resample_every": 5}, "auxk"),
        ({"decay": 1.5}, "share"),
        ({"batch": 0}, "batch"),
    ],
)
def test_a_recipe_that_makes_no_sense(options: dict, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        recipe(**options)
    with pytest.raises(OptionError, match="no expansion"):
        Recipe.read({"expansion": 4})
