"""Indirect object identification (Wang et al. 2022, arXiv 2211.00593): "When Mary and John arrived ..., John gave a drink to" -> " Mary".

Templates, names, places and gifts were written for this project. Both orders of the paper: ABBA names the indirect object first, BABA the
subject. The corruption is its ABC form: the same template with three other names, so that no name is repeated and none is indicated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal, get_args

from interp.errors import OptionError
from interp.tasks.marks import Piece, tokenize
from interp.tasks.prompt import Prompt, generator
from interp.tasks.vocabulary import Tokenizer, need, single_token
from interp.tasks.wordlists import words

Order = Literal["ABBA", "BABA", "both"]
LEAST_NAMES: Final = 5
"""Two in the prompt and three others in its corruption."""


def prompts(
    tokenizer: Tokenizer,
    *,
    samples: int = 50,
    order: Order = "both",
    names: Sequence[str] | None = None,
    bos: bool | None = None,
    seed: int = 0,
) -> list[Prompt]:
    """Prompts whose answer is the name that stands once; `wrong` is the name that stands twice.

    Key sets (one token each): "IO", "S1", "S2", "S1+1" (the token behind S1) and "END" (the last). Pairs, by the paper's kinds of heads:
    "name mover" (END, IO), "s-inhibition" (END, S2), "duplicate" (S2, S1), "induction" (S2, S1+1).

    Args:
        tokenizer: of the model.
        samples: number of prompts.
        order: which names come first; "both" takes turns.
        names: to draw from, None for those of the package; only names of one token (with a space before) are used.
        bos: None leaves the choice of a BOS token to the tokenizer.
        seed: of names, templates, places and gifts.

    Raises:
        InputDataError: fewer than five names are single tokens.
        OptionError: an unknown order.
    """
    if order not in get_args(Order):
        raise OptionError(f"order must be one of {', '.join(get_args(Order))}; got {order!r}")
    kept, dropped = single_token(tokenizer, [f" {name}" for name in (names or words("names"))])
    need(kept, LEAST_NAMES, "names")
    return [_prompt(tokenizer, list(kept), len(dropped), order, i, bos, seed) for i in range(samples)]


def _prompt(
    tokenizer: Tokenizer, names: list[str], dropped: int, order: Order, sample: int, bos: bool | None, seed: int
) -> Prompt:
    random = generator(seed, sample)
    drawn = [str(name) for name in random.choice(names, size=LEAST_NAMES, replace=False)]
    template = str(random.choice(words("ioi_templates")))
    filling = {"PLACE": str(random.choice(words("places"))), "GIFT": str(random.choice(words("gifts")))}
    this = order if order != "both" else ("ABBA", "BABA")[sample % 2]
    indirect, subject = drawn[:2]
    first, second = (indirect, subject) if this == "ABBA" else (subject, indirect)
    marks = {"A": "IO", "B": "S1"} if this == "ABBA" else {"A": "S1", "B": "IO"}
    ids, sets = tokenize(
        tokenizer, _fill(template, filling | {"A": first, "B": second, "S": subject}, marks | {"S": "S2"}), bos=bos
    )
    others = filling | dict(zip("ABS", drawn[2:], strict=True))
    corrupt, _ = tokenize(tokenizer, _fill(template, others, {}), bos=bos)
    at = {name: start for name, (start, _) in sets.items()} | {"END": len(ids) - 1, "S1+1": sets["S1"][1]}
    return Prompt(
        ids=ids,
        answer=(ids[at["IO"]],),
        wrong=(ids[at["S2"]],),
        corrupt=corrupt,
        key_sets={name: (i, i + 1) for name, i in at.items()},
        rows={"S2": (at["S2"],), "S1+1": (at["S1+1"],)},
        pairs={
            "name mover": ((at["END"], at["IO"]),),
            "s-inhibition": ((at["END"], at["S2"]),),
            "duplicate": ((at["S2"], at["S1"]),),
            "induction": ((at["S2"], at["S1+1"]),),
        },
        meta={"task": "ioi", "sample": sample, "order": this, "template": template, "names_dropped": dropped},
    )


def _fill(template: str, values: dict[str, str], marks: dict[str, str]) -> list[Piece]:
    """A template as pieces. Names bring the space before them with them, so that they are the tokens that were checked."""
    pieces: list[Piece] = []
    for text, slot in re.findall(r"([^{]*)(?:\{(\w+)\})?", template):
        names = (marks[slot],) if slot in marks else ()
        value = values.get(slot, "")
        pieces += [(text.removesuffix(" ") if value.startswith(" ") else text,), (value, *names)]
    return [piece for piece in pieces if piece[0]]
