"""Spans of named pieces, worked out by hand, by offsets and by growing prefixes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import WithoutOffsets, metaspace, words

from interp.errors import InputDataError
from interp.models.toy import byte_tokenizer
from interp.tasks.marks import tokenize

PIECES = [("When",), (" Mary Ann", "name", "both"), (" went", "verb", "both"), (" home.",), (" Mary", "again")]
TEXT = "When Mary Ann went home. Mary"


def test_words_by_offsets() -> None:
    tokenizer = words([TEXT])
    ids, sets = tokenize(tokenizer, PIECES)
    assert tokenizer.decode(ids) == TEXT
    assert sets == {"name": (1, 3), "both": (1, 4), "verb": (3, 4), "again": (6, 7)}
    ids, sets = tokenize(tokenizer, PIECES, bos=True)
    assert ids[0] == tokenizer.bos_token_id
    assert sets == {"name": (2, 4), "both": (2, 5), "verb": (4, 5), "again": (7, 8)}


def test_words_between_spaces() -> None:
    _, sets = tokenize(metaspace([TEXT]), PIECES)
    assert sets == {"name": (1, 3), "both": (1, 4), "verb": (3, 4), "again": (5, 6)}


def test_words_by_prefixes() -> None:
    tokenizer = WithoutOffsets()
    ids, sets = tokenize(tokenizer, PIECES)
    assert tokenizer.decode(ids) == TEXT
    assert sets == {"name": (1, 3), "both": (1, 4), "verb": (3, 4), "again": (6, 7)}


def test_bytes_leave_out_white_space_at_the_edges_and_special_tokens() -> None:
    for template, shift in (("plain", 0), ("bos", 1), ("eos", 0), ("cls-sep", 1)):
        ids, sets = tokenize(byte_tokenizer(template), [("ab ",), (" né\n", "word"), ("cd",)])
        assert len(ids) == 10 + shift, "é has two bytes, and nothing is put behind"
        assert sets == {"word": (4 + shift, 7 + shift)}


def test_the_first_equal_word_is_not_taken_for_the_marked_one() -> None:
    tokenizer = words(["the key is here and"])
    said = " the key is here"
    _, sets = tokenize(tokenizer, [("the key is here and",), (said, "needle"), (said,)])
    assert sets == {"needle": (5, 9)}


@pytest.mark.parametrize("tokenizer", [words(["abcd 17"], digits="all"), WithoutOffsets()])
def test_a_token_across_the_edge_is_an_error(tokenizer) -> None:
    with pytest.raises(InputDataError, match="holds text around it"):
        tokenize(tokenizer, [("ab", "x"), ("cd",)])
    with pytest.raises(InputDataError, match="holds text around it"):
        tokenize(tokenizer, [("ab",), ("cd", "x")])


@pytest.mark.parametrize(
    ("pieces", "said"),
    [([("a", "x"), (" b",), (" c", "x")], "lie apart"), ([("a",), (" ", "x"), ("b",)], "empty or white space")],
)
def test_names_without_one_clear_place_are_errors(pieces, said) -> None:
    with pytest.raises(InputDataError, match=said):
        tokenize(byte_tokenizer(), pieces)


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=9), min_size=3, max_size=7), st.data())
def test_bytes_of_any_marked_text_are_its_own(texts, data) -> None:
    start = data.draw(st.integers(0, len(texts) - 1))
    stop = data.draw(st.integers(start + 1, len(texts)))
    marked = "".join(texts[start:stop])
    # a character of several bytes may be white space to Python and yet no letter to the tokenizer: plain ones at the edges
    pieces = [(t, "mark") if start <= i < stop else (t,) for i, t in enumerate(texts)]
    pieces[start] = ("<" + texts[start], "mark")
    pieces[stop - 1] = (pieces[stop - 1][0] + ">", "mark")
    ids, sets = tokenize(byte_tokenizer("bos"), pieces)
    a, b = sets["mark"]
    assert byte_tokenizer().decode(ids[a:b]) == f"<{marked}>"
    assert a == 1 + len("".join(texts[:start]).encode())
