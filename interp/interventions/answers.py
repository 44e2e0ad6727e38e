"""How well a model knows the answers of prompts: log-probability, accuracy, difference of logits, in one pass over prompt and answer.

The answer is forced: row len(ids) - 1 + t has read the prompt and the answer's tokens before t, and should predict token t. A greedy model
generates the answer exactly if every one of these rows ranks its token first, so accuracy needs no generation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import OptionError
from interp.interventions.readout import Readout
from interp.models.hooked import HookedModel

BATCH = 16
"""Prompts of one pass."""


@runtime_checkable
class Answerable(Protocol):
    """What is asked of a prompt here; `interp.tasks.prompt.Prompt` is one."""

    @property
    def ids(self) -> tuple[int, ...]:
        """What the model is given."""
        ...

    @property
    def answer(self) -> tuple[int, ...]:
        """The tokens that should follow."""
        ...

    @property
    def wrong(self) -> tuple[int, ...] | None:
        """What follows if the point is missed, None if no one continuation stands out."""
        ...

    @property
    def choices(self) -> Mapping[str, tuple[int, ...]]:
        """Name -> tokens among which the next one is judged."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class AnswerScores:
    """Scores of answers, one number per prompt.

    Attributes:
        logprob: log-probability of the whole answer, nats, the sum over its tokens; float64 [prompt].
        correct: whether the largest logit is right (see `answer_scores`), bool [prompt].
        logit_difference: logit of the answer's first token less that of `wrong`'s, float64 [prompt]; NaN without `wrong`.
    """

    logprob: NDArray[np.float64]
    correct: NDArray[np.bool_]
    logit_difference: NDArray[np.float64]

    @property
    def probability(self) -> NDArray[np.float64]:
        """Probability of the whole answer, float64 [prompt]."""
        return np.exp(self.logprob)


def answer_scores(
    model: HookedModel, prompts: Sequence[Answerable], *, choices: str | None = None, batch: int = BATCH
) -> AnswerScores:
    """Score the answers of prompts, under the interventions in force where it is called.

    Args:
        model: a decoder.
        prompts: with an answer of at least one token each.
        choices: name of the choices among which the next token is judged: correct is whether the largest logit of these is the answer's
            first token. None: correct is whether greedy decoding gives the whole answer.
        batch: most prompts of one pass; prompts share one if prompt and answer are of the same lengths.

    Raises:
        OptionError: no prompts, an empty answer, choices that a prompt does not have or that lack its answer, or a text that is too long.
        UnsupportedModelError: the model is no decoder with an unembedding.
    """
    readout = Readout(model)
    return scores_of(readout, prompts, answer_states(readout, prompts, batch=batch), choices=choices)


@torch.no_grad()
def answer_states(readout: Readout, prompts: Sequence[Answerable], *, batch: int = BATCH) -> list[Tensor]:
    """The states that predict the answers: [token of the answer, d] for each prompt. Raises OptionError as `answer_scores`."""
    check_prompts(readout.model, prompts)
    found: dict[int, Tensor] = {}
    for some in equal_lengths(prompts, batch):
        ids = torch.tensor([(*prompts[i].ids, *prompts[i].answer[:-1]) for i in some])
        states = readout.states(ids)[:, len(prompts[some[0]].ids) - 1 :].clone()
        found |= dict(zip(some, states, strict=True))
    return [found[i] for i in range(len(prompts))]


@torch.no_grad()
def scores_of(
    readout: Readout, prompts: Sequence[Answerable], states: Sequence[Tensor], *, choices: str | None = None
) -> AnswerScores:
    """Scores from the states of `answer_states`."""
    logprob, correct, difference = [], [], []
    for prompt, mine in zip(prompts, states, strict=True):
        logits = readout.logits(mine)
        answer = torch.tensor(prompt.answer, device=logits.device)
        logprob.append(float(logits.double().log_softmax(-1).gather(1, answer[:, None]).sum()))
        if choices is None:
            correct.append(bool((logits.argmax(-1) == answer).all()))
        else:
            among = torch.tensor(_choices(prompt, choices), device=logits.device)
            correct.append(int(among[logits[0, among].argmax()]) == prompt.answer[0])
        wrong = prompt.wrong
        difference.append(float(logits[0, answer[0]] - logits[0, wrong[0]]) if wrong else np.nan)
    return AnswerScores(
        logprob=np.array(logprob, dtype=np.float64),
        correct=np.array(correct, dtype=np.bool_),
        logit_difference=np.array(difference, dtype=np.float64),
    )


def equal_lengths(prompts: Sequence[Answerable], batch: int) -> Iterator[list[int]]:
    """Numbers of prompts that share a pass: prompt and answer of the same lengths, at most `batch`."""
    lengths = [(len(p.ids), len(p.answer)) for p in prompts]
    for kind in sorted(set(lengths)):
        equal = [i for i, other in enumerate(lengths) if other == kind]
        for first in range(0, len(equal), batch):
            yield equal[first : first + batch]


def check_prompts(model: HookedModel, prompts: Sequence[Answerable], *, steps: int = 0) -> None:
    """Raise OptionError if there are no prompts, one has no answer, or one is too long for the model with `steps` more tokens."""
    if not prompts:
        raise OptionError(
            "no prompts given; make some with interp.tasks, e.g. interp.tasks.ioi.prompts(model.tokenizer)"
        )
    if bad := [i for i, p in enumerate(prompts) if not p.answer or not p.ids]:
        raise OptionError(f"prompts {bad[:5]} have no tokens or no answer; each needs at least one of both")
    longest = max(len(p.ids) + max(len(p.answer) - 1, steps) for p in prompts)
    if model.context_length is not None and longest > model.context_length:
        raise OptionError(f"the longest prompt takes {longest} tokens, and the model reads {model.context_length}")


def _choices(prompt: Answerable, name: str) -> tuple[int, ...]:
    if name not in prompt.choices:
        raise OptionError(f"choices {name!r} are not there; this prompt has: {', '.join(prompt.choices) or 'none'}")
    if prompt.answer[0] not in prompt.choices[name]:
        raise OptionError(f"choices {name!r} do not hold the answer's first token, so no model could be right")
    return prompt.choices[name]
