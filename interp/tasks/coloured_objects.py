"""Coloured objects (Merullo et al., arXiv 2310.08744, after BIG-bench): things of different colours, and the colour of one is asked.

The prompts were written for this project. The corruption is the smallest one: another of the listed things is asked for, so that
its colour, `wrong`, becomes right.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from interp.errors import OptionError
from interp.tasks.marks import Piece, tokenize
from interp.tasks.prompt import Prompt, generator
from interp.tasks.vocabulary import Tokenizer, need, single_token
from interp.tasks.wordlists import words

Form = Literal["question", "statement"]
Words = list[str]


def prompts(
    tokenizer: Tokenizer,
    *,
    samples: int = 50,
    things: int = 3,
    form: Form = "question",
    shots: int = 1,
    bos: bool | None = None,
    seed: int = 0,
) -> list[Prompt]:
    """Prompts whose answer is the colour of the thing asked for, with a space before.

    Key sets (one token each): "object" and "answer" (the thing and its colour in the list), "other" and "wrong" (those of the corruption),
    "asked" (the thing in the question), "END". Pair "mover" (END, answer). Choices "listed" are the colours of the prompt, "colours" all.

    Args:
        tokenizer: of the model.
        samples: number of prompts.
        things: how many are listed.
        form: "question": "Q: ... What color is the cup?\\nA:"; "statement": "... The color of the cup is".
        shots: solved examples before (the paper has one), with things and colours of their own.
        bos: None leaves the choice of a BOS token to the tokenizer.
        seed: of things, colours and places.

    Raises:
        InputDataError: too few things or colours are single tokens (with a space before).
        OptionError: an unknown form, fewer than two things, or a negative number of examples.
    """
    if form not in get_args(Form):
        raise OptionError(f"form must be one of {', '.join(get_args(Form))}; got {form!r}")
    if things < 2 or shots < 0:
        raise OptionError(f"wanted at least two things and no negative number of shots, got {things} and {shots}")
    nouns, _ = single_token(tokenizer, [f" {word}" for word in words("things")])
    colours, _ = single_token(tokenizer, [f" {word}" for word in words("colours")])
    need(nouns, things, "things")
    need(colours, things, "colours")
    found = []
    for sample in range(samples):
        random = generator(seed, sample)
        before = "".join(_example(list(nouns), list(colours), things, form, random) for _ in range(shots))
        found.append(_prompt(tokenizer, before, list(nouns), colours, things, form, sample, bos, random))
    return found


def _draw(pool: Words, count: int, random: np.random.Generator) -> Words:
    return [str(word) for word in random.choice(pool, size=count, replace=False)]


def _scene(nouns: Words, colours: Words, random: np.random.Generator) -> tuple[list[list[Piece]], str]:
    """The list of things, each as pieces [article, colour, noun, comma], and where they lie."""
    listed: list[list[Piece]] = []
    for i, (colour, noun) in enumerate(zip(colours, nouns, strict=True)):
        joint = "" if not i else " and" if i == len(nouns) - 1 else ","
        listed.append([(f"{joint} a",), (colour,), (noun,)])
    return listed, str(random.choice(words("surfaces")))


def _ends(form: Form, surface: str) -> tuple[str, str, str]:
    """What stands before the list, between list and asked noun, and behind it."""
    if form == "question":
        return f"Q: On the {surface} there is", ". What color is the", "?\nA:"
    return f"On the {surface} there is", ". The color of the", " is"


def _example(pool: Words, colour_pool: Words, things: int, form: Form, random: np.random.Generator) -> str:
    nouns, colours = _draw(pool, things, random), _draw(colour_pool, things, random)
    listed, surface = _scene(nouns, colours, random)
    start, middle, stop = _ends(form, surface)
    k = int(random.integers(things))
    said = "".join(piece[0] for thing in listed for piece in thing)
    return f"{start}{said}{middle}{nouns[k]}{stop}{colours[k]}{'.' if form == 'statement' else ''}\n\n"


def _prompt(
    tokenizer: Tokenizer,
    before: str,
    pool: Words,
    colour_ids: dict[str, int],
    things: int,
    form: Form,
    sample: int,
    bos: bool | None,
    random: np.random.Generator,
) -> Prompt:
    nouns, colours = _draw(pool, things, random), _draw(list(colour_ids), things, random)
    listed, surface = _scene(nouns, colours, random)
    start, middle, stop = _ends(form, surface)
    k, other = (int(i) for i in random.choice(things, size=2, replace=False))
    for i, (colour_name, noun_name) in ((k, ("answer", "object")), (other, ("wrong", "other"))):
        article, colour, noun = listed[i]
        listed[i] = [article, (*colour, colour_name), (*noun, noun_name)]
    flat = [piece for thing in listed for piece in thing]
    pieces = [(before,)] if before else []
    ids, sets = tokenize(tokenizer, [*pieces, (start,), *flat, (middle,), (nouns[k], "asked"), (stop,)], bos=bos)
    corrupt, _ = tokenize(tokenizer, [*pieces, (start,), *flat, (middle,), (nouns[other],), (stop,)], bos=bos)
    end = len(ids) - 1
    return Prompt(
        ids=ids,
        answer=(colour_ids[colours[k]],),
        wrong=(colour_ids[colours[other]],),
        corrupt=corrupt,
        key_sets=sets | {"END": (end, end + 1)},
        pairs={"mover": ((end, sets["answer"][0]),)},
        choices={"listed": tuple(colour_ids[c] for c in colours), "colours": tuple(colour_ids.values())},
        meta={"task": "coloured_objects", "sample": sample, "form": form, "things": things, "place": k},
    )
