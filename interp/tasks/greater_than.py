"""Greater-than (Hanna et al., arXiv 2305.00586): "The war lasted from the year 1732 to the year 17" -> a number above 32.

The right next tokens are many: `choices` has "greater", the tokens all of whose two-digit readings lie above YY, and "not_greater", those
none of whose readings does; the paper's score is the probability of the first less that of the second. Where a token is two digits (GPT-2)
these are the paper's sets. Where it is one digit (SmolLM2, Gemma) they hold the tens digits above and below that of YY; YY's own tens
digit can be right or wrong and is in neither, so YY lies between 09 and 89. Years whose digits merge with the century, as those that are
one token (GPT-2's " 1776"), are left out, as in the paper; tokenizers of three digits (Llama 3) leave none. The corruption has 01 for YY,
the first year behind it if 01 merges.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from interp.errors import InputDataError, OptionError
from interp.tasks.marks import tokenize
from interp.tasks.prompt import Prompt, generator
from interp.tasks.vocabulary import Tokenizer, continuation
from interp.tasks.wordlists import words

CENTURIES: Final = (11, 12, 13, 14, 15, 16, 17)
"""The paper's centuries."""
YEARS: Final = range(2, 99)
"""The paper's YY: 02 to 98."""


def prompts(
    tokenizer: Tokenizer,
    *,
    samples: int = 50,
    centuries: Sequence[int] = CENTURIES,
    bos: bool | None = None,
    seed: int = 0,
) -> list[Prompt]:
    """Prompts whose next token should make a later year; `answer` is the smallest sure one, `wrong` the largest that is surely none.

    Key sets "YY" (the digits of the first year behind its century), "century" and "event". meta["digits"] is the number of digits that one
    token decides, 1 or 2.

    Raises:
        InputDataError: the tokenizer merges centuries with the digits behind them, so that there is no such task.
        OptionError: a century that has not two digits.
    """
    if not centuries or not all(10 <= century <= 99 for century in centuries):
        raise OptionError(f"centuries must be numbers from 10 to 99, got {list(centuries)}")
    known = {century: _readings(tokenizer, century) for century in centuries}
    found = []
    for sample in range(samples):
        random = generator(seed, sample)
        century = int(random.choice(list(centuries)))
        tokens = known[century]
        readable = sorted(year for years in tokens.values() for year in years)
        possible = [yy for yy in readable if yy in YEARS and all(_sets(tokens, yy))]
        if not possible:
            raise InputDataError(
                f"after the century {century} this tokenizer has no year with later and earlier first tokens (it merges their digits); "
                "give other centuries, or take another task"
            )
        yy = int(random.choice(possible))
        lowest = min(year for year in readable if year)
        event = str(random.choice(words("events")))
        greater, not_greater = _sets(tokens, yy)
        ids, sets = _tokens(tokenizer, event, century, f"{yy:02d}", bos)
        corrupt, _ = _tokens(tokenizer, event, century, f"{lowest:02d}", bos)
        found.append(
            Prompt(
                ids=ids,
                answer=(min(greater, key=lambda token: tokens[token]),),
                wrong=(max(not_greater, key=lambda token: tokens[token]),),
                corrupt=corrupt,
                key_sets=sets,
                choices={"greater": greater, "not_greater": not_greater},
                meta={
                    "task": "greater_than",
                    "sample": sample,
                    "event": event,
                    "century": century,
                    "yy": yy,
                    "digits": 2 if len(tokens) == len(readable) else 1,
                },
            )
        )
    return found


def _tokens(
    tokenizer: Tokenizer, event: str, century: int, yy: str, bos: bool | None
) -> tuple[tuple[int, ...], dict[str, tuple[int, int]]]:
    start, middle = "The", " lasted from the year "
    pieces = [(start,), (f" {event}", "event"), (middle,), (str(century), "century"), (yy, "YY"), (_tail(century),)]
    return tokenize(tokenizer, pieces, bos=bos)


def _tail(century: int) -> str:
    return f" to the year {century}"


def _readings(tokenizer: Tokenizer, century: int) -> dict[int, tuple[int, ...]]:
    """First token behind the century -> the two-digit numbers that it can begin; years that merge with the century are left out."""
    found: dict[int, list[int]] = {}
    for yy in range(100):
        with suppress(InputDataError):
            found.setdefault(continuation(tokenizer, _tail(century), f"{yy:02d}")[0], []).append(yy)
    return {token: tuple(years) for token, years in found.items()}


def _sets(tokens: dict[int, tuple[int, ...]], yy: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    greater = tuple(token for token, years in tokens.items() if min(years) > yy)
    return greater, tuple(token for token, years in tokens.items() if max(years) <= yy)
