"""Multi-query associative recall (Arora et al., "Zoology", arXiv 2312.04927): key value key value ..., then keys whose values are recalled.

Keys and values are random ordinary tokens, all different. Zoology spreads the queries over a long sequence and fills the gaps with random
tokens; here they follow the pairs at once, or behind `gap` random tokens each.
"""

from __future__ import annotations

from interp.errors import InputDataError, OptionError
from interp.tasks.prompt import Prompt, generator
from interp.tasks.vocabulary import Tokenizer, first_ids, ordinary_ids


def prompts(
    tokenizer: Tokenizer,
    *,
    samples: int = 20,
    facts: int = 16,
    queries: int = 8,
    gap: int = 0,
    bos: bool | None = None,
    seed: int = 0,
) -> list[Prompt]:
    """Prompts that end with a queried key; `answer` is its value, `wrong` the value of another fact.

    Rows "queries" are the queried keys, each followed by its value (the last by `answer`). Key sets "facts", and "target" (the value of the
    last query). Pairs "value": (query, its value); "key": (query, the key's first place). Choices "values" are all values.

    Args:
        tokenizer: of the model.
        samples: number of prompts.
        facts: key-value pairs.
        queries: how many of them are asked, in random order.
        gap: random tokens, that are neither keys nor values, before each query.
        bos: None leaves the choice of a BOS token to the tokenizer.
        seed: of the tokens and the order.

    Raises:
        OptionError: more queries than facts, or sizes out of range.
        InputDataError: a vocabulary too small for that many different tokens.
    """
    if not (facts >= 2 and 1 <= queries <= facts and gap >= 0):
        raise OptionError(f"wanted facts >= 2, 1 <= queries <= facts and gap >= 0; got {facts}, {queries} and {gap}")
    pool = ordinary_ids(tokenizer)
    wanted = 2 * facts + gap * queries
    if len(pool) < wanted:
        raise InputDataError(
            f"the vocabulary has {len(pool)} ordinary tokens, and {wanted} different ones are needed; ask for less"
        )
    before = first_ids(tokenizer, bos)
    start = len(before)
    found = []
    for sample in range(samples):
        random = generator(seed, sample)
        drawn = random.choice(pool, size=wanted, replace=False).tolist()
        keys, values, filler = drawn[:facts], drawn[facts : 2 * facts], drawn[2 * facts :]
        asked = [int(i) for i in random.permutation(facts)[:queries]]
        ids = [*before, *(token for fact in zip(keys, values, strict=True) for token in fact)]
        rows = []
        for n, i in enumerate(asked):
            ids += filler[n * gap : (n + 1) * gap]
            rows.append(len(ids))
            ids += [keys[i], values[i]]
        last = asked[-1]
        target = start + 2 * last + 1
        found.append(
            Prompt(
                ids=tuple(ids[:-1]),
                answer=(values[last],),
                wrong=(values[(last + 1) % facts],),
                key_sets={"facts": (start, start + 2 * facts), "target": (target, target + 1)},
                rows={"queries": tuple(rows)},
                pairs={
                    "value": tuple((row, start + 2 * i + 1) for row, i in zip(rows, asked, strict=True)),
                    "key": tuple((row, start + 2 * i) for row, i in zip(rows, asked, strict=True)),
                },
                choices={"values": tuple(values)},
                meta={"task": "mqar", "sample": sample, "facts": facts, "queries": queries, "gap": gap},
            )
        )
    return found
