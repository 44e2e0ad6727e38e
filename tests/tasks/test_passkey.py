"""Passkeys: what is hidden is asked for in order, every label is a token of a question or an answer, copies point at their source."""

from __future__ import annotations

import pytest

from interp.errors import OptionError
from interp.models.toy import byte_tokenizer
from interp.tasks import passkey as p

BYTES = byte_tokenizer("bos")
TEXTS = [" ".join(f"Sentence {i} of text {t} is here." for i in range(90)) for t in "abcd"]


def make(**options):
    return p.prompts(BYTES, **({"lengths": (2500,), "passkeys": 3, "size": 4, "texts": TEXTS} | options))


def part(prompt, name):
    return BYTES.decode(prompt.whole[slice(*prompt.key_sets[name])])


def test_alphabet_is_the_release_s() -> None:
    assert len(set(p.ALPHABET)) == 26
    assert [w[0] for w in p.ALPHABET] == list("abcdefghijklmnopqrstuvwxyz")
    assert p.NEEDLE.startswith("Remeber this sequence")


def test_text_questions_and_answers() -> None:
    (prompt,) = make()
    keys = prompt.meta["words"]
    text = BYTES.decode(prompt.whole, skip_special_tokens=True)
    book, asked = text.split(" </book>.\n\n")
    assert asked == "\n\n".join(
        f"Based on the content of the book, what is the {nth} passkey to the vault?\nPasskey: {key}"
        for nth, key in zip(("first", "second", "third"), keys, strict=True)
    )
    assert book.startswith("This is a very long story book: <book> ")
    at = [book.index(f"\n\nRemeber this sequence of words, it's the {nth} passkey to the vault: {key}\n\n")
          for nth, key in zip(("first", "second", "third"), keys, strict=True)]  # fmt: skip
    assert at == sorted(at)
    assert BYTES.decode(prompt.answer) == keys[-1], "the space before, a token of its own, is given"
    assert len(prompt.whole) <= 2500
    assert all(len(key.split()) == 4 and set(key.split()) <= set(p.ALPHABET) for key in keys)
    assert [part(prompt, f"passkey{k}") for k in (1, 2, 3)] == list(keys)
    assert [part(prompt, f"answer{k}") for k in (1, 2)] == list(keys[:2])


def test_labels_are_every_token_behind_the_book() -> None:
    (prompt,) = make()
    rows = prompt.rows["labels"]
    assert rows == tuple(range(rows[0], len(prompt.whole)))
    assert BYTES.decode(prompt.whole[: rows[0]]).endswith("</book>.\n\n")
    assert BYTES.decode([prompt.whole[i] for i in rows]).startswith("Based on")


def test_answer_rows_predict_the_words_and_pairs_point_at_them() -> None:
    (prompt,) = make()
    said = BYTES.decode([prompt.whole[row + 1] for row in prompt.rows["answers"]])
    assert said == "".join(prompt.meta["words"])
    for row, source in prompt.pairs["copy"]:
        assert prompt.whole[row + 1] == prompt.whole[source]
        assert any(a <= source < b for name, (a, b) in prompt.key_sets.items() if name.startswith("passkey"))
    assert len(prompt.pairs["copy"]) == sum(map(len, prompt.meta["words"]))


def test_depths_differ_and_lie_between_the_bounds() -> None:
    for prompt in make(lengths=(2500, 4000), samples=2):
        depths = prompt.meta["depths"]
        assert len(set(depths)) == 3
        assert all(0.05 <= d <= 0.95 for d in depths)
        assert list(depths) == sorted(depths)


def test_one_seed_one_text() -> None:
    assert make(samples=2) == make(samples=2)
    assert make(samples=2)[0] == make(samples=1)[0]
    assert make() != make(seed=1)


def test_sizes_out_of_range() -> None:
    for wrong in ({"passkeys": 11}, {"passkeys": 0}, {"size": 0}):
        with pytest.raises(OptionError, match="wanted 1 to 10 passkeys"):
            make(**wrong)
    with pytest.raises(OptionError, match="need a length of") as caught:
        make(lengths=(300,))
    least = int(str(caught.value).split("length of ")[1].split(",")[0])
    assert len(make(lengths=(least,))[0].whole) <= least
