"""DuoAttention's passkeys (arXiv 2410.10819, released data code): word sequences hidden in a text, all asked for at its end, in order.

As released: ten passkeys of 32 words drawn from the NATO alphabet, each behind the needle text (whose "Remeber" is the original's
spelling), at ten different depths of 1,000 between 0.05 and 0.95; every token of questions and answers counts for the loss ("labels").
Departures: passkeys stand at the sentence end nearest before their depth, not at any token; prompt and answers are tokenised as one text,
so that the words of an answer are the same tokens as in the needle; no padding to a multiple of 16; the original begins with the text
"<|im_start|>", which is a special token to some tokenizers, and here with their own BOS choice. The haystack is the corpus' training part,
because gates are trained on this task. Fewer and shorter passkeys for models with a short context: ten of 32 words take some 1,400 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from interp.errors import InputDataError, OptionError
from interp.tasks.haystack import corpus_texts, haystack, nearest_end, sentence_ends
from interp.tasks.marks import Piece, tokenize
from interp.tasks.ordinals import ORDINAL_WORDS
from interp.tasks.prompt import Prompt, Span, generator
from interp.tasks.vocabulary import Tokenizer, first_ids, plain_ids

ALPHABET: Final = (
    "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima", "mike",
    "november", "oscar", "papa", "quebec", "romeo", "sierra", "tango", "uniform", "victor", "whiskey", "xray", "yankee",
    "zulu",
)  # fmt: skip
"""The words of a passkey, in the spelling of the release."""
NEEDLE: Final = "Remeber this sequence of words, it's the {} passkey to the vault:"
"""The needle; the misspelling is the release's."""
QUESTION: Final = "Based on the content of the book, what is the {} passkey to the vault?\nPasskey:"
BOOK: Final = ("This is a very long story book: <book> ", " </book>.\n\n")
"""What stands before and behind the haystack."""
APART: Final = "\n\n"
"""What stands around each needle and between question-answer pairs."""
LOWEST, HIGHEST, DEPTHS = 0.05, 0.95, 1000
"""Depths are drawn without replacement from `DEPTHS` equally spaced ones."""
SLACK: Final = 16
"""Tokens kept free, because tokens merge or split where pieces meet."""


def prompts(
    tokenizer: Tokenizer,
    *,
    lengths: Sequence[int] = (2048,),
    passkeys: int = 10,
    size: int = 32,
    samples: int = 1,
    texts: Sequence[str] | None = None,
    bos: bool | None = None,
    seed: int = 0,
) -> list[Prompt]:
    """`samples` prompts of each length, answered but for the last passkey, which is `answer`.

    Key sets "passkey1" ... (the words in the haystack), "needle1" ... (with the text before them), "answer1" ... (the words behind each
    question but the last), "context". Rows "labels": every token of questions and answers, in `whole` (the release compares the hidden
    states of these positions themselves); "answers": the rows that predict the answers' tokens. Pairs "copy": (row that predicts a
    token of an answer, where that token stands in the haystack).

    Args:
        tokenizer: of the model.
        lengths: most tokens of prompt and answer together.
        passkeys: how many are hidden, up to ten.
        size: words of each.
        samples: prompts per length.
        texts: documents for haystacks, None for the training part of the corpus.
        bos: None leaves the choice of a BOS token to the tokenizer.
        seed: of documents, words and depths.

    Raises:
        OptionError: sizes out of range, or a length too short for so many passkeys (the message says what they take).
        InputDataError: too little text.
    """
    if not (1 <= passkeys <= len(ORDINAL_WORDS) and size >= 1):
        raise OptionError(f"wanted 1 to {len(ORDINAL_WORDS)} passkeys of at least one word; got {passkeys} of {size}")
    documents = corpus_texts("train") if texts is None else tuple(texts)
    found = []
    for length in lengths:
        for sample in range(samples):
            random = generator(seed, len(found))
            keys = [" ".join(str(w) for w in random.choice(ALPHABET, size=size)) for _ in range(passkeys)]
            budget = length - _taken(tokenizer, keys, bos)
            if budget < SLACK * passkeys:
                least = length - budget + SLACK * passkeys
                raise OptionError(
                    f"{passkeys} passkeys of {size} words need a length of {least}, got {length}; ask for less"
                )
            text = haystack(tokenizer, documents, budget, random)
            depths = LOWEST + (HIGHEST - LOWEST) / (DEPTHS - 1) * random.choice(DEPTHS, size=passkeys, replace=False)
            meta = {
                "task": "passkey", "sample": sample, "length": length, "passkeys": passkeys, "size": size,
                "words": tuple(keys), "depths": tuple(sorted(float(depth) for depth in depths)),
            }  # fmt: skip
            found.append(_prompt(tokenizer, _hide(text, keys, sorted(depths)), keys, bos, meta))
    return found


def _taken(tokenizer: Tokenizer, keys: Sequence[str], bos: bool | None) -> int:
    """Tokens that are not haystack."""
    said = "".join(piece[0] for piece in _questions(keys)) + "".join(
        f"{APART}{NEEDLE.format(word)} {key}{APART}" for word, key in zip(ORDINAL_WORDS, keys, strict=False)
    )
    return len(first_ids(tokenizer, bos)) + len(plain_ids(tokenizer, "".join(BOOK) + said)) + SLACK


def _hide(text: str, keys: Sequence[str], depths: Sequence[float]) -> list[Piece]:
    ends = sentence_ends(text)
    pieces: list[Piece] = [(BOOK[0],)]
    at = 0
    for k, (key, depth) in enumerate(zip(keys, depths, strict=True), start=1):
        end = nearest_end(ends, depth * len(text))
        needle = NEEDLE.format(ORDINAL_WORDS[k - 1])
        pieces += [(text[at:end], "context"), (APART, "context"), (needle, "context", f"needle{k}")]
        pieces += [(f" {key}", "context", f"needle{k}", f"passkey{k}"), (APART, "context")]
        at = end
    return [piece for piece in [*pieces, (text[at:], "context"), (BOOK[1],)] if piece[0]]


def _questions(keys: Sequence[str]) -> list[Piece]:
    pieces: list[Piece] = []
    for k, key in enumerate(keys, start=1):
        pieces += [(QUESTION.format(ORDINAL_WORDS[k - 1]), "qa"), (f" {key}", "qa", f"answer{k}"), (APART, "qa")]
    pieces.pop()
    return pieces


def _prompt(
    tokenizer: Tokenizer, book: list[Piece], keys: Sequence[str], bos: bool | None, meta: dict[str, object]
) -> Prompt:
    whole, sets = tokenize(tokenizer, [*book, *_questions(keys)], bos=bos)
    first = sets.pop("qa")[0]
    answers = [sets[f"answer{k}"] for k in range(1, len(keys) + 1)]
    end = sets.pop(f"answer{len(keys)}")[0]
    pairs: list[Span] = []
    for k, (start, stop) in enumerate(answers, start=1):
        source = sets[f"passkey{k}"]
        if whole[start:stop] != whole[slice(*source)]:
            raise InputDataError(
                f"passkey {k} has other tokens in its answer than in the text under this tokenizer; try other words"
            )
        pairs += [(row, key) for row, key in zip(range(start - 1, stop - 1), range(*source), strict=True)]
    return Prompt(
        ids=whole[:end],
        answer=whole[end:],
        key_sets=sets,
        rows={
            "labels": tuple(range(first, len(whole))),
            "answers": tuple(i for start, stop in answers for i in range(start - 1, stop - 1)),
        },
        pairs={"copy": tuple(pairs)},
        meta=meta,
    )
