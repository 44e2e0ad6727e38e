"""Questions to a tokenizer, answered by hand for tokenizers of each kind."""

from __future__ import annotations

import pytest
from small_tokenizers import WithoutOffsets, metaspace, words

from interp.errors import InputDataError, OptionError
from interp.models.toy import byte_tokenizer
from interp.tasks import vocabulary as v


def test_hugging_face_tokenizers_and_plain_ones_are_tokenizers() -> None:
    for tokenizer in (byte_tokenizer(), words(["a"]), metaspace(["a"]), WithoutOffsets()):
        assert isinstance(tokenizer, v.Tokenizer)
    assert not isinstance("gpt2", v.Tokenizer)


def test_words_of_one_token_are_kept_in_order() -> None:
    tokenizer = words(["a Mary, Mary John"])
    kept, dropped = v.single_token(tokenizer, [" John", " Mary", " Mary", "Mary John", "Mary"])
    assert [tokenizer.decode([i]) for i in kept.values()] == [" John", " Mary"]
    assert list(kept) == [" John", " Mary"]
    assert set(dropped) == {"Mary John", "Mary"}, "the last is the unknown, special, token"


def test_two_words_of_one_token_count_once() -> None:
    tokenizer = metaspace(["a Mary"])
    kept, dropped = v.single_token(tokenizer, [" Mary", "Mary"])
    assert list(kept) == [" Mary"]
    assert dropped == ("Mary",)
    assert kept[" Mary"] == tokenizer.convert_tokens_to_ids("▁Mary")


def test_bytes_have_no_words() -> None:
    kept, dropped = v.single_token(byte_tokenizer(), ["x", " x", "xy"])
    assert kept == {"x": byte_tokenizer()("x")["input_ids"][0]}
    assert dropped == (" x", "xy")


def test_too_few_words_are_an_error_that_says_how_many() -> None:
    v.need({"a": 1, "b": 2}, 2, "names")
    with pytest.raises(InputDataError, match="2 of the names, and 3 are needed; give"):
        v.need({"a": 1, "b": 2}, 3, "names")


@pytest.mark.parametrize(
    ("template", "bos", "wanted"),
    [
        ("plain", None, []), ("plain", True, ["<bos>"]), ("plain", False, []),
        ("bos", None, ["<bos>"]), ("bos", True, ["<bos>"]), ("bos", False, []),
        ("eos", None, []), ("eos", True, ["<bos>"]), ("cls-sep", None, ["<cls>"]),
    ],
)  # fmt: skip
def test_special_tokens_in_front_and_never_behind(template, bos, wanted) -> None:
    tokenizer = byte_tokenizer(template)
    assert tokenizer.convert_ids_to_tokens(v.first_ids(tokenizer, bos)) == wanted


def test_bos_needs_a_token() -> None:
    with pytest.raises(OptionError, match="no BOS token"):
        v.first_ids(metaspace(["a"]), True)


def test_ordinary_ids_are_all_but_the_special_ones() -> None:
    tokenizer = byte_tokenizer()
    assert v.ordinary_ids(tokenizer).tolist() == list(range(7, 263))
    assert v.ordinary_ids(words(["a b"])).tolist() == [2, 3]


def test_an_answer_continues_its_text() -> None:
    tokenizer = words(["to Mary Ann."])
    assert [tokenizer.decode([i]) for i in v.continuation(tokenizer, "to", " Mary Ann")] == [" Mary", " Ann"]
    assert v.continuation(metaspace(["to Mary"]), "to", " Mary") == (2,)
    with pytest.raises(InputDataError, match="merges with the end"):
        v.continuation(words(["the year 1776"], digits="all"), "the year 17", "76")
    with pytest.raises(InputDataError, match="merges with the end"):
        v.continuation(tokenizer, "to", "")
