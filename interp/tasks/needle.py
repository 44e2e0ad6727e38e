"""Needle in a haystack: a sentence hidden in a long text, and a question whose answer is copied from it literally.

Prompt and grid as in Wu et al. (arXiv 2404.15574) and their code: lengths x depths, the needle at the sentence end nearest before the
depth, then "Based on the content of the book, Question: ...\\nAnswer:", on a new line here. Their code looks for the span of the answer
("real_needle"), not of the whole needle, and counts copies from there; both spans are given.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from interp.errors import InputDataError, OptionError
from interp.tasks.haystack import corpus_texts, haystack, nearest_end, sentence_ends
from interp.tasks.marks import Piece, tokenize
from interp.tasks.prompt import Prompt, generator
from interp.tasks.vocabulary import Tokenizer, continuation, first_ids, plain_ids
from interp.tasks.wordlists import records

QUESTION = ("\nBased on the content of the book, Question: ", "\nAnswer:")
"""What stands before and behind the question (Wu et al., code)."""
ACCEPTED_ABOVE = 0.5
"""ROUGE-1 recall above which a response counts as found (Wu et al.: 50 %)."""
LENGTHS = (512, 1024, 2048)
DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Default grid; the paper has 20 lengths from 1,000 to 50,000 and 10 depths from 0 to 1."""
SLACK = 8
"""Tokens kept free, because tokens merge or split where pieces meet."""
SHORTEST = 32
"""Least tokens of haystack."""


@dataclass(frozen=True, kw_only=True)
class Needle:
    """Something to hide and to ask for.

    Attributes:
        texts: the sentence, or several for a question that needs them all; each is hidden in a place of its own.
        question: what is asked.
        answer: what a model must give back ("real_needle"); standing literally in one of `texts`, it gets the key set "answer".

    Raises:
        InputDataError: one of them is empty.
    """

    texts: tuple[str, ...]
    question: str
    answer: str

    def __post_init__(self) -> None:
        """Check that nothing is empty."""
        if not self.texts or not all(t.strip() for t in (*self.texts, self.question, self.answer)):
            raise InputDataError("a needle needs at least one text, a question and an answer, none of them empty")


def needles() -> tuple[Needle, ...]:
    """The eight needles written for this project: one sentence each, whose end is the answer."""
    return tuple(
        Needle(texts=tuple(r["texts"]), question=r["question"], answer=r["answer"]) for r in records("needles")
    )


def prompts(
    tokenizer: Tokenizer,
    *,
    lengths: Sequence[int] = LENGTHS,
    depths: Sequence[float] = DEPTHS,
    hidden: Sequence[Needle] | None = None,
    texts: Sequence[str] | None = None,
    distractors: int = 0,
    ask: str | None = None,
    bos: bool | None = None,
    seed: int = 0,
) -> list[Prompt]:
    """One prompt for each needle, length and depth, in this order, each with a haystack of its own.

    Key sets: "needle" (further texts of it: "needle2" ...), "answer" within it, "distractor1" ..., "context", "question".

    Args:
        tokenizer: of the model.
        lengths: most tokens of a prompt; it falls short by part of a sentence.
        depths: from 0 (start) to 1; further texts of a needle are spread evenly from there, going round.
        hidden: needles to hide, None for `needles()`.
        texts: documents for haystacks, None for the held-out part of the corpus.
        distractors: how many other needles are hidden at random depths as well.
        ask: asked in place of each needle's question in the same context, as QRHead's null query "N/A" (not longer than the question).
        bos: None leaves the choice of a BOS token to the tokenizer.
        seed: of documents, and of distractors and their depths.

    Raises:
        OptionError: a depth outside 0 to 1, a length too short for needle and question, or too many distractors.
        InputDataError: too little text, or a tokenizer under which a span has no clear edge.
    """
    chosen = tuple(needles() if hidden is None else hidden)
    documents = corpus_texts("held_out") if texts is None else tuple(texts)
    if not all(0.0 <= depth <= 1.0 for depth in depths):
        raise OptionError(f"depths must lie between 0 and 1, got {list(depths)}")
    if not 0 <= distractors < max(len(chosen), 1):
        raise OptionError(f"distractors must be fewer than the {len(chosen)} needles, got {distractors}")
    found = []
    for sample, (n, length, depth) in enumerate(product(range(len(chosen)), lengths, depths)):
        random = generator(seed, sample)
        others = random.choice(np.delete(np.arange(len(chosen)), n), size=distractors, replace=False)
        places = _places(chosen[n], depth) + [
            (float(random.random()), f"distractor{k + 1}", " ".join(chosen[i].texts)) for k, i in enumerate(others)
        ]
        budget = length - _taken(tokenizer, chosen[n], places, bos)
        if budget < SHORTEST:
            raise OptionError(
                f"length {length} leaves {budget} tokens for the haystack; give {length - budget + SHORTEST} or more"
            )
        context = _hide(haystack(tokenizer, documents, budget, random), places, chosen[n].answer)
        asked = chosen[n].question if ask is None else ask
        meta = {
            "task": "needle", "sample": sample, "needle": n, "length": length, "depth": float(depth),
            "question": asked, "answer": chosen[n].answer, "distractors": distractors,
        }  # fmt: skip
        found.append(_prompt(tokenizer, context, asked, chosen[n].answer, bos, meta))
    return found


def rouge1_recall(reference: str, response: str) -> float:
    """Share of the reference's words that the response has too, counted with repetition, case and punctuation ignored.

    As `rouge1` recall of the package rouge_score without its stemmer, which Wu et al. switch on.

    >>> rouge1_recall("under the blue pot", "It is under the pot.")
    0.75
    """
    wanted, given = (Counter(re.findall(r"\w+", text.lower())) for text in (reference, response))
    return (wanted & given).total() / wanted.total() if wanted else 0.0


def accepted(prompt: Prompt, response: str) -> bool:
    """Whether a response counts as found: ROUGE-1 recall of the answer above `ACCEPTED_ABOVE`."""
    return rouge1_recall(prompt.meta["answer"], response) > ACCEPTED_ABOVE


def _places(needle: Needle, depth: float) -> list[tuple[float, str, str]]:
    """Depth, name and text of each part of a needle."""
    parts = len(needle.texts)
    return [
        (depth if k == 0 else (depth + k / parts) % 1.0, "needle" if k == 0 else f"needle{k + 1}", text.strip())
        for k, text in enumerate(needle.texts)
    ]


def _taken(tokenizer: Tokenizer, needle: Needle, places: Sequence[tuple[float, str, str]], bos: bool | None) -> int:
    """Tokens of a prompt that are not haystack."""
    said = " ".join([text for _, _, text in places]) + needle.question.join(QUESTION)
    return len(first_ids(tokenizer, bos)) + len(plain_ids(tokenizer, said)) + SLACK


def _hide(text: str, places: Sequence[tuple[float, str, str]], answer: str) -> list[Piece]:
    """The haystack with each text behind the sentence nearest before its depth."""
    ends = sentence_ends(text)
    pieces: list[Piece] = []
    at = 0
    marked = False
    for end, name, said in sorted((nearest_end(ends, depth * len(text)), name, said) for depth, name, said in places):
        pieces += [(text[at:end], "context"), (" " if end else "", "context")]
        start = said.find(answer) if name.startswith("needle") and not marked else -1
        if start >= 0:
            marked = True
            stop = start + len(answer)
            pieces += [(said[:start], "context", name), (said[start:stop], "context", name, "answer")]
            pieces += [(said[stop:], "context", name)]
        else:
            pieces += [(said, "context", name)]
        pieces += [("" if end else " ", "context")]
        at = end
    return [piece for piece in [*pieces, (text[at:], "context")] if piece[0]]


def _prompt(
    tokenizer: Tokenizer, context: list[Piece], asked: str, answer: str, bos: bool | None, meta: dict[str, object]
) -> Prompt:
    pieces = [*context, (QUESTION[0],), (asked, "question"), (QUESTION[1],)]
    ids, sets = tokenize(tokenizer, pieces, bos=bos)
    follows = continuation(tokenizer, asked.join(QUESTION), f" {answer}")
    return Prompt(ids=ids, answer=follows, key_sets=sets, meta=meta)
