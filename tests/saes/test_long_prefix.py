"""The long-prefix test: sequences as the protocol says, cells against dense attention, planted heads, tags by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.errors import OptionError
from interp.models.planted import planted
from interp.models.toy import tiny
from interp.results import Result
from interp.saes.long_prefix import VERSIONS, Rules, draw, long_prefix


@pytest.mark.parametrize("prefix", [1, 2, 5])
def test_sequences_hold_the_prefix_twice_and_nothing_else_twice(prefix: int) -> None:
    drawn = draw(np.arange(100, 400), [7], prefix, tokens=47, samples=31, seed=3)
    for i in range(31):
        row, key = int(drawn.row[i]), int(drawn.key[i])
        a, b = key - prefix, row - prefix + 1
        x, control, corrupted = (drawn.ids[name][i] for name in VERSIONS)
        assert x[0] == 7 and a >= 1 and b >= a + prefix + 1 and row < 47
        assert (x[a:key] == x[b : row + 1]).all()
        assert len(set(x.tolist())) == 47 - prefix
        assert len(set(control.tolist())) == 47
        differs = np.flatnonzero(x != corrupted)
        assert differs.tolist() == ([key - 2] if prefix > 1 else [])
        assert np.flatnonzero(x != control).tolist() == list(range(b, row + 1))


def test_a_sample_does_not_depend_on_how_many_there_are() -> None:
    few, many = (draw(np.arange(300), [], 2, tokens=31, samples=n, seed=5) for n in (3, 7))
    assert (few.ids["score"] == many.ids["score"][:3]).all()


def test_cells_and_logits_are_those_of_the_dense_model() -> None:
    model = tiny("llama")
    result = long_prefix(model, prefixes=(1, 3), tokens=37, samples=3, seed=2)
    ids_of_bos = [1]
    vocabulary = np.setdiff1d(np.arange(model.hf.config.vocab_size), model.tokenizer.all_special_ids)
    drawn = draw(vocabulary, ids_of_bos, 3, tokens=37, samples=3, seed=2)
    hf, logit = model.hf, np.zeros((3, 6))
    with torch.no_grad():
        for i in range(3):
            ids = drawn.ids["score"][i].tolist()
            row, key = int(drawn.row[i]), int(drawn.key[i])
            run = model.run(ids)
            for layer in range(3):
                for head in range(6):
                    wanted = float(run.attention[layer, head].dense()[row, key])
                    assert result.arrays["score"][1, i, layer, head] == pytest.approx(wanted, abs=1e-5)
            seen: list[torch.Tensor] = []
            hook = hf.model.norm.register_forward_hook(lambda m, args, out, seen=seen: seen.append(args[0][0]))
            z = model.head_outputs(ids)
            hook.remove()
            x = seen[0][row].double()
            scale = hf.model.norm.weight.double() / (x.square().mean() + hf.model.norm.variance_epsilon).sqrt()
            w_u = hf.lm_head.weight.double()
            for layer in range(3):
                w_o = hf.model.layers[layer].self_attn.o_proj.weight.double().T
                for head in range(6):
                    written = z[layer][0, head, row].double() @ w_o[10 * head : 10 * head + 10]
                    logit[layer, head] += float((written * scale) @ (w_u[ids[key]] - w_u.mean(0))) / 3
    np.testing.assert_allclose(result.arrays["dla"][1], logit, atol=1e-5)


def test_planted_heads() -> None:
    model, places = planted("retrieval", "duplicate")
    result = long_prefix(model, prefixes=(1, 2, 4), tokens=43, samples=5)
    rows = result.table.set_index(["layer", "head", "prefix"]).sort_index()
    mine = rows.loc[places["retrieval"]]
    assert mine["score"].min() > 0.95 and mine["control"].max() < 0.1
    assert mine["corrupted"][[2, 4]].min() > 0.95 and np.isnan(mine["corrupted"][1])
    assert mine["dla"].min() > 5.0
    assert set(mine["kind"]) == {"short prefix"}
    others = rows.drop(index=places["retrieval"])
    assert others["score"].max() < 0.5 and set(others["kind"]) == {""} and others["dla"].abs().max() < 1.0


def test_a_result_is_saved_and_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    model, _ = planted("induction")
    folder = tmp_path_factory.mktemp("prefix")
    result = long_prefix(model, prefixes=(1,), tokens=11, samples=2)
    again = Result.load(result.save(folder))
    assert again.kind == "saes.long_prefix" and again.manifest["settings"]["prefixes"] == [1]


def test_tags_by_hand() -> None:
    rules = Rules()
    assert rules.kind([0.12, 0.25, 0.46, 0.35, 0.57]) == "long prefix"
    assert rules.kind([0.40, 0.20]) == "short prefix"
    assert rules.kind([0.12, 0.41]) == ""
    assert rules.kind([0.35, 0.95]) == ""
    assert rules.kind([0.29, 0.60, 0.1]) == "long prefix"


def test_what_makes_no_sense_is_refused() -> None:
    model, _ = planted("induction")
    for wrong in ({"prefixes": ()}, {"prefixes": (2, 1)}, {"prefixes": (0,)}, {"samples": 1}):
        with pytest.raises(OptionError, match="ascending"):
            long_prefix(model, **{"tokens": 31, "samples": 3, **wrong})
    with pytest.raises(OptionError, match="fit twice"):
        long_prefix(model, prefixes=(9,), tokens=19, samples=2)
    with pytest.raises(OptionError, match="distinct"):
        long_prefix(model, prefixes=(1,), tokens=128, samples=2)
