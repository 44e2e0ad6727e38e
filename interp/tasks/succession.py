"""Ordinal succession: which token follows which, for scoring weights; and lists to be continued, for watching a model do it.

`chains` gives the single-token words of each ordered list and the pairs (s, t) in which t comes right after s. Only pairs whose both words
are single tokens count (Gould et al., arXiv 2312.09230, and the released replication): a dropped word breaks the chain, it is not bridged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from interp.errors import InputDataError, OptionError
from interp.tasks.marks import tokenize
from interp.tasks.ordinals import ORDINALS, Ordinals
from interp.tasks.prompt import Prompt, generator
from interp.tasks.vocabulary import Tokenizer, continuation, single_token


def _titled(word: str) -> str:
    """The word with a capital; signs in capitals (letters, roman numerals) stay as they are."""
    return word if word.isupper() else word.title()


CASES: Final[Mapping[str, Callable[[str], str]]] = {
    "plain": str,
    "lower": str.lower,
    "title": _titled,
    "upper": str.upper,
    "space plain": lambda word: f" {word}",
    "space lower": lambda word: f" {word.lower()}",
    "space title": lambda word: f" {_titled(word)}",
    "space upper": lambda word: f" {word.upper()}",
}
"""Ways to write a word; "plain" is its usual case, "space" puts a space before."""
JOINT: Final = ","
"""What stands between the elements of a list, before the next one's space."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """One ordered list in one way of writing, as tokens.

    Attributes:
        task: name of the list.
        case: key of `CASES`.
        tokens: word as written -> id, of the single-token words, in order.
        pairs: (id of s, id of t), t right after s in the whole list.
        dropped: words of several tokens.
    """

    task: str
    case: str
    tokens: Mapping[str, int]
    pairs: tuple[tuple[int, int], ...]
    dropped: tuple[str, ...]


def chains(
    tokenizer: Tokenizer, *, tasks: Sequence[str] | None = None, cases: Sequence[str] | None = None
) -> list[Chain]:
    """The chains of a tokenizer with at least one pair, by task and case; ways of writing with the same tokens stand once.

    Raises:
        OptionError: an unknown task or case.
        InputDataError: no pair at all.
    """
    found: list[Chain] = []
    for name in _chosen("tasks", tasks, ORDINALS):
        seen: set[tuple[tuple[int, int], ...]] = set()
        for case in _chosen("cases", cases, CASES):
            written = tuple(CASES[case](word) for word in ORDINALS[name].words)
            chain = _chain(tokenizer, ORDINALS[name], case, written)
            if chain.pairs and chain.pairs not in seen:
                seen.add(chain.pairs)
                found.append(chain)
    if not found:
        raise InputDataError(
            "this tokenizer writes no two words in a row of these lists as single tokens; choose other tasks or cases"
        )
    return found


def prompts(
    tokenizer: Tokenizer,
    *,
    tasks: Sequence[str] | None = None,
    shown: int = 4,
    samples: int = 8,
    bos: bool | None = None,
    seed: int = 0,
) -> list[Prompt]:
    """Lists to continue, `samples` per task: "Tuesday, Wednesday, Thursday, Friday," -> " Saturday". Words may have several tokens.

    `corrupt` draws as many of these words and the answer, in an order in which no neighbours follow each other either way (None where that
    takes another number of tokens). `wrong` is the last word shown. A space that is a token of its
    own is given with the prompt, so that the answer begins with the word. Pairs "previous element": (last token of an element, last token
    of the one before). Key sets "element1" ... . Choices "task": the first tokens of all words of the list.

    Args:
        tokenizer: of the model.
        tasks: names of lists, None for all.
        shown: elements before the answer.
        samples: prompts per task.
        bos: None leaves the choice of a BOS token to the tokenizer.
        seed: of the starts and the order of the corruption.

    Raises:
        OptionError: an unknown task, fewer than three elements shown, or all of a list.
    """
    if shown < 3:
        raise OptionError(f"shown must be at least 3, got {shown}")
    found = []
    for name in _chosen("tasks", tasks, ORDINALS):
        task = ORDINALS[name]
        if shown >= len(task.words):
            raise OptionError(
                f"{name} has {len(task.words)} words, so {shown} of them leave none to answer; show fewer"
            )
        firsts = _first_tokens(tokenizer, task)
        for sample in range(samples):
            number = len(found)
            found.append(_prompt(tokenizer, task, firsts, shown, sample, bos, generator(seed, number)))
    return found


def _chosen(what: str, given: Sequence[str] | None, known: Mapping[str, object]) -> list[str]:
    unknown = [name for name in given or () if name not in known]
    if unknown:
        raise OptionError(f"{what} must be among {', '.join(known)}; got {', '.join(unknown)}")
    return list(known if given is None else given)


def _chain(tokenizer: Tokenizer, task: Ordinals, case: str, written: tuple[str, ...]) -> Chain:
    kept, dropped = single_token(tokenizer, written)
    following = (*written[1:], written[0]) if task.cyclic else written[1:]
    pairs = tuple((kept[s], kept[t]) for s, t in zip(written, following, strict=False) if s in kept and t in kept)
    return Chain(task=task.name, case=case, tokens=kept, pairs=pairs, dropped=dropped)


def _prompt(
    tokenizer: Tokenizer,
    task: Ordinals,
    firsts: tuple[int, ...],
    shown: int,
    sample: int,
    bos: bool | None,
    random: np.random.Generator,
) -> Prompt:
    count = len(task.words)
    start = int(random.integers(count if task.cyclic else count - shown))
    words = [task.words[(start + k) % count] for k in range(shown + 1)]
    space = _lone_space(tokenizer, words[-1])
    ids, sets = _list(tokenizer, words[:-1], space, bos)
    corrupt, _ = _list(tokenizer, _shuffled(words, random)[:shown], space, bos)
    before = f"{words[-2]}{JOINT}{space}"
    answer = continuation(tokenizer, before, words[-1] if space else f" {words[-1]}")
    wrong = continuation(tokenizer, before, words[-2] if space else f" {words[-2]}")
    ends = [sets[f"element{k + 1}"][1] - 1 for k in range(shown)]
    return Prompt(
        ids=ids,
        answer=answer,
        wrong=wrong,
        corrupt=corrupt if len(corrupt) == len(ids) else None,
        key_sets=sets,
        pairs={"previous element": tuple(zip(ends[1:], ends[:-1], strict=True))},
        choices={"task": firsts},
        meta={"task": "succession", "list": task.name, "sample": sample, "start": start, "shown": shown},
    )


def _lone_space(tokenizer: Tokenizer, word: str) -> str:
    """A space if the tokenizer makes the one before the word a token of its own."""
    first = continuation(tokenizer, JOINT, f" {word}")[0]
    return "" if tokenizer.decode([first]).strip() else " "


def _list(
    tokenizer: Tokenizer, words: Sequence[str], space: str, bos: bool | None
) -> tuple[tuple[int, ...], dict[str, tuple[int, int]]]:
    pieces = []
    for k, word in enumerate(words):
        pieces += [(f" {word}" if k else word, f"element{k + 1}"), (JOINT,)]
    return tokenize(tokenizer, [*pieces, *([(space,)] if space else [])], bos=bos)


def _shuffled(words: Sequence[str], random: np.random.Generator) -> list[str]:
    """Four words or more in an order in which no two neighbours are neighbours in the list, upwards or downwards."""
    while True:
        order = random.permutation(len(words))
        if not (np.abs(np.diff(order)) == 1).any():
            return [words[int(i)] for i in order]


def _first_tokens(tokenizer: Tokenizer, task: Ordinals) -> tuple[int, ...]:
    """The tokens that a next word can begin with, each once."""
    found = []
    for word in task.words:
        space = _lone_space(tokenizer, word)
        found.append(continuation(tokenizer, f"{JOINT}{space}", word if space else f" {word}")[0])
    return tuple(dict.fromkeys(found))
