"""Harvest: z is the model's own, nothing above the last layer is run, masks keep what they say, and a stopped harvest goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from interp.errors import InputDataError, OptionError, OutputError, PlanMismatchError
from interp.models.hooked import HookedModel
from interp.models.toy import tiny
from interp.saes.batches import Batches
from interp.saes.harvest import HarvestPlan, harvest, z_of
from interp.saes.store import Store

LENGTHS = (5, 3, 7, 5, 2, 11, 3)


@pytest.fixture(scope="module")
def model() -> HookedModel:
    return tiny("llama")


def contexts(seed: int = 0) -> list[list[int]]:
    ids = 7 + torch.randperm(
        200, generator=torch.Generator().manual_seed(seed)
    )  # all distinct, so that rows are told apart
    return [part.tolist() for part in ids[: sum(LENGTHS)].split(list(LENGTHS))]


def plan(**options: object) -> HarvestPlan:
    given = {"layers": (0, 1), "dtype": "float32", "shard_tokens": 13, "batch_tokens": 20}
    return HarvestPlan(**given | options)


def every(store: Store, layer: int) -> torch.Tensor:
    return torch.cat([store.z(layer, shard) for shard in range(store.shards)])


def pre_hooked(model: HookedModel, ids: Sequence[int]) -> list[torch.Tensor]:
    """What o_proj of every layer reads, by plain hooks on the Hugging Face module: z from outside."""
    seen: list[torch.Tensor] = []
    hooks = [
        layer.self_attn.o_proj.register_forward_pre_hook(lambda module, given: seen.append(given[0][0]))
        for layer in model.hf.model.layers
    ]
    with torch.no_grad():
        model.hf(torch.tensor([list(ids)]))
    for hook in hooks:
        hook.remove()
    return seen


def test_z_is_what_the_output_projection_reads(model: HookedModel, tmp_path: Path) -> None:
    store = harvest(model, contexts(), tmp_path, plan())
    outside = [torch.cat(parts) for parts in zip(*(pre_hooked(model, c) for c in contexts()), strict=True)]
    assert store.rows == sum(LENGTHS)
    assert store.shards == 3
    for layer in (0, 1):
        assert torch.allclose(every(store, layer), outside[layer], atol=2e-5)
    tokens = [store.tokens(shard) for shard in range(store.shards)]
    assert [c for t in tokens for c in t.contexts] == contexts()
    assert torch.cat([t.position for t in tokens]).tolist() == [p for n in LENGTHS for p in range(n)]
    assert tokens[0].context.tolist() == [0] * 5 + [1] * 3 + [2] * 7


def test_nothing_above_the_last_layer_is_run(model: HookedModel) -> None:
    ran: list[str] = []
    layers = model.hf.model.layers
    hooks = [
        module.register_forward_pre_hook(lambda m, given, name=name: ran.append(name))
        for name, module in (
            ("first output", layers[0].self_attn.o_proj),
            ("second layer", layers[1]),
            ("norm", model.hf.model.norm),
        )
    ]
    found = z_of(model, [[9, 8, 7]], [0])
    for hook in hooks:
        hook.remove()
    assert ran == []
    assert set(found) == {0}
    model.run([9, 8, 7])  # the model is as it was


def test_half_precision_is_rounded_z(model: HookedModel, tmp_path: Path) -> None:
    whole, half = (harvest(model, contexts(), tmp_path / d, plan(dtype=d)) for d in ("float32", "bfloat16"))
    assert half.z(1, 0).dtype == torch.bfloat16
    assert torch.equal(every(half, 1), every(whole, 1).bfloat16())


def test_masks_of_positions_and_special_tokens(model: HookedModel, tmp_path: Path) -> None:
    special = int(model.tokenizer.bos_token_id)
    given = [[special, *c] for c in contexts()]
    whole = harvest(model, given, tmp_path / "a", plan(keep_special=True))
    some = harvest(model, given, tmp_path / "b", plan(first=0, last=4))
    kept = torch.cat([whole.tokens(s).position for s in range(whole.shards)])
    assert torch.equal(every(some, 0), every(whole, 0)[(kept > 0) & (kept < 4)])
    assert some.rows == sum(min(n, 3) for n in LENGTHS)
    later = harvest(model, given, tmp_path / "c", plan(keep_special=True, first=2))
    assert torch.equal(every(later, 1), every(whole, 1)[kept >= 2])


def stopped(after: int) -> Iterator[list[int]]:
    yield from contexts()[:after]
    raise KeyboardInterrupt


def test_a_stopped_harvest_goes_on_to_the_same_files(model: HookedModel, tmp_path: Path) -> None:
    whole = harvest(model, contexts(), tmp_path / "whole", plan())
    with pytest.raises(KeyboardInterrupt):
        harvest(model, stopped(4), tmp_path / "parts", plan())
    assert Store(tmp_path / "parts").shards == 1
    told: list[int] = []
    harvest(model, contexts(), tmp_path / "parts", plan(), progress=lambda tokens, speed: told.append(tokens))
    assert told[-1] == sum(LENGTHS)
    assert told[0] > 15  # the first shard's tokens were there
    names = sorted(p.relative_to(whole.folder) for p in whole.folder.rglob("*") if p.is_file())
    assert len(names) == 1 + 3 * 3
    for name in names:
        assert (tmp_path / "parts" / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_another_plan_or_text_is_refused(model: HookedModel, tmp_path: Path) -> None:
    harvest(model, contexts(), tmp_path / "a", plan())
    with pytest.raises(PlanMismatchError, match="settings"):
        harvest(model, contexts(), tmp_path / "a", plan(first=1))
    with pytest.raises(PlanMismatchError, match="other contexts"):
        harvest(model, contexts(seed=1), tmp_path / "a", plan())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not a harvest"):
        harvest(model, contexts(), tmp_path / "b", plan())
    with pytest.raises(InputDataError, match="no contexts"):
        harvest(model, [], tmp_path / "c", plan())
    with pytest.raises(InputDataError, match="masks"):
        harvest(model, contexts(), tmp_path / "d", plan(first=50))
    with pytest.raises(OptionError, match="layers"):
        harvest(model, contexts(), tmp_path / "e", plan(layers=(99,)))


@pytest.mark.parametrize(
    "options", [{"layers": ()}, {"layers": (1, 0)}, {"dtype": "int8"}, {"first": 3, "last": 3}, {"shard_tokens": 0}]
)
def test_a_plan_that_makes_no_sense(options: dict) -> None:
    with pytest.raises(OptionError):
        plan(**options)


@pytest.fixture(scope="module")
def store(model: HookedModel, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return harvest(model, contexts(), tmp_path_factory.mktemp("store"), plan())


def test_an_epoch_holds_every_row_once_and_mixed(store: Store) -> None:
    batches = Batches(store, 1, size=4, buffer=16, seed=3)
    assert batches.per_epoch == sum(LENGTHS) // 4 == 9
    epoch = torch.cat([batches[n] for n in range(9)])
    rows = every(store, 1)
    numbers = torch.cdist(epoch.double(), rows.double()).argmin(-1)
    assert len(numbers.unique()) == 36
    assert not torch.equal(numbers, numbers.sort().values)
    assert not torch.equal(epoch, torch.cat([batches[n] for n in range(9, 18)]))


def test_a_batch_does_not_depend_on_what_came_before(store: Store) -> None:
    first, second = (Batches(store, 0, size=5, buffer=16, seed=3) for _ in range(2))
    in_order = [first[n] for n in range(20)]
    for n in (17, 3, 19, 0, 8):
        assert torch.equal(second[n], in_order[n])
    assert not torch.equal(in_order[0], Batches(store, 0, size=5, buffer=16, seed=4)[0])


def test_a_sample_is_spread_over_all_shards(store: Store) -> None:
    sample = store.sample(0, 6)
    assert torch.equal(sample, every(store, 0)[torch.linspace(0, 35, 6).long()])
    assert torch.equal(store.sample(0, 1000), every(store, 0))


def test_too_few_rows_for_a_batch(store: Store) -> None:
    with pytest.raises(OptionError, match="36 rows"):
        Batches(store, 0, size=37)


def test_its_view_shows_how_large_each_heads_z_is(model: HookedModel, tmp_path: Path) -> None:
    store = harvest(model, contexts(), tmp_path, plan())
    shown = Store(store.folder).view()
    numbers = shown.data().set_index(["statistic", "layer", "head"])
    for layer in (0, 1):
        z = every(store, layer).double().view(sum(LENGTHS), model.heads, -1)
        centred = z - z.mean(0)
        share = centred.square().sum((0, 2)) / centred.square().sum()
        for head in range(model.heads):
            norm = numbers.loc[("norm_of_z", layer, head)]
            norms = z[:, head].square().sum(-1).sqrt()
            assert norm["value"] == pytest.approx(float(norms.mean()), rel=1e-5)
            assert norm["spread"] == pytest.approx(float(norms.std()), rel=1e-5)
            assert numbers.loc[("share_of_variance", layer, head), "value"] == pytest.approx(
                float(share[head]), rel=1e-5
            )
