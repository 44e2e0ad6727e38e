"""How much of a span a head copied while the model answered: the three scores of the literature, from the keys each answer row looks at most.

Row t of an answer predicts the generated token w_t; j_t is the key on which head h puts its largest probability there (ties: lowest index).
The head copies at t if j_t lies in the span [s, e) and the token there is w_t. With k = the tokens of the span:

    paper    |{copied tokens}| / |k|, both as sets of token ids: in [0, 1]                              (Wu et al. 2024, arXiv 2404.15574)
    code     (steps that copy) / (e - s): a token said twice counts twice, so it can exceed 1           (their released code)
    headkv   sum over steps and over the (e - s) most attended keys of the probability of those in the span, / (e - s): tokens need
             not match, so it finds heads that read an answer without spelling it                       (HeadKV's released code)
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from interp.tasks.prompt import Span

F1_ABOVE = 0.5
"""Answer F1 above which HeadKV's code counts a sample."""


def copies(
    top: NDArray[np.integer], ids: NDArray[np.integer], generated: NDArray[np.integer], span: Span
) -> NDArray[np.bool_]:
    """Whether each head copies from the span at each step: [layer, head, step].

    Args:
        top: most attended key, [layer, head, step]; -1 for none.
        ids: tokens by key position.
        generated: token that each step predicted, [step].
        span: (start, stop) of key positions.
    """
    inside = (top >= span[0]) & (top < span[1])
    return inside & (ids[top] == generated)


def paper_score(
    copied: NDArray[np.bool_], generated: NDArray[np.integer], span_ids: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Share of the span's distinct tokens that each head copied: [layer, head] from `copies` [layer, head, step]."""
    wanted = np.unique(span_ids)
    found = [copied[..., generated == token].any(-1) for token in wanted]
    return np.stack(found).sum(0) / float(len(wanted))


def code_score(copied: NDArray[np.bool_], size: int) -> NDArray[np.float64]:
    """Steps that copied per token of a span of `size` tokens: [layer, head] from `copies` [layer, head, step]."""
    return copied.sum(-1) / float(size)


def headkv_score(top: NDArray[np.integer], prob: NDArray[np.floating], span: Span) -> NDArray[np.float64]:
    """Probability on the span's keys among the most attended: [layer, head].

    Args:
        top: most attended keys, [layer, head, step, span size]; -1 for none.
        prob: their probabilities, same shape.
        span: (start, stop) of key positions.
    """
    inside = (top >= span[0]) & (top < span[1])
    return np.where(inside, prob, 0.0).sum((-2, -1), dtype=np.float64) / (span[1] - span[0])


def answer_f1(reference: str, response: str) -> float:
    """F1 of the two texts' words, counted with repetition; case, punctuation and English articles ignored (the usual QA F1).

    >>> round(answer_f1("a small blue cave", "In the blue cave."), 3)
    0.667
    """
    wanted, given = (
        Counter(word for word in re.findall(r"\w+", text.lower()) if word not in {"a", "an", "the"})
        for text in (reference, response)
    )
    total = wanted.total() + given.total()
    return 2.0 * (wanted & given).total() / total if total else 0.0
