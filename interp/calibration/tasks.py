"""Tasks to calibrate on: prompts that are judged among single-token options, on a search side and a held-out side that share no item.

    succession  lists to continue; the options are the words of the list. Items are answers: a word that is asked for on one side is never asked for
                on the other (it may stand in a list that is shown)
    needle      a sentence "The secret word of Alice is candle." among three others of its kind in 512 tokens, asked for by its question and
                beginning; the options are the words of eight such sentences. Items are names and words; haystacks come from the two sides
                of the corpus
    topics      a paragraph of Python's reference, and one worked example of each topic before it; the options are the topics. Items are paragraphs,
                the examples are of neither side. The text differs between versions of Python, so settings name the version

What a search finds on one side is worth what it does on the other. Prompts of a side are not independent: they share lists, names or examples.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from interp.calibration.variants import OPTIONS
from interp.errors import InputDataError, OptionError
from interp.tasks import corpus, needle, ordinals, succession
from interp.tasks.haystack import corpus_texts
from interp.tasks.marks import Piece, tokenize
from interp.tasks.prompt import Prompt, Span, generator
from interp.tasks.vocabulary import Tokenizer, continuation, need, single_token
from interp.tasks.wordlists import words

FAMILIES: Final = {"day_prefixes": "days", "month_prefixes": "months"}
"""Lists that name the same things as another."""
DRAWN: Final = 4
"""Draws of the place in which a list begins, per word of it; places that are drawn again stand once."""
BLOCK: Final = 8
"""Needles whose words are each other's options."""
LISTS: Final = ("things", "gifts", "places", "colours")
"""Word lists that secret words are drawn from."""
SECRET: Final = "The secret word of {} is"
"""How a needle begins; the answer is begun with it too, so that one token answers."""
DISTRACTORS: Final = 3
DEPTHS: Final = (0.1, 0.5, 0.9)
TOPICS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "errors": ("exceptions", "try", "raise", "assert"),
        "functions": ("function", "lambda", "calls", "return"),
        "numbers": ("integers", "floating", "imaginary", "numbers", "numeric-types"),
        "strings": ("strings", "formatstrings", "string-methods"),
    }
)
"""Label -> topics of `help()` whose paragraphs it stands for."""
SHORTEST, LONGEST = 80, 240
"""Characters of a paragraph."""


@dataclass(frozen=True, kw_only=True)
class CalibrationTask:
    """Prompts to search on, and others to test on.

    Attributes:
        name: of the task.
        search: prompts with choices "options", single tokens, and an answer of one of these.
        held_out: others, which share no item with these.
        settings: what the prompts depend on, for manifests.
        marked: name of the key set that `group` is about, None for none.

    Raises:
        OptionError: a side with fewer than two prompts, an answer that is no option, or one prompt on both sides.
    """

    name: str
    search: tuple[Prompt, ...]
    held_out: tuple[Prompt, ...]
    settings: Mapping[str, Any]
    marked: str | None = None

    def __post_init__(self) -> None:
        """Check prompts and sides."""
        for side, prompts in (("search", self.search), ("held_out", self.held_out)):
            if len(prompts) < 2:
                raise OptionError(f"{self.name}: {side} has {len(prompts)} prompts, and at least 2 are needed")
            for n, prompt in enumerate(prompts):
                options = prompt.choices.get(OPTIONS, ())
                if len(prompt.answer) != 1 or prompt.answer[0] not in options or len(set(options)) < 2:
                    raise OptionError(
                        f'{self.name}: prompt {n} of {side} wants choices "{OPTIONS}" of at least two tokens, and an answer of one of them'
                    )
        if {p.ids for p in self.search} & {p.ids for p in self.held_out}:
            raise OptionError(
                f"{self.name}: a prompt stands on both sides; the held-out side must be new to the search"
            )

    @property
    def chance(self) -> float:
        """Mean accuracy of guessing on the held-out side."""
        return float(np.mean([1 / len(set(p.choices[OPTIONS])) for p in self.held_out]))

    @property
    def group(self) -> Span | None:
        """The positions that belong to the marked key set in every prompt of both sides; None if there are none."""
        if self.marked is None:
            return None
        sets = [p.key_sets[self.marked] for p in (*self.search, *self.held_out)]
        start, stop = max(a for a, _ in sets), min(b for _, b in sets)
        return (start, stop) if start < stop else None


def succession_task(
    tokenizer: Tokenizer, *, prompts: int = 48, shown: Sequence[int] = (3, 4), seed: int = 0
) -> CalibrationTask:
    """Lists to continue, of those lists whose words all begin with tokens of their own.

    Args:
        tokenizer: of the model.
        prompts: most prompts of a side.
        shown: words before the answer.
        seed: of the split and the choice of prompts.

    Raises:
        InputDataError: no such list.
    """
    sides: tuple[dict[tuple[int, ...], Prompt], dict[tuple[int, ...], Prompt]] = ({}, {})
    for name in sorted(ordinals.ORDINALS):
        count = len(ordinals.ORDINALS[name].words)
        (one,) = succession.prompts(tokenizer, tasks=[name], samples=1)
        if len(one.choices["task"]) < count:
            continue  # some words begin alike, so the first token does not tell which one it is
        held = _held_out_half(FAMILIES.get(name, name), count, seed)
        for length in (x for x in shown if x < count):
            for prompt in succession.prompts(tokenizer, tasks=[name], shown=length, samples=DRAWN * count, seed=seed):
                side = sides[(int(prompt.meta["start"]) + length) % count in held]
                side.setdefault(prompt.ids, _judged(prompt, prompt.answer, prompt.choices["task"], shown=length))
    if not sides[0] or not sides[1]:
        raise InputDataError("this tokenizer writes no list of words that all begin with tokens of their own")
    search, held_out = (_sample(list(found.values()), prompts, (seed, n)) for n, found in enumerate(sides))
    settings = {"prompts": prompts, "shown": list(shown), "seed": seed}
    return CalibrationTask(name="succession", search=search, held_out=held_out, settings=settings, marked="list")


def needle_task(tokenizer: Tokenizer, *, prompts: int = 16, length: int = 512, seed: int = 0) -> CalibrationTask:
    """Secret words in long texts.

    Args:
        tokenizer: of the model.
        prompts: prompts of a side, a multiple of 8 (rounded down).
        length: most tokens of a prompt.
        seed: of split, words, texts and places.

    Raises:
        InputDataError: a tokenizer with too few words of one token.
        OptionError: fewer than 8 prompts, or more than there are names and words for.
    """
    random = generator(seed, 0)
    kept, _ = single_token(tokenizer, [f" {w}" for w in dict.fromkeys(w for x in LISTS for w in words(x))])
    secrets, names = sorted(kept), sorted(words("names"))
    need(kept, 2 * BLOCK, "words of the lists")
    blocks = prompts // BLOCK
    most = min(len(secrets), len(names)) // 2
    if not 1 <= blocks * BLOCK <= most:
        raise OptionError(f"prompts must be from {BLOCK} to {most // BLOCK * BLOCK}, got {prompts}")
    secrets, names = ([x[int(i)] for i in random.permutation(len(x))] for x in (secrets, names))
    sides = []
    for n, split in enumerate(("train", "held_out")):
        found: list[Prompt] = []
        for block in range(blocks):
            first = (n * blocks + block) * BLOCK
            pairs = list(zip(names[first : first + BLOCK], secrets[first : first + BLOCK], strict=True))
            hidden = [_secret(name, word.strip()) for name, word in pairs]
            made = needle.prompts(
                tokenizer,
                lengths=(length,),
                depths=DEPTHS,
                hidden=hidden,
                texts=corpus_texts(split),
                distractors=DISTRACTORS,
                seed=seed + 1 + first,
            )
            options = tuple(kept[word] for _, word in pairs)
            for i, (name, word) in enumerate(pairs):
                prompt = made[len(DEPTHS) * i + (i + block) % len(DEPTHS)]
                ahead = continuation(tokenizer, needle.QUESTION[1], f" {SECRET.format(name)}")
                found.append(_judged(prompt, (kept[word],), options, ahead=ahead))
        sides.append(tuple(found))
    settings = {"prompts": blocks * BLOCK, "length": length, "distractors": DISTRACTORS, "options": BLOCK, "seed": seed}
    return CalibrationTask(name="needle", search=sides[0], held_out=sides[1], settings=settings, marked="context")


def topics_task(tokenizer: Tokenizer, *, prompts: int = 32, seed: int = 0) -> CalibrationTask:
    """Which topic a paragraph of Python's reference is from, after one example of each.

    Args:
        tokenizer: of the model.
        prompts: most prompts of a side, as many of each topic.
        seed: of the split, the examples and their order.

    Raises:
        InputDataError: a tokenizer that has no single token for a label, or a Python without its documentation.
    """
    paragraphs = _paragraphs()
    kept, dropped = single_token(tokenizer, [f" {label}" for label in TOPICS])
    if dropped:
        raise InputDataError(f"this tokenizer has no single token for {', '.join(dropped)}; take another task")
    options = tuple(kept.values())
    random = generator(seed, 0)
    per_label = max(1, prompts // len(TOPICS))
    examples, sides = [], ([], [])
    for label, texts in paragraphs.items():
        order = [texts[int(i)] for i in random.permutation(len(texts))]
        examples.append((order[0], label))
        half = min(per_label, (len(order) - 1) // 2)
        sides[0].extend((text, label) for text in order[1 : 1 + half])
        sides[1].extend((text, label) for text in order[1 + half : 1 + 2 * half])
    shots = "".join(_asked(*examples[int(i)]) for i in random.permutation(len(examples)))
    made = []
    for side in sides:
        found = []
        for text, label in side:
            pieces: list[Piece] = [(shots, "examples"), (_asked(text, ""),)]
            ids, sets = tokenize(tokenizer, pieces)
            answer = continuation(tokenizer, _asked(text, ""), f" {label}")
            meta = {"task": "topics", "topic": label}
            found.append(Prompt(ids=ids, answer=answer, key_sets=sets, choices={OPTIONS: options}, meta=meta))
        made.append(tuple(found))
    settings = {
        "prompts": [len(side) for side in made], "labels": list(TOPICS), "seed": seed, "python": platform.python_version(),
    }  # fmt: skip
    return CalibrationTask(name="topics", search=made[0], held_out=made[1], settings=settings, marked="examples")


TASKS: Final[Mapping[str, Callable[..., CalibrationTask]]] = MappingProxyType(
    {"needle": needle_task, "succession": succession_task, "topics": topics_task}
)
"""Name -> function that makes the task for a tokenizer; all take `prompts` and `seed`."""


def _held_out_half(family: str, count: int, seed: int) -> frozenset[int]:
    """The half of a list's places that are asked for on the held-out side; families share it."""
    number = sorted(ordinals.ORDINALS).index(family)
    order = np.random.default_rng([seed, number]).permutation(count)
    return frozenset(int(i) for i in order[: count // 2])


def _sample(prompts: list[Prompt], most: int, seed: Sequence[int]) -> tuple[Prompt, ...]:
    order = np.random.default_rng(list(seed)).permutation(len(prompts))[:most]
    return tuple(prompts[int(i)] for i in sorted(order))


def _judged(
    prompt: Prompt,
    answer: tuple[int, ...],
    options: tuple[int, ...],
    *,
    ahead: tuple[int, ...] = (),
    shown: int | None = None,
) -> Prompt:
    """The prompt, with more tokens behind it if wanted, and the first token of its answer judged among the options."""
    sets = dict(prompt.key_sets)
    if shown is not None:
        sets["list"] = (sets["element1"][0], sets[f"element{shown}"][1])
    return Prompt(
        ids=prompt.ids + ahead,
        answer=answer[:1],
        key_sets=sets,
        choices={OPTIONS: options},
        meta=prompt.meta,
    )


def _secret(name: str, word: str) -> needle.Needle:
    return needle.Needle(
        texts=(f"{SECRET.format(name)} {word}.",), question=f"What is the secret word of {name}?", answer=word
    )


def _asked(text: str, label: str) -> str:
    """A paragraph and its topic, or what asks for it."""
    return f"Text: {text}\nTopic:" + (f" {label}\n\n" if label else "")


def _paragraphs() -> dict[str, list[str]]:
    """Label -> paragraphs of prose of its topics, in order; one that stands under two labels is left out."""
    texts = {document.name.partition("/")[2]: document.text for document in corpus.topics()}
    found: dict[str, list[str]] = {}
    for label, names in TOPICS.items():
        parts = [re.sub(r"\s+", " ", p).strip() for name in names for p in re.split(r"\n\s*\n", texts.get(name, ""))]
        prose = [p for p in parts if SHORTEST <= len(p) <= LONGEST and re.match(r"[A-Z][^>|=]*\.$", p)]
        found[label] = list(dict.fromkeys(prose))
    seen = [p for prose in found.values() for p in prose]
    found = {label: [p for p in prose if seen.count(p) == 1] for label, prose in found.items()}
    if few := [label for label, prose in found.items() if len(prose) < 5]:
        raise InputDataError(
            f"this Python's documentation has too few paragraphs on {', '.join(few)}; take another task"
        )
    return found
