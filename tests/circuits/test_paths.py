"""Path patching against three hooked eager runs per sender, and along the planted path."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
from eager_llama import difference, eager, hooked, projection, put, values

from interp.circuits.path_patching import path_patching
from interp.errors import OptionError
from interp.models.toy import tiny

SIZE = 10


def by_hand(prompt, senders, receivers, freeze_mlps, direction, places):
    """LD after step 3 (step 2 for the logits) for each sender."""
    hf = eager()
    orig, new = (prompt.ids, prompt.corrupt) if direction == "noise" else (prompt.corrupt, prompt.ids)
    z_orig, z_new = values(hf, orig), values(hf, new)
    mlps = {}
    for layer, block in enumerate(hf.model.layers):
        handle = block.mlp.register_forward_hook(lambda _, args, out, layer=layer: mlps.update({layer: out.clone()}))
        mlps[layer] = handle
    handles = dict(mlps)
    difference(hf, orig, prompt)
    for handle in handles.values():
        handle.remove()
    found = []
    for layer, head in senders:
        noted = {}
        with ExitStack() as stack:
            for n, block in enumerate(hf.model.layers):
                change = put(z_new[n], head, places, SIZE) if n == layer else (lambda x: x)
                stack.enter_context(
                    hooked(projection(hf, n, "z"), "z", lambda x, n=n, change=change: change(z_orig[n].clone()))
                )
                if freeze_mlps:
                    hook = block.mlp.register_forward_hook(lambda _, args, out, n=n: mlps[n])
                    stack.callback(hook.remove)
                for kind in "qkv":
                    stack.enter_context(
                        hooked(
                            projection(hf, n, kind),
                            kind,
                            lambda x, n=n, kind=kind, noted=noted: noted.setdefault((kind, n), x.clone()),
                        )
                    )
            second = difference(hf, orig, prompt)
        if receivers == "logits":
            found.append(second)
            continue
        with ExitStack() as stack:
            for n, h, kind in receivers:
                source = noted[kind, n]
                stack.enter_context(hooked(projection(hf, n, kind), kind, put(source, h, slice(None), SIZE)))
            found.append(difference(hf, orig, prompt))
    return found


@pytest.mark.parametrize("freeze_mlps", [False, True])
@pytest.mark.parametrize(
    "receivers",
    ["logits", ((2, 1, "q"), (2, 4, "q")), ((1, 1, "k"),), ((2, 0, "v"), (1, 5, "q"))],
    ids=["logits", "q", "k", "vq"],
)
def test_every_sender_is_three_eager_runs(pairs_of, receivers, freeze_mlps):
    prompts = [*pairs_of(2, 11), *pairs_of(1, 13)]
    senders = [(2, 3), (0, 0), (0, 5), (1, 2), (1, 4)]
    direction = "denoise" if freeze_mlps else "noise"
    result = path_patching(tiny("llama"), prompts, senders, receivers, freeze_mlps=freeze_mlps, direction=direction)
    hf = eager()
    clean, corrupt = (np.array([difference(hf, getattr(p, side), p) for p in prompts]) for side in ("ids", "corrupt"))
    before = corrupt if direction == "denoise" else clean
    found = np.array([by_hand(p, senders, receivers, freeze_mlps, direction, slice(None)) for p in prompts])
    expected = (found - before[:, None]) / (clean - corrupt).mean()
    np.testing.assert_allclose(result.arrays["samples"], expected, atol=3e-4)
    assert np.abs(expected).max() > 1e-3
    assert result.frame[["layer", "head"]].to_numpy().tolist() == [list(s) for s in senders]


def test_senders_are_patched_where_they_are_told(pairs_of):
    (prompt,) = pairs_of(1, 11)
    result = path_patching(tiny("llama"), [prompt], [(0, 3)], ((2, 1, "k"),), position="two")
    clean, corrupt = (result.arrays[x][0] for x in ("clean", "corrupt"))
    (found,) = by_hand(prompt, [(0, 3)], ((2, 1, "k"),), False, "noise", [3, 4])
    assert result.arrays["samples"][0, 0] == pytest.approx((found - clean) / (clean - corrupt), abs=3e-4)


def test_batches_do_not_matter(pairs_of):
    for family in ("gpt2", "gemma2", "opt", "gpt_oss"):
        model = tiny(family)
        for freeze in (False, True):
            given = {"receivers": ((1, 1, "k"), (1, 0, "q")), "freeze_mlps": freeze}
            together = path_patching(model, pairs_of(3, 11), **given)
            alone = path_patching(model, pairs_of(3, 11), batch=1, **given)
            found, expected = (x.arrays["samples"] * x.manifest["settings"]["gap"] for x in (together, alone))
            np.testing.assert_allclose(found, expected, atol=1e-5)
            assert np.abs(expected).max() > 1e-4


def test_the_planted_path_and_no_other(copying):
    model, where, prompts = copying
    previous, retrieval = where["previous"], where["retrieval"]

    def effect(head, receivers):
        return path_patching(model, prompts, [head], receivers).frame["score"].iloc[0]

    assert effect(previous, [(*retrieval, "k")]) < -0.9
    for other in ("q", "v"):
        assert abs(effect(previous, [(*retrieval, other)])) < 0.1
    assert abs(effect(previous, "logits")) < 0.1
    assert effect(retrieval, "logits") < -0.9
    assert effect(retrieval, [(*retrieval, "k")]) == 0.0  # no receiver behind it


@pytest.mark.parametrize(
    ("senders", "receivers", "said"),
    [
        ([(3, 0)], "logits", "senders"),
        ([], "logits", "no senders"),
        (None, [(1, 2, "k")], "receiver .1, 2, 'k'. does not exist"),
        (None, [], "no receivers"),
    ],
)
def test_heads_that_do_not_exist_are_refused(pairs_of, senders, receivers, said):
    with pytest.raises(OptionError, match=said):
        path_patching(tiny("llama"), pairs_of(1, 7), senders, receivers)
