"""Positional tests of IOI: the sources by hand, patches against plain hooks, feature ablation against the definition."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from interp.errors import InputDataError, OptionError
from interp.models.hooked import HookedModel
from interp.models.planted import planted
from interp.models.toy import tiny
from interp.saes.config import SAEConfig
from interp.saes.core import SAE
from interp.saes.ioi_position import VERSIONS, ioi_features, ioi_position
from interp.tasks.prompt import Prompt

D_IN = 60
MODULE = importlib.import_module("interp.saes.ioi_position")  # the package gives the function of this name


@pytest.fixture(scope="module")
def model() -> HookedModel:
    return tiny("llama")


def prompts() -> list[Prompt]:
    """As `interp.tasks.ioi` marks them, with single bytes for names: "X and Y ... Y" (BABA or ABBA)."""
    found = []
    for n, (first, second, again) in enumerate((("A", "B", "B"), ("C", "D", "C"))):
        text = f"q{first} and{second} so{again} to"
        ids = tuple(7 + (ord(c) * 3) % 250 for c in text)
        io, s1 = (1, 6) if again == second else (6, 1)
        marks = {"IO": io, "S1": s1, "S2": 10}
        found.append(
            Prompt(
                ids=ids, answer=(ids[io],), wrong=(ids[s1],), key_sets={k: (i, i + 1) for k, i in marks.items()},
                meta={"order": ("ABBA", "BABA")[n]},
            )
        )  # fmt: skip
    return found


def difference(model: HookedModel, prompt: Prompt) -> float:
    assert prompt.wrong is not None
    logits = model.run(list(prompt.ids), collect=["entropy"]).logits
    return float(logits[-1, prompt.answer[0]] - logits[-1, prompt.wrong[0]])


def patched(
    model: HookedModel, prompt: Prompt, layers: list[int], at: int, rows: dict[int, torch.Tensor] | None
) -> float:
    """LD with the input of the output projections changed at one token, by plain hooks on the Hugging Face modules."""
    handles = []
    for layer in layers:

        def hook(module: object, args: tuple[torch.Tensor], layer: int = layer) -> tuple[torch.Tensor]:
            x = args[0].clone()
            x[:, at] = 0.0 if rows is None else rows[layer]
            return (x,)

        module = model.hf.model.layers[layer].self_attn.o_proj
        handles.append(module.register_forward_pre_hook(hook))
    value = difference(model, prompt)
    for handle in handles:
        handle.remove()
    return value


def test_patches_are_those_of_plain_hooks(model: HookedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "single_token", lambda tokenizer, names: ({"x": 40, "y": 50, "z": 60}, ()))
    given, layers = prompts(), [0, 1]
    result = ioi_position(model, given, layers)
    assert result.table["version"].tolist() == list(VERSIONS)
    clean = np.array([difference(model, p) for p in given])
    np.testing.assert_allclose(result.arrays["clean"], clean, atol=1e-5)
    zero = VERSIONS.index("zero")
    for n, prompt in enumerate(given):
        assert result.arrays["logit_difference"][zero, n] == pytest.approx(
            patched(model, prompt, layers, 10, None), abs=1e-5
        )
        assert result.arrays["control"][zero, n] == pytest.approx(patched(model, prompt, layers, 9, None), abs=1e-5)
    row = result.table.iloc[zero]
    assert row["score"] == pytest.approx(result.arrays["logit_difference"][zero].mean() / clean.mean(), rel=1e-5)
    # Every version but the reworded one is there; all differ from one another.
    there = ~np.isnan(result.arrays["logit_difference"])
    assert there.sum(1).tolist() == [2, 2, 0, 2, 2, 2]
    assert np.isnan(result.table["score"][2]) and result.table["prompts"][2] == 0


def test_sources_keep_what_they_say(model: HookedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "single_token", lambda tokenizer, names: ({"x": 40, "y": 50, "z": 60}, ()))
    prompt = prompts()[0]
    joined = prompt.ids[2:6]
    monkeypatch.setattr(
        MODULE,
        "plain_ids",
        lambda tokenizer, text: {" and": list(joined), " alongside": [91, 92]}.get(text, [81, 82, 83]),
    )
    assert model.tokenizer is not None
    same, prefixed, reworded, other, thrice, zero = MODULE._sources(model.tokenizer, prompt, np.random.default_rng(0))
    assert (
        same is not None and prefixed is not None and reworded is not None and other is not None and thrice is not None
    )
    a, b, again = (same.ids[i] for i in (1, 6, 10))
    assert b == again != a and {a, b} < {40, 50, 60}
    rest = [i for i in range(len(prompt.ids)) if i not in (1, 6, 10)]
    assert [same.ids[i] for i in rest] == [prompt.ids[i] for i in rest]
    assert prefixed.ids == (81, 82, 83, *same.ids) and prefixed.at == 13
    assert reworded.ids == (same.ids[0], a, 91, 92, *same.ids[6:]) and reworded.ids[reworded.at] == b
    assert [other.ids[i] for i in (1, 6, 10)] == [b, a, b]
    assert len({thrice.ids[i] for i in (1, 6, 10)}) == 3
    assert zero == same


def test_features_are_ablated_at_s2_with_the_error_kept(model: HookedModel) -> None:
    generator = torch.Generator().manual_seed(5)
    weights = {
        "W_enc": torch.randn(D_IN, 17, generator=generator) * 0.3,
        "W_dec": torch.randn(17, D_IN, generator=generator),
        "b_dec": torch.zeros(D_IN),
        "b_enc": torch.zeros(17),
    }
    sae = SAE(SAEConfig(architecture="topk", k=5, d_in=D_IN, d_sae=17), weights)
    given = prompts()
    result = ioi_features(model, sae, 1, given, least=0.5, most=3)
    assert len(result.table) == 3
    assert result.table["score"].abs().is_monotonic_decreasing
    for row in result.table.to_dict("records"):
        changes, values = [], []
        for prompt in given:
            z = model.head_outputs(list(prompt.ids), layers=[1])[1][0, :, 10].flatten()
            f = float(sae.encode(z).detach()[row["feature"]])
            new = z - f * sae.W_dec.detach()[row["feature"]]
            changes.append(difference(model, prompt) - patched(model, prompt, [1], 10, {1: new}))
            values.append(f)
        assert row["score"] == pytest.approx(np.mean(changes), abs=2e-5)
        assert [row["ABBA"], row["BABA"]] == pytest.approx(values, abs=1e-5)
        assert row["live"] == np.mean([v > 0 for v in values])


def test_other_prompts_are_refused(model: HookedModel) -> None:
    bare = Prompt(ids=(9, 8, 7), answer=(5,), wrong=(6,))
    with pytest.raises(OptionError, match="another task"):
        ioi_position(model, [bare], [0])
    with pytest.raises(OptionError, match="layers"):
        ioi_position(model, prompts(), [3])
    nameless, _ = planted("sink")
    with pytest.raises(InputDataError):
        nameless.tokenizer = None
        ioi_position(nameless, prompts(), [0])
