"""`HookedModel` and `Run`: what a run takes, gives and refuses; what it records of itself; and that release gives the model back."""

from __future__ import annotations

import gc
import hashlib
import importlib.metadata
import json
import threading
import weakref

import numpy as np
import pytest
import torch
from attention_truth import FOX, TARGETS, TEXTS, eager_twin, hooked, run_kwargs
from transformers import BloomConfig, BloomForCausalLM, LlamaConfig, LlamaForCausalLM

from interp.capture.attend import IMPLEMENTATION, is_listened
from interp.errors import CaptureError, InputDataError, OptionError, ShapeError, UnsupportedModelError
from interp.models.families import FAMILIES
from interp.models.hooked import wrap
from interp.models.toy import byte_tokenizer, tiny_inputs, tiny_parts
from interp.stats import STATISTICS, Statistic, declare, forward_names
from interp.stats.declaration import UNIT
from interp.stats.needs import Needs

BOS = 1


@pytest.fixture(scope="module")
def model():
    return hooked("llama")


@pytest.fixture(scope="module")
def plain():
    """A model whose tokenizer adds nothing."""
    return hooked("gpt2")


def same(a, b):
    return torch.equal(a.nan_to_num(-7.0), b.nan_to_num(-7.0))


# ---------------------------------------------------------------------- what goes in
def test_text_ids_and_tensors_are_one_input(model):
    ids = model.encode(FOX)
    assert ids == model.tokenizer(FOX)["input_ids"]
    whole = model.run(FOX)
    for given in (ids, torch.tensor(ids)):
        run = model.run(given)
        assert run.ids.tolist() == ids
        assert torch.equal(run.logits, whole.logits)
        assert all(same(run.stats[name], values) for name, values in whole.stats.items())
    for given in ([FOX], [ids], torch.tensor([ids])):
        run = model.run(given)
        assert run.logits.shape == (1, *whole.logits.shape)
        assert same(run[0].stats["entropy"], whole.stats["entropy"])


def test_tokens_are_decoded_one_by_one(model):
    run = model.run("aß?")
    assert run.tokens == ["<bos>", "a", "�", "�", "?"]
    assert model.run(["a", "bc"]).tokens == [["<bos>", "a"], ["<bos>", "b", "c"]]


def test_several_texts_have_a_batch_axis_and_come_apart(model):
    run = model.run(list(TEXTS))
    lengths = [len(model.encode(t)) for t in TEXTS]
    assert (len(run), [len(x) for x in run.ids]) == (3, lengths)
    assert run.stats["entropy"].shape == (3, 3, 6, max(lengths))
    assert run.stats["first_token_alpha"].shape == (3, 3, 6)
    assert run.logits.shape == (3, max(lengths), 263)
    for b, one in enumerate(run):
        assert one.stats["entropy"].shape == (3, 6, lengths[b])
        assert one.stats["first_token_alpha"].shape == (3, 6)
        assert one.logits.shape == (lengths[b], 263) and not one.logits.isnan().any()
        assert run.logits[b, lengths[b] :].isnan().all()
        assert one.attention[1, 4].shape == (lengths[b], lengths[b])
        assert len(one) == 1
    assert same(run[-1].stats["entropy"], run[2].stats["entropy"])
    with pytest.raises(ShapeError, match="3 texts"):
        run[3]
    with pytest.raises(ShapeError, match=r"run\[b\]"):
        run.attention[0, 0]
    with pytest.raises(ShapeError, match="one text"):
        run[0][0]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("", "at least one token"),
        ([], "at least one token"),
        (["abc", ""], "at least one token"),
        ([[5], []], "at least one token"),
        (["abc", [1, 2]], "mixed"),
        ([[1, 2], "abc"], "mixed"),
    ],
)
def test_empty_and_mixed_input_is_refused(plain, given, wanted):
    with pytest.raises(InputDataError, match=wanted):
        plain.run(given)


def test_tensors_that_are_no_ids_are_refused(model):
    with pytest.raises(ShapeError, match="integer tensor"):
        model.run(torch.zeros(5))
    with pytest.raises(ShapeError, match="integer tensor"):
        model.run(torch.zeros(1, 2, 3, dtype=torch.long))


def test_a_model_without_a_tokenizer_takes_ids_only():
    bare = wrap(tiny_parts("llama").hf)
    with pytest.raises(InputDataError, match="tokenizer"):
        bare.run("text")
    run = bare.run([9, 8, 9])
    assert run.tokens == ["9", "8", "9"]
    assert float(run.stats["special_mass"].abs().max()) == 0.0
    assert run.manifest["settings"]["bos"].startswith("not ours")


def test_a_processor_that_holds_a_tokenizer_is_one():
    parts = tiny_parts("llama")

    class Processor:
        tokenizer = parts.tokenizer

    assert wrap(parts.hf, Processor()).encode("a") == parts.tokenizer("a")["input_ids"]


# ---------------------------------------------------------------------- the first token
def test_a_tokenizer_that_adds_bos(model):
    a = model.encode("a")[-1]
    assert model.encode("a") == model.encode("a", bos=True) == [BOS, a]
    assert model.encode("a", bos=False) == [a]
    assert model.encode("<bos>a") == model.encode("<bos>a", bos=True) == [BOS, BOS, a]
    assert model.encode("<bos>a", bos=False) == [BOS, a]
    assert model.encode("<bos><bos>", bos=False) == [BOS, BOS]
    assert model.run("a", bos=False).ids.tolist() == [a]


def test_a_tokenizer_that_adds_nothing(plain):
    a = plain.encode("a")[-1]
    assert plain.encode("a") == plain.encode("a", bos=False) == [a]
    assert plain.encode("a", bos=True) == [BOS, a]
    for choice in (None, True, False):
        assert plain.encode("<bos>a", bos=choice) == [BOS, a]


def test_a_tokenizer_that_adds_an_end_keeps_the_texts_own_bos():
    t5 = hooked("t5")
    a, end = t5.encode("a")
    assert t5.encode("<bos>a", bos=False) == [BOS, a, end]
    assert t5.encode("a", bos=True) == [BOS, a, end]


def test_bos_without_a_bos_token_and_bos_for_ids_are_refused(model):
    tokenizer = byte_tokenizer("plain")
    tokenizer.bos_token = None
    with pytest.raises(OptionError, match="no BOS token"):
        wrap(tiny_parts("gpt2").hf, tokenizer).run("a", bos=True)
    for given in ([5, 6], torch.tensor([[5, 6]])):
        with pytest.raises(OptionError, match="ids were given"):
            model.run(given, bos=False)


# ---------------------------------------------------------------------- layers, statistics, what is kept
def test_layers_keep_the_models_own_numbers(model):
    whole, some = model.run(FOX), model.run(FOX, layers=[2, 0])
    assert (whole.layers, some.layers) == ((0, 1, 2), (0, 2))
    for name, values in some.stats.items():
        assert same(values, whole.stats[name][[0, 2]])
    assert torch.equal(some.attention[2, 3].dense(), whole.attention[2, 3].dense())
    assert set(some.frame["layer"]) == {0, 2}
    with pytest.raises(CaptureError, match="layer 1 was not captured"):
        some.attention[1, 0]
    with pytest.raises(OptionError, match="heads 0 to 5"):
        some.attention[2, 6]
    with pytest.raises(OptionError, match="heads 0 to 5"):
        some.attention[2, -1]


@pytest.mark.parametrize("layers", [[3], [-1], [0, 7], []])
def test_layers_that_do_not_exist_are_refused(model, layers):
    with pytest.raises(OptionError, match="from 0 to 2"):
        model.run(FOX, layers=layers)


def test_collect_names_statistics(model):
    run = model.run(FOX, collect=["alpha", "entropy"])
    assert list(run.stats) == ["alpha", "entropy"]
    assert run.stats["alpha"].shape == (3, 6, len(run.ids))
    assert set(model.run(FOX).stats) == set(forward_names()) - {"learned_sink_mass"}
    with pytest.raises(OptionError, match=r"'entropie'.*known are: entropy"):
        model.run(FOX, collect=["entropie"])


def test_nothing_collected_still_gives_maps(model):
    run = model.run(FOX, collect=[])
    assert run.stats == {}
    assert run.frame.empty and list(run.frame) == ["layer", "head", "statistic", "value", "std", "count"]
    assert torch.equal(run.attention[0, 0].dense(), model.run(FOX).attention[0, 0].dense())


def test_keep_none_keeps_statistics_only(model):
    run = model.run(FOX, keep="none")
    assert same(run.stats["entropy"], model.run(FOX).stats["entropy"])
    assert run._records[0].q is None and run._records[0].k is None
    with pytest.raises(CaptureError, match='keep="qk"'):
        run.attention[0, 0]


def test_kept_tensors_own_their_memory():
    run = hooked("gpt_neox").run(FOX)  # q, k and v are views of one projection there
    for record in run._records.values():
        for x in (record.q, record.k):
            assert x.untyped_storage().nbytes() == x.numel() * x.element_size()


def test_logits_as_asked(model):
    whole = model.run(FOX)
    assert torch.allclose(model.run(FOX, logits="last").logits, whole.logits[-1], atol=1e-5)
    several, last = model.run(list(TEXTS)), model.run(list(TEXTS), logits="last").logits
    assert last.shape == (3, 263)
    for b, one in enumerate(several):
        assert torch.allclose(last[b], one.logits[-1], atol=1e-5)
        assert torch.equal(model.run(list(TEXTS), logits="last")[b].logits, last[b])
    heads = []
    handle = model.hf.lm_head.register_forward_hook(lambda *_: heads.append(1))
    assert model.run(FOX, logits="none").logits is None
    handle.remove()
    assert not heads, 'logits="none" ran the head of the model'


@pytest.mark.parametrize("family", ["t5", "bert"])
def test_logits_of_families_that_cannot_choose_positions(family):
    kwargs = run_kwargs(family)
    whole, last = hooked(family).run(**kwargs), hooked(family).run(**kwargs, logits="last")
    for b, one in enumerate(whole):
        assert torch.equal(last.logits[b], one.logits[-1])
    assert hooked(family).run(**kwargs, logits="none").logits is None


def test_spans_name_key_sets(model):
    run = model.run(FOX, spans={"fox": (17, 20), "start": [(0, 3)]})
    amap = run.attention[1, 2].dense()
    torch.testing.assert_close(run.stats["span:fox"][1, 2], amap[:, 17:20].sum(1), rtol=0, atol=1e-5)
    torch.testing.assert_close(run.stats["span:start"][1, 2], amap[:, :3].sum(1), rtol=0, atol=1e-5)
    several = model.run(["abcd", "ab"], spans={"mine": [(1, 4), (2, 3)]})
    for b, (start, stop) in enumerate([(1, 4), (2, 3)]):
        amap = several[b].attention[0, 0].dense()
        torch.testing.assert_close(several[b].stats["span:mine"][0, 0], amap[:, start:stop].sum(1), rtol=0, atol=1e-5)


def test_spans_that_do_not_fit_are_refused(model):
    for span in ((3, 3), (-1, 2), (0, 99)):
        with pytest.raises(ShapeError, match="0 <= start < stop"):
            model.run("abcd", spans={"x": span})
    with pytest.raises(ShapeError, match="each of 2 texts"):
        model.run(["abcd", "ab"], spans={"x": [(0, 1)]})
    with pytest.raises(OptionError, match=r"span:x.*spans="):
        model.run("abcd", collect=["span:x"])
    with pytest.raises(OptionError, match=r"span:x.*spans="):
        model.run("abcd", collect=["span:x"], spans={"y": (0, 1)})


# ---------------------------------------------------------------------- other kinds of models
def test_an_encoder_decoder_has_three_captures():
    model = hooked("t5")
    assert (model.layers, model.heads, model.is_encoder_decoder) == (3, 5, True)
    run = model.run(FOX, target=TARGETS[0], spans={"fox": (17, 20)})
    source, target = len(model.encode(FOX)), len(model.encode(TARGETS[0]))
    assert (run.layers, run.encoder.layers, run.cross.layers) == ((0, 1, 2), (0, 1), (0, 1, 2))
    assert run.stats["entropy"].shape == (3, 5, target)
    assert run.encoder.stats["entropy"].shape == (2, 5, source)
    assert run.cross.stats["entropy"].shape == (3, 5, target)
    assert run.cross.attention[2, 1].shape == (target, source)
    assert (len(run.cross.attention[0, 0].row_tokens), len(run.cross.attention[0, 0].col_tokens)) == (target, source)
    assert [("span:fox" in s.stats) for s in (run, run.encoder, run.cross)] == [False, True, True]
    assert "mean_distance" not in run.cross.stats and "induction_mass" not in run.encoder.stats
    assert model.run(FOX).ids.tolist() == [0], "without a target: the decoder start token"
    with pytest.raises(InputDataError, match="2 decoder texts"):
        model.run([FOX, FOX], target=["un"])


def test_sizes_of_whisper_are_its_decoders():
    model = hooked("whisper")
    assert (model.layers, model.heads) == (3, 3)
    run = model.run(tiny_inputs("whisper", batch=1)["input_features"])
    assert run.encoder.heads == 5 and run.cross.attention[0, 2].shape == (1, 31)


def test_images_have_positions_and_no_tokens():
    model = hooked("vit")
    run = model.run(tiny_inputs("vit", batch=1)["pixel_values"])
    assert (run.ids, run.tokens, run.logits.shape) == (None, None, (11,))
    assert run.attention[2, 4].shape == (37, 37) and run.attention[2, 4].row_tokens is None
    assert "token_ids_sha256" not in run.manifest
    with pytest.raises(InputDataError, match="pixel_values"):
        model.run("a cat")
    with pytest.raises(InputDataError, match="holds no tokens"):
        model.run(tiny_inputs("vit", batch=1)["pixel_values"], spans={"x": (0, 1)})


def test_one_token_is_a_run(model):
    run = model.run("a", bos=False)
    assert run.stats["entropy"].abs().max() == 0 and run.stats["normalised_entropy"].isnan().all()
    assert run.attention[0, 0].dense().tolist() == [[1.0]]
    assert run.frame.query("statistic == 'normalised_entropy'")["count"].eq(0).all()


# ---------------------------------------------------------------------- what a run says of itself
def test_the_manifest_says_what_was_run(model):
    run = model.run(["ab", "c"], layers=[1], collect=["entropy"], keep="none", logits="last", bos=False)
    said = run.manifest
    ids = [model.encode(t, bos=False) for t in ("ab", "c")]
    joined = ";".join(",".join(str(i) for i in x) for x in ids)
    assert said["token_ids_sha256"] == hashlib.sha256(joined.encode()).hexdigest()
    assert said["settings"] == {
        "layers": [1], "statistics": ["entropy"], "keep": "none", "logits": "last", "interventions": [], "bos": "forced off",
    }  # fmt: skip
    assert said["model"]["name"] == "tiny/llama-0" and said["model"]["class"] == "LlamaForCausalLM"
    assert said["dtype"] == "float32" and said["backend_asked"] == model.backend
    assert said["backends"] and set(said["backends"]) <= {"cpu", "portable", "reference"}
    for package in ("interp", "torch", "transformers", "transformer-lens"):
        assert said["versions"][package] == importlib.metadata.version(package)
    assert said["versions"]["torch"] == torch.__version__
    text = json.dumps(said)
    assert all(path not in text for path in ("/home", "/root", "/tmp", "/work", "\\\\"))


def test_the_manifest_records_the_choice_of_a_first_token(model, plain):
    assert model.run("a").manifest["settings"]["bos"] == "as the tokenizer does: adds special tokens"
    assert plain.run("a").manifest["settings"]["bos"] == "as the tokenizer does: adds none"
    assert plain.run("a", bos=True).manifest["settings"]["bos"] == "forced on"
    assert plain.run([5]).manifest["settings"]["bos"].startswith("not ours")


def test_the_frame_holds_means_over_rows(model):
    run = model.run(FOX, collect=["normalised_entropy", "alpha", "first_token_alpha"])
    frame = run.frame
    assert list(frame) == ["layer", "head", "statistic", "value", "std", "count"]
    assert len(frame) == 3 * 3 * 6
    for name in run.stats:
        row = frame.query("layer == 2 and head == 5 and statistic == @name").iloc[0]
        x = run.stats[name][2, 5].double().numpy()
        x = x[~np.isnan(x)]
        assert row["count"] == x.size
        assert row["value"] == pytest.approx(x.mean(), rel=1e-12)
        if x.size > 1:
            assert row["std"] == pytest.approx(x.std(ddof=1), rel=1e-9)
        else:
            assert np.isnan(row["std"])
    several = model.run(list(TEXTS), collect=["entropy"])
    assert list(several.frame) == ["layer", "text", "head", "statistic", "value", "std", "count"]
    one = several.frame.query("text == 1 and layer == 1 and head == 3").iloc[0]
    assert one["value"] == pytest.approx(float(several[1].stats["entropy"][1, 3].double().mean()), rel=1e-12)


def test_a_statistic_of_your_own_shows_up(model):
    mine = Statistic(
        name="sharp_rows",
        title="sharp rows",
        formula="1 if max_j p_ij > 0.5",
        axis="query",
        unit="share",
        scale=UNIT,
        needs=Needs(kernel=frozenset({"row_max"})),
        derive=lambda rows: (rows.measured["row_max"] - rows.lse).exp().gt(0.5).float(),
        cost="nothing",
        citation="a test",
    )
    declare(mine)
    try:
        run = model.run(FOX)
        assert torch.equal(run.stats["sharp_rows"], (run.stats["max_probability"] > 0.5).float())
        assert "sharp_rows" in set(run.frame["statistic"])
        with pytest.raises(OptionError, match="declared already"):
            declare(mine)
    finally:
        del STATISTICS["sharp_rows"]
    assert "sharp_rows" not in model.run(FOX).stats


def test_verify_compares_with_eager(model):
    assert model.verify() <= 1e-4
    assert model.hf.config._attn_implementation == IMPLEMENTATION
    assert hooked("gpt_oss").verify("learned sinks") <= 1e-4
    assert hooked("t5").verify("source", target="target") <= 1e-4


# ---------------------------------------------------------------------- refusals of models
def test_attention_dropout_in_training_is_refused():
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=31, hidden_size=20, intermediate_size=23, num_hidden_layers=1,
                         num_attention_heads=5, num_key_value_heads=5, attention_dropout=0.25)  # fmt: skip
    hf = LlamaForCausalLM(config)
    hf.train()
    model = wrap(hf)
    assert not hf.training, "wrap puts the model in evaluation mode"
    model.run([1, 2, 3])
    hf.train()
    with pytest.raises(UnsupportedModelError, match=r"dropout 0\.25"):
        model.run([1, 2, 3])
    assert not is_listened()
    model.release()
    assert hf.training, "release gives back the mode it came in"


def test_a_model_with_an_attention_of_its_own_is_refused_and_left_alone():
    hf = BloomForCausalLM(BloomConfig(vocab_size=31, hidden_size=20, n_layer=2, n_head=5))
    hf.train()
    before = hf.config._attn_implementation
    with pytest.raises(UnsupportedModelError, match="BloomForCausalLM"):
        wrap(hf)
    assert hf.training and hf.config._attn_implementation == before


def test_a_model_is_hooked_once():
    model = hooked("llama")
    with pytest.raises(UnsupportedModelError, match="hooked already"):
        wrap(model.hf, model.tokenizer)
    logits = model.run(FOX).logits
    again = wrap(model.release(), model.tokenizer)
    assert torch.equal(again.run(FOX).logits, logits)


# ---------------------------------------------------------------------- release
def fingerprint(hf):
    """What must not change: parameters and buffers by name and identity, hooks, modes, attributes, configs."""
    modules = {
        path: (
            type(m), m.training, sorted(vars(m)), len(m._forward_hooks), len(m._forward_pre_hooks),
            {name: id(x) for name, x in m._modules.items()},
        )
        for path, m in hf.named_modules()
    }  # fmt: skip
    tensors = {n: (id(x), x._version) for n, x in (*hf.named_parameters(), *hf.named_buffers())}
    configs = {
        path: m.config.to_dict() | {"attention": m.config._attn_implementation}
        for path, m in hf.named_modules()
        if hasattr(m, "config")
    }
    return modules, tensors, configs, list(hf.state_dict())


@pytest.mark.parametrize("bridged", [False, True], ids=["plain", "bridge"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma3", "bert", "vit", "t5"])
def test_release_gives_the_model_back_as_it_came(family, bridged):
    parts = tiny_parts(family)
    hf = parts.hf
    hf.set_attn_implementation("sdpa" if family != "t5" else "eager")
    inputs = tiny_inputs(family)
    seen = []
    hook = hf.base_model.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        logits = hf(**inputs).logits
    before = fingerprint(hf)
    model = wrap(hf, parts.tokenizer)
    if bridged:
        assert model.bridge is not None
        with torch.no_grad():
            model.bridge.run_with_cache(next(iter(inputs.values())), **rest(inputs))
    model.run(**run_kwargs(family))
    assert model.release() is hf
    assert fingerprint(hf) == before
    with torch.no_grad():
        assert torch.equal(hf(**inputs).logits, logits)
    count = len(seen)
    hook.remove()
    with torch.no_grad():
        hf(**inputs)
    assert len(seen) == count, "the handle of a hook from before no longer removes it"


def rest(inputs):
    return {"decoder_input": inputs["decoder_input_ids"]} if "decoder_input_ids" in inputs else {}


def test_a_released_model_is_spent():
    model = hooked("llama")
    model.release()
    model.release()
    for use in (lambda: model.run(FOX), lambda: model.bridge, lambda: model.generate(FOX)):
        with pytest.raises(CaptureError, match="released"):
            use()


def test_a_wrapped_model_is_not_kept_alive():
    model = hooked("llama")
    run = model.run(FOX)
    gone = weakref.ref(model.hf)
    del model
    gc.collect()
    assert gone() is None
    assert run.attention[0, 0].dense().shape[0] == len(run.ids), "maps need the run alone"


# ---------------------------------------------------------------------- several at once
def test_two_models_at_once():
    a, b = hooked("llama"), hooked("gemma2")
    alone = hooked("llama").run(FOX)
    inner = []
    handle = a.hf.model.layers[1].register_forward_hook(lambda *_: inner.append(b.run("inside")))
    run = a.run(FOX)
    handle.remove()
    assert same(run.stats["entropy"], alone.stats["entropy"])
    assert same(inner[0].stats["entropy"], hooked("gemma2").run("inside").stats["entropy"])
    a.release()
    assert b.hf.config._attn_implementation == IMPLEMENTATION
    assert torch.equal(b.run(FOX).logits, hooked("gemma2").run(FOX).logits)


def test_a_forward_in_another_thread_is_not_recorded():
    model = hooked("llama")
    alone = model.run(FOX)
    other = torch.tensor([model.encode("something else")])
    logits = []

    def forward():
        with torch.no_grad():
            logits.append(model.hf(other).logits)

    def elsewhere(*_):
        if not logits:  # the other thread's forward comes through here as well
            logits.append(None)
            thread = threading.Thread(target=forward)
            thread.start()
            thread.join()

    handle = model.hf.model.layers[1].self_attn.q_proj.register_forward_hook(elsewhere)
    run = model.run(FOX)
    handle.remove()
    assert all(same(run.stats[name], values) for name, values in alone.stats.items())
    assert torch.equal(logits[1][0], model.run("something else").logits)


def test_a_plain_forward_is_not_recorded_and_a_failed_run_leaves_no_listener(model):
    with pytest.raises(IndexError):
        model.run([262, 263])  # an id outside the vocabulary
    assert not is_listened()
    with torch.no_grad():
        assert model.hf(torch.tensor([[5, 6]])).logits.shape == (1, 2, 263)


def test_a_layer_that_runs_twice_is_refused():
    model = hooked("llama")
    layers = model.hf.model.layers
    layers.append(layers[0])  # as in models that share layers
    model.hf.config.num_hidden_layers = 4
    with pytest.raises(CaptureError, match="layer 0 ran twice"):
        model.run(FOX)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_repr_names_the_sizes(family):
    model, twin = hooked(family), eager_twin(family)
    assert f"{type(twin).__name__}, {model.layers} layers x {model.heads} heads" in repr(model)
