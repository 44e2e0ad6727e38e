"""Previous-token, duplicate-token and induction scores: dense definitions, hand-worked masses, planted heads, TransformerLens's patterns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformer_lens.head_detector import (
    compute_head_attention_similarity_score,
    get_duplicate_token_head_detection_pattern,
    get_induction_head_detection_pattern,
    get_previous_token_head_detection_pattern,
)

from interp.errors import InputDataError, OptionError
from interp.heads.positional import (
    FORMS,
    duplicate_token,
    induction,
    positional,
    previous_token,
    score_of,
    shuffle_later,
)
from interp.heads.positional_text import positional_text
from interp.heads.tables import named
from interp.models.hooked import wrap
from interp.models.load import load
from interp.models.planted import planted
from interp.models.toy import tiny
from interp.tasks.repeated import Repetition, prompts
from interp.tasks.sequences import sequences

TWICE = Repetition(length=31, repeats=2)
KINDS = ("previous", "duplicate", "induction")


@torch.no_grad()
def eager(hf, ids):
    """Attention [layer, head, query, key] in float64 by transformers' own eager attention; `hf` is changed."""
    hf = hf.double()
    hf.set_attn_implementation("eager")
    return torch.stack([p[0] for p in hf(torch.tensor([ids]), output_attentions=True).attentions]).numpy()


def looked_up(pattern, kind, start, length, repeats, copies):
    """The score by its words: loop over rows and earlier copies."""
    end = start + length * repeats
    values = []
    for i in range(start, end):
        if kind == "previous":
            if i > start:
                values.append(pattern[..., i, i - 1])
            continue
        earlier = [j for j in range(i - length, start - 1, -length)]
        found = [pattern[..., i, j + (kind == "induction")] for j in earlier]
        if copies == "recent":
            values += found[:1]
        elif copies == "sum":
            values += [sum(found)] if found else []
        else:
            values += found
    return np.mean(values, axis=0)


@pytest.mark.parametrize("form", list(FORMS))
def test_scores_are_those_of_the_dense_maps(form):
    drawn = Repetition(length=7, repeats=4, bos=FORMS[form].repetition.bos)
    model = tiny("llama")
    results = positional(model, form=form, repetition=drawn, samples=3, seed=5)
    sequences = prompts(model.tokenizer, drawn, samples=3, seed=5)
    maps = [eager(tiny("llama").release(), list(p.ids)) for p in sequences]
    start = 1 if drawn.bos else 0
    for kind in KINDS:
        want = np.stack([looked_up(m, kind, start, 7, 4, FORMS[form].copies) for m in maps])
        frame = results[kind].frame
        np.testing.assert_allclose(frame.score.to_numpy().reshape(3, 6), want.mean(0), atol=1e-6)
        np.testing.assert_allclose(frame.spread.to_numpy().reshape(3, 6), want.std(0, ddof=1), atol=1e-6)
        np.testing.assert_allclose(results[kind].arrays["score"], want, atol=1e-6)
    two_back = np.stack([np.mean([m[..., i, i - 2] for i in range(start + 2, start + 28)], axis=0) for m in maps])
    np.testing.assert_allclose(results["previous"].frame.control, two_back.mean(0).reshape(-1), atol=1e-6)


def test_the_row_before_the_first_copy_never_counts():
    size = 5
    masses = np.zeros((1, 1, 1, 2 * size, 1))
    masses[..., size - 1, 0] = 1.0  # looks at position 0 from where no copy has begun
    drawn = Repetition(length=size, repeats=2)
    assert score_of(masses, (size - 1,), "induction", drawn, "recent").item() == 0.0
    masses[..., size:, 0] = 1.0
    assert score_of(masses, (size - 1,), "induction", drawn, "recent").item() == 1.0


def test_a_perfect_head_scores_half_when_all_copies_are_averaged():
    size, repeats = 3, 4
    drawn = Repetition(length=size, repeats=repeats)
    offsets = (2, 5, 8)
    recent = np.zeros((1, 1, 1, size * repeats, 3))
    recent[..., size:, 0] = 1.0
    spread = np.zeros_like(recent)
    for i in range(size, size * repeats):
        spread[..., i, : i // size] = 1.0 / (i // size)
    for masses in (recent, spread):
        assert score_of(masses, offsets, "induction", drawn, "mean").item() == pytest.approx(0.5)
        assert score_of(masses, offsets, "induction", drawn, "sum").item() == pytest.approx(1.0)
    assert score_of(spread, offsets, "induction", drawn, "recent").item() == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("form", list(FORMS))
def test_planted_heads_are_found_and_no_others(form, seed):
    model, places = planted(seed=seed)
    found = positional(model, form=form, repetition=TWICE)
    wanted = {
        "previous": {places["previous"]},
        "duplicate": {places["duplicate"]},
        "induction": {places["induction"], places["retrieval"]},
    }
    for kind in KINDS:
        frame = found[kind].frame.set_index(["layer", "head"])
        above = frame.index[frame.score > 0.3].tolist()
        assert set(above) == wanted[kind], kind
        assert frame.score[above].min() > 0.95
        assert frame.score.drop(above).max() < 0.1
        assert frame.control.max() < 0.12, "a token keeps its place in 1 of 31 cases"
        assert found[kind].kind == f"heads.{'induction' if kind == 'induction' else kind + '_token'}"


def test_the_named_functions_are_single_kinds():
    model, places = planted()
    for function, kind in ((previous_token, "previous"), (duplicate_token, "duplicate"), (induction, "retrieval")):
        result = function(model, repetition=TWICE, samples=3)
        assert places[kind] in [(layer, head) for layer, head, _ in result.top(2)]
        assert result.manifest["settings"]["length"] == 31
        assert result.arrays["score"].shape == (3, 3, 5)


def test_sequences_depend_on_the_seed_and_not_on_how_many_there_are():
    model, _ = planted()
    few = induction(model, repetition=TWICE, samples=2, seed=3)
    many = induction(model, repetition=TWICE, samples=4, seed=3)
    other = induction(model, repetition=TWICE, samples=2, seed=4)
    np.testing.assert_array_equal(few.arrays["score"], many.arrays["score"][:2])
    assert not np.array_equal(few.arrays["score"], other.arrays["score"])


def test_shuffling_keeps_the_first_block_and_every_blocks_tokens():
    model, _ = planted()
    drawn = replace(TWICE, repeats=3)
    prompt = prompts(model.tokenizer, drawn, samples=1)[0]
    shuffled = shuffle_later(prompt, drawn, np.random.default_rng(0))
    assert shuffled[:31] == prompt.ids[:31]
    for start in (31, 62):
        block = shuffled[start : start + 31]
        assert sorted(block) == sorted(prompt.ids[:31])
        assert block != prompt.ids[:31]
    assert shuffled[31:62] != shuffled[62:]


def test_progress_ends_at_the_number_of_sequences():
    model, _ = planted()
    said = []
    positional(model, repetition=TWICE, samples=3, progress=lambda done, total: said.append((done, total)))
    assert said[-1] == (3, 3)
    assert said == sorted(said)


def test_what_cannot_be_measured_is_refused():
    model, _ = planted()
    with pytest.raises(
        OptionError, match="form must be one of transformer-lens, olsson, razor, razor-all-copies; got 'rotary'"
    ):
        named("form", "rotary", list(FORMS))
    with pytest.raises(OptionError, match="at least 2"):
        induction(model, samples=1)
    with pytest.raises(OptionError, match="sequences of 1100 tokens, and the model reads 1024"):
        induction(model, form="razor", repetition=Repetition(length=275, repeats=4, distinct=False))
    with pytest.raises(InputDataError, match="without one"):
        induction(wrap(planted()[0].release()))


# ---------------------------------------------------------------------- real text
TEXTS = [
    "the cat sat on the mat and the dog sat on the cat then the mat sat",
    "a rose is a rose is a rose and so is a tulip",
]


def test_text_scores_are_those_of_transformer_lens_patterns():
    model = tiny("gpt2")
    results = positional_text(model, texts=TEXTS, tokens=37, samples=3, seed=2)
    pieces = sequences(tiny("gpt2"), "natural", texts=TEXTS, tokens=37, count=3, seed=2)
    patterns = {
        "previous": get_previous_token_head_detection_pattern,
        "duplicate": get_duplicate_token_head_detection_pattern,
        "induction": get_induction_head_detection_pattern,
    }
    for kind, pattern_of in patterns.items():
        scores, muls, differences = [], [], []
        for ids in pieces:
            attention = torch.tensor(eager(tiny("gpt2").release(), ids))
            pattern = pattern_of(torch.tensor([ids]))[:37, :37].double()
            muls.append([[(a * pattern).sum() / a.sum() for a in layer] for layer in attention])
            differences.append(
                [
                    [
                        compute_head_attention_similarity_score(
                            a, pattern, exclude_bos=False, exclude_current_token=False, error_measure="abs"
                        )
                        for a in layer
                    ]
                    for layer in attention
                ]
            )
            if kind == "duplicate":
                pattern[:, 0] = 0.0
            rows = pattern.any(-1)
            scores.append((attention * pattern).sum(-1)[..., rows].mean(-1).numpy())
        frame = results[kind].frame
        np.testing.assert_allclose(frame["mul"], np.mean(muls, axis=0).reshape(-1), atol=1e-6)
        # TransformerLens rounds abs to three digits
        np.testing.assert_allclose(frame["abs"], np.mean(differences, axis=0).reshape(-1), atol=6e-4)
        np.testing.assert_allclose(frame.score, np.mean(scores, axis=0).reshape(-1), atol=1e-6)


def test_text_scores_agree_with_the_catalogue_where_the_first_token_is_unique():
    text = ["# the cat sat on the mat, and the dog sat there"]
    length = len(text[0])
    model = tiny("gpt2")
    results = positional_text(model, texts=text, tokens=length, samples=2)
    run = model.run(text[0], collect=["duplicate_token_mass", "induction_mass"])
    for kind, name in (("duplicate", "duplicate_token_mass"), ("induction", "induction_mass")):
        want = run.stats[name].nanmean(-1).flatten()
        np.testing.assert_allclose(results[kind].frame.score, want, atol=1e-6)


def test_a_sink_at_a_first_token_that_comes_again_makes_no_duplicate_head():
    model, places = planted()
    text = " ".join(["w5", *(f"w{k} w5" for k in range(10, 40))])
    frame = positional_text(model, texts=[text], tokens=61, samples=2)["duplicate"].frame.set_index(["layer", "head"])
    assert frame.score[places["sink"]] < 1e-6
    assert frame["mul"][places["sink"]] > 0.4
    assert frame.score[places["duplicate"]] > 0.9, "some of its mass lies on the first token, which is no target"


def test_planted_heads_are_found_in_text_and_wrong_rows_are_not():
    model, places = planted(seed=2)
    draw = np.random.default_rng(1)
    texts = [" ".join(f"w{k}" for k in draw.integers(1, 40, size=300)) for _ in range(2)]
    found = positional_text(model, texts=texts, tokens=97, samples=4)
    wanted = {
        "previous": {places["previous"]},
        "duplicate": {places["duplicate"]},
        "induction": {places["induction"], places["retrieval"]},
    }
    for kind in KINDS:
        frame = found[kind].frame.set_index(["layer", "head"])
        assert set(frame.index[frame.score > 0.3]) == wanted[kind], kind
        assert frame.control.max() < 0.15


def test_the_control_of_text_is_the_same_targets_dealt_to_other_rows():
    model = tiny("gpt2")
    length = 41
    text = ("abcab" * 20)[:length]
    results = positional_text(model, texts=[text], tokens=length, samples=2, seed=7)
    ids = model.encode(text)
    attention = eager(tiny("gpt2").release(), ids)
    want = {"duplicate": [], "induction": []}
    for sample in range(2):
        dealt = np.array(ids)[np.random.default_rng([7, sample]).permutation(length)]
        for kind, key_ids in (("duplicate", [None, *ids[1:]]), ("induction", [None, *ids[:-1]])):
            rows = []
            for i in range(length):
                targets = [j for j in range(i + 1) if key_ids[j] == dealt[i] and (j < i or kind == "induction")]
                if targets:
                    rows.append(attention[..., i, targets].sum(-1))
            want[kind].append(np.mean(rows, axis=0))
    for kind, values in want.items():
        np.testing.assert_allclose(results[kind].frame.control, np.mean(values, axis=0).reshape(-1), atol=1e-6)


def test_a_text_without_a_repeated_token_says_nothing_about_duplicates():
    model, places = planted()
    text = " ".join(f"w{k}" for k in range(1, 91))
    found = positional_text(model, texts=[text], tokens=40, samples=2)
    for kind in ("duplicate", "induction"):
        frame = found[kind].frame
        assert frame.score.isna().all() and frame.spread.isna().all()
        assert (frame["mul"] == 0.0).all()
        assert found[kind].top(3) == []
    assert found["previous"].top(1)[0][:2] == places["previous"]


def test_text_that_cannot_be_measured_is_refused():
    model = tiny("gpt2")
    with pytest.raises(InputDataError, match="no text has 900 tokens"):
        positional_text(model, texts=TEXTS, tokens=900)
    with pytest.raises(OptionError, match="samples >= 2"):
        positional_text(model, texts=TEXTS, samples=1)


@pytest.mark.medium
def test_the_known_induction_heads_of_smollm2():
    model = load("smollm2-135m")
    result = induction(model, samples=10)
    top = {(layer, head) for layer, head, _ in result.top(6)}
    assert top == {(17, 3), (17, 4), (17, 5), (18, 6), (18, 7), (23, 2)}
    frame = result.frame.set_index(["layer", "head"])
    assert frame.control.max() < 0.1
