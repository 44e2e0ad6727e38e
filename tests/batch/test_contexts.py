"""Cutting: nothing is lost, doubled or mixed; what is dropped is counted. Hand-worked on one token per byte."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.batch.contexts import Context, Cutting, Tally, cut, ids_sha256, special_tokens
from interp.batch.texts import as_texts
from interp.errors import InputDataError, OptionError
from interp.models.hooked import HookedModel
from interp.models.toy import tiny
from interp.tasks.corpus import Document

BOS = 1


@pytest.fixture(scope="module")
def llama() -> HookedModel:
    return tiny("llama")


def byte_ids(model: HookedModel, text: str) -> list[int]:
    """One token per byte: the id of a byte's own one-letter text."""
    return [i for c in text for i in model.encode(c, bos=False)]


def cut_all(model: HookedModel, texts: list[str], **options: object) -> tuple[list[Context], Tally]:
    tally = Tally()
    settings = {"size": 32, **options}
    return list(cut(as_texts(texts), model, Cutting(**settings), tally)), tally  # type: ignore[arg-type]


def test_special_tokens_are_those_of_the_tokenizer(llama: HookedModel) -> None:
    assert special_tokens(llama, None) == ((BOS,), ())
    assert special_tokens(llama, False) == ((), ())
    assert special_tokens(tiny("gpt2"), None) == ((), ())
    bert = tiny("bert")
    whole = bert.encode("a")
    assert special_tokens(bert, None) == ((whole[0],), (whole[-1],))


def test_each_text_is_cut_on_its_own(llama: HookedModel) -> None:
    texts = ["a" * 75, "b" * 31, "c" * 16]
    contexts, tally = cut_all(llama, texts, before=(BOS,))
    # 31 tokens of text fit beside BOS: 75 = 31 + 31 + 13 (dropped), 31 = 31, 16 = 16 (just long enough).
    assert [(c.document, c.start, len(c.ids)) for c in contexts] == [
        ("text 0", 0, 32),
        ("text 0", 31, 32),
        ("text 1", 0, 32),
        ("text 2", 0, 17),
    ]
    assert all(c.ids[0] == BOS for c in contexts)
    assert [set(llama.tokens(c.ids[1:].tolist())) for c in contexts] == [{"a"}, {"a"}, {"b"}, {"c"}]
    record = tally.record()
    assert record["texts"] == 3
    assert record["tokens"] == 32 * 3 + 17
    assert record["distinct_tokens"] == 4
    assert record["dropped"] == {"rests": 1, "tokens": 13, "shorter_than": 16}


def test_joined_texts_fill_contexts(llama: HookedModel) -> None:
    texts = ["a" * 20, "", "b" * 20, "c" * 20]
    contexts, tally = cut_all(llama, texts, join=True)
    stream = byte_ids(llama, "a" * 20 + "\n\n" + "b" * 20 + "\n\n" + "c" * 20)
    assert [c.ids.tolist() for c in contexts] == [stream[:32], stream[32:]]
    assert [(c.document, c.start) for c in contexts] == [("text 0", 0), ("text 2", 32)]
    assert (tally.texts, tally.empty_texts, tally.dropped_tokens) == (4, 1, 0)


def test_text_after_and_before_is_kept(llama: HookedModel) -> None:
    contexts, _ = cut_all(llama, ["x" * 60], before=(3,), after=(4,))
    assert [(int(c.ids[0]), int(c.ids[-1]), len(c.ids)) for c in contexts] == [(3, 4, 32), (3, 4, 32)]


@pytest.mark.parametrize(
    ("limit", "lengths"),
    [(32, [32]), (48, [32, 16]), (47, [32]), (64, [32, 32]), (80, [32, 32, 16]), (999, [32, 32, 26])],
)
@pytest.mark.parametrize("join", [False, True])
def test_max_tokens_cuts_the_last_context(llama: HookedModel, limit: int, lengths: list[int], join: bool) -> None:
    contexts, tally = cut_all(llama, ["y" * 90], max_tokens=limit, join=join)
    assert [len(c.ids) for c in contexts] == lengths
    assert tally.tokens == sum(lengths) <= limit
    assert tally.dropped_tokens == 0


def test_max_tokens_over_several_texts(llama: HookedModel) -> None:
    contexts, _ = cut_all(llama, ["x" * 40, "y" * 40, "z" * 40], max_tokens=70)
    # x: 32 (the rest of 8 is dropped), y: 32; 6 are left, which is no context.
    assert [len(c.ids) for c in contexts] == [32, 32]


def test_nothing_long_enough(llama: HookedModel) -> None:
    with pytest.raises(InputDataError, match="2 texts, none of which holds 16 tokens"):
        cut_all(llama, ["short", "   "])


@pytest.mark.parametrize("options", [{"size": 15}, {"size": 17, "before": (1, 2)}, {"max_tokens": 15}])
def test_impossible_sizes(options: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="must be at least"):
        Cutting(**{"size": 32, **options})  # type: ignore[arg-type]


def test_ids_hash_tells_lengths_and_order_apart() -> None:
    a, b = np.array([1, 2, 3]), np.array([4])
    hashes = {ids_sha256(x) for x in ([a, b], [b, a], [np.array([1, 2, 3, 4])], [a, b, np.array([], dtype=np.int64)])}
    assert len(hashes) == 4
    by_hand = (1).to_bytes(8, "little") + (4).to_bytes(8, "little")
    assert ids_sha256([b]) == hashlib.sha256(by_hand).hexdigest()


@given(
    lengths=st.lists(st.integers(0, 150), min_size=1, max_size=5).filter(lambda x: max(x) >= 16),
    size=st.integers(17, 70),
    join=st.booleans(),
)
def test_nothing_is_lost_or_doubled(llama: HookedModel, lengths: list[int], size: int, join: bool) -> None:
    rng = np.random.default_rng(sum(lengths))
    texts = ["".join(rng.choice(list("abcdefgh"), n)) for n in lengths]
    if join and not any(texts):
        return
    contexts, tally = cut_all(llama, texts, size=size, before=(BOS,), join=join)
    kept = [i for c in contexts for i in c.ids.tolist()[1:]]
    whole = byte_ids(llama, "\n\n".join(filter(None, texts)) if join else "".join(texts))
    assert len(kept) + tally.dropped_tokens == len(whole)
    assert tally.tokens == len(kept) + len(contexts)
    if join or not tally.dropped_tokens:
        assert kept == whole[: len(kept)]
    assert all(17 <= len(c.ids) <= size for c in contexts)
    assert tally.distinct == {BOS, *kept}


def test_documents_keep_their_names(llama: HookedModel) -> None:
    tally = Tally()
    texts = as_texts([Document(name="topics/if", text="q" * 40)])
    assert [c.document for c in cut(texts, llama, Cutting(size=40), tally)] == ["topics/if"]


def test_buckets_hold_equal_lengths_together(llama: HookedModel) -> None:
    texts = ["a" * 20, "b" * 32, "c" * 20, "d" * 32, "e" * 20, "f" * 32]
    contexts, tally = cut_all(llama, texts, bucket=4)
    assert [(c.document, len(c.ids)) for c in contexts] == [
        ("text 1", 32), ("text 3", 32), ("text 0", 20), ("text 2", 20), ("text 5", 32), ("text 4", 20),
    ]  # fmt: skip
    assert tally.tokens == 3 * 52 and tally.contexts == 6
    with pytest.raises(OptionError, match="bucket must be"):
        Cutting(size=32, bucket=-1)
