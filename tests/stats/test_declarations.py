"""What every declared statistic owes: documentation, one dtype, its shape, its range, pure functions, heads and texts that do not mix."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from interp.capture.call import AttentionCall
from interp.capture.measure import MaskCounts, Measurement
from interp.capture.sites import Site
from interp.errors import OptionError
from interp.stats import STATISTICS, Statistic, declare, describe, find, forward_names, names
from interp.stats.declaration import UNIT
from interp.stats.labels import TokenLabels
from interp.stats.needs import Needs
from interp_kernels import Mask

BATCH, HEADS, NODES, SIZE, VALUE = 2, 5, 37, 7, 3
LENGTHS = (37, 23)
every_statistic = pytest.mark.parametrize("name", list(STATISTICS))


class Scene:
    """One attention call of two texts (the second one padded on the right), and what it leaves for the statistics."""

    def __init__(self, *, order=range(HEADS), texts=range(BATCH), garbage=0.0, sharpness=1.7):
        generator = torch.Generator().manual_seed(7)
        q, k = (sharpness * torch.randn(BATCH, HEADS, NODES, SIZE, generator=generator) for _ in "qk")
        v = torch.randn(BATCH, HEADS, NODES, VALUE, generator=generator)
        ids = torch.randint(0, 11, (BATCH, NODES), generator=generator)
        sink = torch.randn(HEADS, generator=generator)
        real = torch.arange(NODES) < torch.tensor(LENGTHS)[:, None]
        for x in (q, k, v):
            x += garbage * ~real[:, None, :, None]
        heads, texts = list(order), list(texts)
        longest = max(LENGTHS[b] for b in texts)
        q, k, v = (x[texts][:, heads, :longest] for x in (q, k, v))
        ids, real = ids[texts, :longest], real[texts, :longest]
        sets = {"special": (ids == 3) & real, "punctuation": (ids > 8) & real}
        self.labels = TokenLabels.of(ids, real, sets)
        mask = Mask.causal().padded(right=longest - real.sum(1))
        self.call = AttentionCall(site=Site("self", 0), phase="prefill", q=q, k=k, v=v, mask=mask, scale=None,
                                  softcap=None, sink_logits=sink[heads])  # fmt: skip
        self.measurement = Measurement(statistics=tuple(STATISTICS.values()), queries=self.labels, keys=self.labels)
        self.attended = self.call.attend(self.measurement.collect(), "auto")
        self.counts = MaskCounts.of(self.call, self.labels, received=True)
        self.values = self.measurement.values(self.call, self.attended, self.counts)

    def rows(self):
        """The `Rows` that the statistics are derived from."""
        kept = []
        needs = self.measurement.needs
        spy = replace(STATISTICS["entropy"], name="spy", needs=needs,
                      derive=lambda rows: kept.append(rows) or rows.lse)  # fmt: skip
        Measurement(statistics=(spy,), queries=self.labels, keys=self.labels).values(
            self.call, self.attended, self.counts
        )
        return kept[0]


@pytest.fixture(scope="module")
def scene():
    return Scene()


def same(got, want, tolerance=1e-5):
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance, equal_nan=True)


# ---------------------------------------------------------------------- words
@every_statistic
def test_a_declaration_is_complete(name):
    s = STATISTICS[name]
    assert s.name == name and re.fullmatch(r"[a-z][a-z0-9_.]*", name)
    assert s.axis in ("query", "key", "prompt")
    for word in ("title", "formula", "unit", "undefined", "cost", "citation", "merge"):
        assert getattr(s, word).strip(), word
    assert s.scale.low < s.scale.high and s.scale.kind in ("linear", "log", "signed")
    assert s.scale.kind == "linear" or s.scale.low > 0


def test_titles_tell_statistics_apart():
    titles = [s.title for s in STATISTICS.values()]
    assert len(set(titles)) == len(titles)


def test_what_the_issue_names_is_there():
    wanted = {
        "entropy", "normalised_entropy", "effective_keys", "max_probability", "first_token_mass", "first_four_mass",
        "special_mass", "punctuation_mass", "alpha", "sink_rate_0.2", "sink_rate_0.3", "sink_rate_0.4",
        "sink_rate_0.5", "non_sink_entropy", "previous_token_mass", "current_token_mass", "duplicate_token_mass",
        "induction_mass", "mean_distance", "window_mass_64", "window_mass_256", "window_mass_1024", "received_mass",
        "received_rows", "logit_norm", "output_norm", "value_weighted_sink_share",
    }  # fmt: skip
    assert wanted <= set(names())


# ---------------------------------------------------------------------- values
@every_statistic
def test_dtype_shape_and_range(scene, name):
    s, values = STATISTICS[name], scene.values[name]
    assert values.dtype == torch.float32
    shape = {"query": (BATCH, HEADS, NODES), "key": (BATCH, HEADS, NODES), "prompt": (BATCH, HEADS)}[s.axis]
    assert values.shape == shape
    defined = values[~values.isnan()]
    assert len(defined) > 0 and defined.isfinite().all()
    assert len(set(defined.tolist())) > 1 or name.startswith(("sink_rate", "window_mass"))
    slack = 1e-5 * (s.scale.high if s.scale.kind == "linear" else 1.0)
    assert float(defined.abs().max() if s.scale.kind == "signed" else defined.max()) <= s.scale.high + slack
    if s.scale.kind != "signed":
        assert float(defined.min()) >= (s.scale.low if s.scale.kind == "linear" else 0.0) - slack
    if s.axis != "prompt":
        assert values[1, :, LENGTHS[1] :].isnan().all(), "a value at padding"


@every_statistic
def test_a_statistic_leaves_its_inputs_alone(scene, name):
    rows = scene.rows()
    tensors = {"lse": rows.lse, "out": rows.out, "values": rows.values, "visible": rows.visible,
               "received": rows.received, "received_rows": rows.received_rows, "ids": rows.keys.ids,
               **rows.measured, **rows.keys.sets}  # fmt: skip
    before = {key: x.clone() for key, x in tensors.items()}
    first = STATISTICS[name].derive(rows)
    again = STATISTICS[name].derive(rows)
    assert torch.equal(first.nan_to_num(-7.0), again.nan_to_num(-7.0))
    for key, x in tensors.items():
        assert torch.equal(x, before[key]), f"{name} changed {key}"


@every_statistic
def test_heads_do_not_mix(scene, name):
    order = [3, 0, 4, 2, 1]
    same(Scene(order=order).values[name], scene.values[name][:, order])


@every_statistic
def test_texts_do_not_mix_and_padding_does_not_matter(scene, name):
    for b in range(BATCH):
        alone, together = Scene(texts=[b]).values[name][0], scene.values[name][b]
        same(alone, together if alone.ndim == 1 else together[:, : alone.shape[1]])
    same(Scene(garbage=3.0).values[name], scene.values[name])


@pytest.mark.parametrize("sharpness", [0.0, 30.0], ids=["uniform", "one key takes all"])
def test_extreme_rows_stay_in_range(sharpness):
    extreme = Scene(sharpness=sharpness)
    for name, values in extreme.values.items():
        defined = values[~values.isnan()]
        assert defined.isfinite().all(), name
        if STATISTICS[name].scale == UNIT:
            assert float(defined.min()) >= -1e-5 and float(defined.max()) <= 1 + 1e-5, name


# ---------------------------------------------------------------------- the catalogue
def test_forward_names_leave_out_the_second_sweep():
    assert set(names()) - set(forward_names()) == {"received_mass", "received_rows", "alpha"}


def test_find_gives_the_named_ones_in_order_once():
    found = find(["alpha", "entropy", "alpha", "span:mine"])
    assert [s.name for s in found] == ["alpha", "entropy", "span:mine"]
    assert found[2].needs == Needs(sets=frozenset({"span:mine"})) and found[2].title == "mass on mine"
    assert find([]) == ()


def test_find_names_every_unknown_and_every_known_one():
    with pytest.raises(OptionError) as caught:
        find(["entropy", "nonsense", "spam:x"])
    said = str(caught.value)
    assert "'nonsense', 'spam:x'" in said and "'entropy'" not in said
    assert all(name in said for name in names())


def test_describe_has_one_row_each():
    frame = describe()
    assert list(frame["name"]) == list(names())
    assert {"axis", "unit", "formula", "undefined", "cost", "merge", "citation"} <= set(frame)
    assert not frame.isna().any(axis=None)


def test_a_name_is_taken_once():
    mine = Statistic(name="entropy", title="x", formula="x", axis="query", unit="x", scale=UNIT, needs=Needs(),
                     derive=lambda rows: rows.lse, cost="x", citation="x")  # fmt: skip
    before = STATISTICS["entropy"]
    with pytest.raises(OptionError, match="'entropy' is declared already"):
        declare(mine)
    assert STATISTICS["entropy"] is before


def test_needs_add_up():
    a = Needs(kernel=frozenset({"entropy"}), windows=frozenset({4}), rest=True)
    b = Needs(sets=frozenset({"special"}), windows=frozenset({9}), offsets=frozenset({1}), received=True)
    both = a | b
    assert both == b | a == Needs(
        kernel=frozenset({"entropy"}), sets=frozenset({"special"}), windows=frozenset({4, 9}),
        offsets=frozenset({1}), rest=True, received=True,
    )  # fmt: skip
    assert a | Needs() == a


# ---------------------------------------------------------------------- by hand
def test_uniform_causal_attention_by_hand():
    """All logits 0: row i of n spreads evenly over its i + 1 keys; token x occurs at 0, 2, 5 and nowhere else."""
    import interp

    model = interp.tiny("llama")
    for layer in model.hf.model.layers:
        layer.self_attn.q_proj.weight.data.zero_()
    ids = [9, 20, 9, 31, 42, 9, 50]
    run = model.run(ids, collect=names())
    rows = torch.arange(1, 8).float()
    for layer in range(3):
        for head in range(6):
            stats = {name: x[layer, head] for name, x in run.stats.items()}
            same(stats["entropy"], rows.log())
            same(stats["effective_keys"], rows)
            same(stats["collision_entropy"], rows.log())
            same(stats["max_probability"], 1 / rows)
            same(stats["normalised_entropy"], torch.tensor([torch.nan] + [1.0] * 6))
            same(stats["non_sink_entropy"], torch.cat([torch.tensor([torch.nan]), (rows[1:] - 1).log()]))
            same(stats["logit_norm"], torch.zeros(7))
            same(stats["first_token_mass"], 1 / rows)
            same(stats["first_four_mass"], rows.clamp(max=4) / rows)
            same(stats["previous_token_mass"], torch.cat([torch.tensor([torch.nan]), 1 / rows[1:]]))
            same(stats["current_token_mass"], 1 / rows)
            same(stats["mean_distance"], (rows - 1) / 2)
            nan = torch.nan
            same(stats["duplicate_token_mass"], torch.tensor([nan, nan, 1 / 3, nan, nan, 2 / 6, nan]))
            # After earlier copies of x (at 0 and 2) stand keys 1 and 3; rows 2 and 5 carry x.
            same(stats["induction_mass"], torch.tensor([nan, nan, 1 / 3, nan, nan, 2 / 6, nan]))
            same(stats["received_mass"], torch.stack([(1 / rows[j:]).sum() for j in range(7)]))
            same(stats["received_rows"], torch.arange(7, 0, -1).float())
            assert stats["alpha"].isnan().all(), "fewer than 16 rows"
            alpha = (1 / rows).mean()
            same(stats["first_token_alpha"], alpha)
            assert [float(stats[f"sink_rate_{eps}"]) for eps in (0.2, 0.3, 0.4, 0.5)] == [1, 1, 0, 0]
            assert 0.3 < alpha < 0.4
