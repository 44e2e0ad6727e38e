"""Streaming heads: the proxies against dense float64 and finite differences, planted local and far-looking heads, and the quantile rule."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

import interp
from interp.errors import InputDataError, OptionError, UnsupportedModelError
from interp.heads import published
from interp.heads.duo_data import shuffled
from interp.heads.streaming import streaming, streaming_heads
from interp.models.planted import planted
from interp.results import Result
from interp.tasks.prompt import Prompt

SINKS, WINDOW = 3, 5
TOKENS = (29, 31)


def visible(n: int, sinks: int | None = None, window: int | None = None) -> np.ndarray:
    """Which keys each row sees, cell by cell."""
    return np.array(
        [
            [j <= i and (sinks is None or window is None or j < sinks or i - j < window) for j in range(n)]
            for i in range(n)
        ]
    )


def dense(q, k, v, mask):
    """Outputs [head, row, value] and lse [head, row] of one text, float64; query heads share key heads in order."""
    outs, lses = [], []
    group = q.shape[0] // k.shape[0]
    for h in range(q.shape[0]):
        s = q[h] @ k[h // group].T / np.sqrt(q.shape[-1])
        e = np.where(mask, np.exp(s), 0.0)
        outs.append(e / e.sum(-1, keepdims=True) @ v[h // group])
        lses.append(np.log(e.sum(-1)))
    return np.stack(outs), np.stack(lses)


def in_float64(hf):
    """A Llama in float64 throughout: its own norms round to float32 whatever the dtype."""
    for norm in [m for m in hf.double().modules() if isinstance(m, LlamaRMSNorm)]:
        norm.forward = lambda x, norm=norm: norm.weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return hf


@pytest.fixture(scope="module")
def llama():
    model = interp.tiny("llama")
    in_float64(model.hf)
    return model


@pytest.fixture(scope="module")
def texts():
    draw = np.random.default_rng(0)
    return [
        Prompt(ids=tuple(draw.integers(3, 263, n - 2).tolist()), answer=(7, 11), rows={"late": (11, 13, n - 2, n - 1)})
        for n in TOKENS
    ]


def calls_of(model, prompt):
    found = []
    with torch.no_grad():
        model.probe(
            list(prompt.whole), lambda call, attended: found.append([x[0].numpy() for x in (call.q, call.k, call.v)])
        )
    return found


# ------------------------------------------------------------------ the proxies
@pytest.mark.parametrize("rows", [None, "late"])
def test_mass_and_output_equal_the_dense_definition(llama, texts, rows):
    mass, output = [], []
    for prompt in texts:
        n = len(prompt.whole)
        at = list(range(n)) if rows is None else list(prompt.rows[rows])
        layers = []
        for q, k, v in calls_of(llama, prompt):
            full, lse = dense(q, k, v, visible(n))
            stream, lse_sw = dense(q, k, v, visible(n, SINKS, WINDOW))
            error = np.linalg.norm(full - stream, axis=-1) / np.linalg.norm(full, axis=-1)
            layers.append((np.exp(lse_sw - lse)[:, at].mean(-1), error[:, at].mean(-1)))
        mass.append([m for m, _ in layers])
        output.append([o for _, o in layers])
    for form, wanted in (("mass", np.array(mass)), ("output", np.array(output))):
        result = streaming(llama, texts, form=form, sinks=SINKS, window=WINDOW, rows=rows)
        np.testing.assert_allclose(result.arrays["score"], wanted, rtol=1e-9)
        frame = result.frame
        np.testing.assert_allclose(frame.score, wanted.mean(0).reshape(-1), rtol=1e-9)
        np.testing.assert_allclose(frame.spread, wanted.std(0, ddof=1).reshape(-1), rtol=1e-6)
        np.testing.assert_allclose(frame["mass"], np.mean(mass, 0).reshape(-1), rtol=1e-9)
        np.testing.assert_allclose(frame["output"], np.mean(output, 0).reshape(-1), rtol=1e-9)
        np.testing.assert_array_equal(frame.control, frame[f"{form}_control"])
        assert list(frame.kv_head) == [0, 0, 0, 1, 1, 1] * 3
        assert result.kind == "heads.streaming"
        assert result.manifest["settings"]["form"] == form


def mixed_loss(model, prompt, at, layer, head, gate):
    """Cross-entropy with one head's output mixed by hand, dense float64, in the model's own projection."""
    n = len(prompt.whole)

    class Mixed:
        name, phases = "mixed by hand", frozenset({"prefill"})

        def check(self, *, layers, heads):
            pass

        def acts_on(self, site):
            return site.layer == layer

        def before(self, call):
            return call

        def after(self, call, out):
            q, k, v = (x[0].numpy() for x in (call.q, call.k, call.v))
            stream, _ = dense(q, k, v, visible(n, SINKS, WINDOW))
            out = out.clone()
            out[0, head] = gate * out[0, head] + (1 - gate) * torch.from_numpy(stream[head])
            return out

    ids = torch.tensor([prompt.whole])
    with torch.no_grad(), model.edit(Mixed()):
        logits = model.hf(input_ids=ids).logits[0]
    logp = logits.log_softmax(-1)
    return -np.mean([float(logp[i, prompt.whole[i + 1]]) for i in at])


@pytest.mark.parametrize("rows", [None, "late"])
def test_gradient_equals_finite_differences(llama, texts, rows):
    result = streaming(llama, texts, form="gradient", sinks=SINKS, window=WINDOW, rows=rows)
    for sample, prompt in enumerate(texts):
        at = [i for i in (prompt.rows[rows] if rows else range(len(prompt.whole))) if i + 1 < len(prompt.whole)]
        for layer, head in ((0, 1), (1, 4), (2, 5)):
            up, down = (mixed_loss(llama, prompt, at, layer, head, 1 + e) for e in (1e-3, -1e-3))
            # the loss is taken in float32
            assert result.arrays["score"][sample, layer, head] == pytest.approx(-(up - down) / 2e-3, rel=1e-4, abs=1e-7)
    assert np.abs(result.arrays["score"]).max() > 1e-2
    assert all(p.requires_grad for p in llama.hf.parameters()), "the parameters were frozen for a while only"


def test_control_is_the_score_of_the_shuffled_text(llama, texts):
    result = streaming(llama, texts, sinks=SINKS, window=WINDOW, rows="late", seed=2)
    again = [shuffled(p, p.rows["late"][0], np.random.default_rng([2, i])) for i, p in enumerate(texts)]
    for was, now in zip(texts, again, strict=True):
        assert now.whole[0] == was.whole[0]
        assert now.whole[11:] == was.whole[11:]
        assert now.whole[1:11] != was.whole[1:11]
        assert sorted(now.whole) == sorted(was.whole)
        assert (len(now.ids), now.answer) == (len(was.ids), was.answer)
    other = streaming(llama, again, sinks=SINKS, window=WINDOW, rows="late")
    np.testing.assert_array_equal(result.arrays["control"], other.arrays["score"])
    assert np.abs(result.arrays["control"] - result.arrays["score"]).max() > 1e-3


def test_layers_with_a_window_of_their_own_have_no_score():
    model = interp.tiny("gemma2")
    own = {}
    with torch.no_grad():
        model.probe([5, 6, 7], lambda call, attended: own.update({call.site.layer: call.mask.window}))
    local = np.array([own[n] is not None for n in sorted(own)])
    assert local.any() and not local.all()
    prompt = Prompt(ids=tuple(range(3, 3 + 2 * max(w for w in own.values() if w))), answer=())
    for form in ("output", "gradient"):
        score = streaming(model, [prompt], form=form, sinks=1, window=2).arrays["score"][0]
        assert np.isnan(score[local]).all()
        assert np.isfinite(score[~local]).all()


# ------------------------------------------------------------------ heads whose answer is known
@pytest.fixture(scope="module")
def plants():
    """Three times the same 90 random words: what an induction head looks for lies 89 tokens back, out of a window of 16."""
    model, places = planted(seed=0)
    draw = np.random.default_rng(0)
    blocks = [1 + draw.permutation(96)[:90] for _ in range(2)]
    prompts = [
        Prompt(ids=tuple(np.tile(b, 3).tolist()), answer=(), rows={"later": tuple(range(90, 269))}) for b in blocks
    ]
    return model, places, prompts


def test_planted_heads_by_mass_and_output(plants):
    model, places, prompts = plants
    frame = streaming(model, prompts, form="mass", sinks=4, window=16, rows="later").frame.set_index(["layer", "head"])
    for kind in ("previous", "sink"):
        assert frame.loc[places[kind], "mass"] > 0.99, kind
        assert frame.loc[places[kind], "output"] < 0.01, kind
    for kind in ("induction", "retrieval", "duplicate"):
        assert frame.loc[places[kind], "mass"] < 0.05, kind
        assert frame.loc[places[kind], "output"] > 0.6, kind
    # 20 of i + 1 keys, for a row i
    uniform = np.mean([20 / (i + 1) for i in prompts[0].rows["later"]])
    assert frame.loc[places["uniform"], "mass"] == pytest.approx(uniform, abs=1e-4)
    assert set(frame.index[frame["mass"] > 0.95]) == {places["previous"], places["sink"]}
    assert set(frame.index[frame["output"] < 0.05]) == {places["previous"], places["sink"]}


def test_planted_heads_by_gradient(plants):
    model, places, prompts = plants
    result = streaming(model, prompts, form="gradient", sinks=4, window=16, rows="later")
    frame = result.frame.set_index(["layer", "head"])
    # of the heads that look far only this one writes to the output
    assert result.top(1)[0][:2] == places["retrieval"]
    others = frame.drop(index=[places["retrieval"]]).score.abs().max()
    assert frame.loc[places["retrieval"], "score"] > 10 * others
    assert frame.loc[places["previous"], "score"] == pytest.approx(0, abs=1e-6)
    assert frame.loc[places["retrieval"], "control"] < others, "nothing can be retrieved from shuffled words"


@pytest.mark.parametrize(("form", "share"), [("mass", 2 / 15), ("output", 2 / 15)])
def test_planted_streaming_heads(plants, form, share):
    model, places, prompts = plants
    result = streaming(model, prompts, form=form, sinks=4, window=16, rows="later")
    assert set(streaming_heads(result, share)) == {places["previous"], places["sink"]}


# ------------------------------------------------------------------ the quantile rule
def gates_of(values) -> Result:
    return published.gates_result(
        np.array(values), {"sink_size": 4, "recent_size": 8}, name="mine", queries_per_group=3
    )


@pytest.mark.parametrize("sparsity", [0.0, 0.05, 0.25, 1 / 3, 0.5, 0.77, 0.999, 1.0])
def test_quantile_rule_is_the_authors(sparsity):
    gates = np.random.default_rng(3).permutation(35).reshape(5, 7) / 35
    threshold = 2.0 if sparsity >= 1 else -1.0 if sparsity <= 0 else np.quantile(gates, sparsity)
    wanted = [(int(a), int(b)) for a, b in np.argwhere(gates < threshold)]
    assert streaming_heads(gates_of(gates), sparsity) == wanted


def test_ties_go_to_the_lowest_layer():
    assert streaming_heads(gates_of([[1.0, 1.0], [1.0, 0.0]]), 0.5) == [(0, 0), (1, 1)]
    # published gates lie outside [0, 1] a little, which is no difference
    assert streaming_heads(gates_of([[1.0, -0.01], [0.0, 1.0]]), 0.3) == [(0, 1)]


def test_groups_are_joined_by_their_mean_or_their_worst_head():
    table = pd.DataFrame(
        {
            "layer": 0,
            "head": range(6),
            "score": [0.9, 0.1, 0.6, 0.6, np.nan, np.nan],
            "spread": 0.0,
            "control": 0.0,
            "kv_head": [0, 0, 1, 1, 2, 2],
        }
    )

    def of(form):
        return Result(kind="heads.streaming", table=table, manifest={"settings": {"form": form}})

    assert streaming_heads(of("output"), 0.5) == [(0, 0)], "means .5 and .6"
    assert streaming_heads(of("output"), 0.5, group="worst") == [(0, 1)], "worst .9 and .6"
    assert streaming_heads(of("mass"), 0.5) == [(0, 1)], "high mass streams"
    assert streaming_heads(of("mass"), 0.5, group="worst") == [(0, 1)], "worst .1 and .6"
    assert streaming_heads(of("mass"), 1.0) == [(0, 0), (0, 1)], "what has no score is not named"


# ------------------------------------------------------------------ refusals
def test_refusals(llama, texts, tmp_path):
    with pytest.raises(OptionError, match="window >= 1"):
        streaming(llama, texts, window=0)
    with pytest.raises(OptionError, match="nothing would be cut"):
        streaming(llama, texts, sinks=16, window=64)
    with pytest.raises(OptionError, match="does not fit"):
        streaming(llama, [Prompt(ids=(5,) * 600, answer=())])
    with pytest.raises(InputDataError, match="no rows 'labels'"):
        streaming(llama, texts, sinks=1, window=2, rows="labels")
    with pytest.raises(OptionError, match="at least one"):
        streaming(llama, [])
    with pytest.raises(OptionError, match="needs folder="):
        streaming(llama, form="gates")
    with pytest.raises(OptionError, match="keeps nothing"):
        streaming(llama, texts, folder=tmp_path)
    last = Prompt(ids=(5,) * 20, answer=(), rows={"last": (19,)})
    with pytest.raises(InputDataError, match="no next token"):
        streaming(llama, [last], form="gradient", sinks=1, window=2, rows="last")
    with pytest.raises(OptionError, match="between 0 and 1"):
        streaming_heads(gates_of([[1.0]]), 50.0)
    with pytest.raises(OptionError, match="of kind heads"):
        streaming_heads(Result(kind="heads.retrieval", table=gates_of([[1.0]]).table, manifest={}))


@pytest.mark.parametrize(("family", "says"), [("bert", "causal"), ("t5", "encoder-decoder")])
def test_models_without_recent_keys_are_refused(family, says):
    prompt = Prompt(ids=tuple(range(5, 35)), answer=())
    with pytest.raises(UnsupportedModelError, match=says):
        streaming(interp.tiny(family), [prompt], sinks=1, window=2)
