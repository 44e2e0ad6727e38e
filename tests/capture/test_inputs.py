"""Inputs of a run: what counts as punctuation, padding, key sets, and the hash of token ids."""

from __future__ import annotations

import hashlib

import pytest
import torch

from interp.capture.inputs import Tokens, is_punctuation
from interp.models.toy import byte_tokenizer

CPU = torch.device("cpu")


@pytest.mark.parametrize("token", [",", " ,", "...", "—", "«", "€", "+", " $", "?!", "_", "،", "。", "`\n", "(\t"])
def test_punctuation(token):
    assert is_punctuation(token)


@pytest.mark.parametrize(
    "token", ["", " ", "\n", "a", "don't", "1.", "U.S.", "½", "中。", "\ufffd", "<bos>", "’s", "ß"]
)
def test_what_is_no_punctuation(token):
    assert not is_punctuation(token)


def test_a_batch_is_padded_on_the_right_and_labelled():
    tokens = Tokens(byte_tokenizer("bos"))
    axis = tokens.axis(["a, b!", "?"], bos=None, spans={"x": [(1, 3), (0, 1)]}, device=CPU)
    ids, real = axis.padded
    assert [len(x) for x in axis.ids] == [6, 2]
    assert ids.tolist() == [axis.ids[0], axis.ids[1] + [0] * 4]
    assert real.tolist() == [[True] * 6, [True] * 2 + [False] * 4]
    assert axis.tokens == [["<bos>", "a", ",", " ", "b", "!"], ["<bos>", "?"]]
    sets = {name: member.int().tolist() for name, member in axis.labels.sets.items()}
    assert sets == {
        "first_token": [[1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]],
        "first_four": [[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]],
        "special": [[1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]],  # padding is a special token too, but no key
        "punctuation": [[0, 0, 1, 0, 0, 1], [0, 1, 0, 0, 0, 0]],
        "span:x": [[0, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]],
    }
    assert axis.labels.ids[1].tolist() == axis.ids[1] + [-1] * 4


def test_the_hash_is_of_the_ids_text_by_text():
    tokens = Tokens(None)

    def digest(ids):
        return tokens.axis(ids, bos=None, spans=None, device=CPU).digest()

    assert digest([[1, 2], [3]]) == hashlib.sha256(b"1,2;3").hexdigest()
    assert len({digest([[1, 2], [3]]), digest([[1], [2, 3]]), digest([[12], [3]]), digest([1, 2, 3])}) == 4


def test_without_a_tokenizer_ids_are_padded_with_zero_and_show_as_numbers():
    axis = Tokens(None).axis([[5, 17], [8]], bos=None, spans=None, device=CPU)
    assert axis.padded[0].tolist() == [[5, 17], [8, 0]]
    assert axis.tokens == [["5", "17"], ["8"]]
    assert not axis.labels.sets["special"].any() and not axis.labels.sets["punctuation"].any()


def test_each_token_is_decoded_alone():
    tokens = Tokens(byte_tokenizer())
    ids = tokens.encode("é!")
    assert tokens.strings(ids) == ["\ufffd", "\ufffd", "!"]
    assert tokens.strings(ids[::-1]) == ["!", "\ufffd", "\ufffd"]
