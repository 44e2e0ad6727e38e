"""Several documents, of which one holds the answer to a question: the input of analyses of where a question makes a model look.

The wording is that of QRHead's code (arXiv 2506.09944) without its chat tokens, and with "Answer:" where their template opens the
assistant's turn. The documents are pieces of the project's corpus; a needle of `interp.tasks.needle` is hidden in the gold one.
"""

from __future__ import annotations

from collections.abc import Sequence

from interp.errors import OptionError
from interp.tasks.haystack import corpus_texts, haystack, nearest_end, sentence_ends
from interp.tasks.marks import Piece, tokenize
from interp.tasks.needle import SHORTEST, Needle, needles
from interp.tasks.prompt import Prompt, generator
from interp.tasks.vocabulary import Tokenizer, continuation

OPENING = "Here are some paragraphs:"
REQUEST = "Please find information that are relevant to the following query in the paragraphs above."
"""As in QRHead's code, grammar included."""
JOINT = "\n\n"
CLOSING = "\nAnswer:"


def prompts(
    tokenizer: Tokenizer,
    *,
    documents: int = 5,
    size: int = 128,
    samples: int = 16,
    hidden: Sequence[Needle] | None = None,
    texts: Sequence[str] | None = None,
    ask: str | None = None,
    bos: bool | None = None,
    seed: int = 0,
) -> list[Prompt]:
    """Prompts of several documents and a question that one of them answers; sample i asks for needle i, going round.

    Key sets: "document1" ..., each with its number; "needle" and "answer" in the gold one, whose name is meta "gold"; "question"; "tail",
    everything behind the documents. Rows: "question" and "tail", the positions of these two.

    Args:
        tokenizer: of the model.
        documents: how many, at least two.
        size: most tokens of a document, its needle apart.
        samples: number of prompts.
        hidden: needles of one text each, None for `interp.tasks.needle.needles()`.
        texts: what documents are cut from, None for the held-out part of the corpus.
        ask: asked in place of each question in the same context, as QRHead's null query "N/A".
        bos: None leaves the choice of a BOS token to the tokenizer.
        seed: of documents, places and which one is gold.

    Raises:
        OptionError: fewer than two documents, or too short ones, or no sample, or a needle of several texts.
        InputDataError: too little text, or a tokenizer under which a span has no clear edge.
    """
    chosen = tuple(needles() if hidden is None else hidden)
    if documents < 2 or size < SHORTEST or samples < 1:
        raise OptionError(
            f"wanted at least 2 documents of at least {SHORTEST} tokens and 1 sample, got {documents}, {size} and {samples}"
        )
    if not chosen or any(len(needle.texts) != 1 for needle in chosen):
        raise OptionError("hidden: wanted needles of one text each, because one document is gold")
    pool = corpus_texts("held_out") if texts is None else tuple(texts)
    found = []
    for sample in range(samples):
        random = generator(seed, sample)
        needle = chosen[sample % len(chosen)]
        gold, depth = int(random.integers(documents)), float(random.random())
        pieces: list[Piece] = [(OPENING + JOINT,)]
        for number in range(documents):
            text, name = haystack(tokenizer, pool, size, random), f"document{number + 1}"
            pieces.append((f"[{number + 1}] ", name))
            pieces += _with_needle(text, needle, depth, name) if number == gold else [(text, name)]
            pieces.append((JOINT,))
        asked = needle.question if ask is None else ask
        pieces += [(REQUEST + JOINT + "Query: ", "tail"), (asked, "tail", "question"), (CLOSING, "tail")]
        ids, sets = tokenize(tokenizer, pieces, bos=bos)
        meta = {
            "task": "documents", "sample": sample, "gold": f"document{gold + 1}", "documents": documents, "size": size,
            "question": asked, "answer": needle.answer,
        }  # fmt: skip
        found.append(
            Prompt(
                ids=ids,
                answer=continuation(tokenizer, REQUEST + JOINT + f"Query: {asked}{CLOSING}", f" {needle.answer}"),
                key_sets=sets,
                rows={name: tuple(range(*sets[name])) for name in ("question", "tail")},
                meta=meta,
            )
        )
    return found


def _with_needle(text: str, needle: Needle, depth: float, name: str) -> list[Piece]:
    """The text with the needle behind the sentence nearest before a depth."""
    end, said = nearest_end(sentence_ends(text), depth * len(text)), needle.texts[0].strip()
    at = said.find(needle.answer)
    parts: list[Piece] = [(said, name, "needle")]
    if at >= 0:
        stop = at + len(needle.answer)
        parts = [
            (said[:at], name, "needle"),
            (said[at:stop], name, "needle", "answer"),
            (said[stop:], name, "needle"),
        ]
    before, behind = text[:end], text[end:].lstrip(" ")
    joined = [(before + " " if before else "", name), *parts, (" " + behind if behind else "", name)]
    return [piece for piece in joined if piece[0]]
