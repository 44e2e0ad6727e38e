"""What each label of a head promises, as a number that an ablation can move: the tasks behind `interp.heads.confirm`.

    retrieval                      needle recall: mean ROUGE-1 recall of greedy answers (Wu et al. 2024), and the share of accepted answers
    induction, previous, duplicate loss on the second half of repeated random tokens (Olsson et al. 2022), nats per token
    successor                      lists to continue: logit of the next element less that of the last one shown, and accuracy in the list
    sink, streaming                loss on natural text, nats per token

Each is a function of a model, so that it can be run under `with model.edit(...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from interp.errors import InputDataError, OptionError
from interp.heads.retrieval import greedy
from interp.models.hooked import HookedModel
from interp.tasks import needle, repeated, succession
from interp.tasks.haystack import corpus_texts
from interp.tasks.prompt import Prompt
from interp.tasks.repeated import TRANSFORMER_LENS
from interp.tasks.sequences import sequences

Better = Literal["higher", "lower"]
TASK_OF: Final = {
    "retrieval": "needle",
    "induction": "repeated",
    "previous": "repeated",
    "duplicate": "repeated",
    "successor": "succession",
    "sink": "text",
    "streaming": "text",
}
"""Label -> name of the task that its heads should matter for."""
STEPS = 24
"""Most tokens of an answer; the answers of the project's needles have at most a dozen."""
LOGITS = 512
"""Tokens whose logits are held at a time: 100 MB at a vocabulary of 49,152."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A measurement of a model.

    Attributes:
        name: of the task.
        measure: the metrics of a model as it is, interventions included.
        better: metric -> which way is better.
        settings: what the numbers depend on, for manifests.
    """

    name: str
    measure: Callable[[HookedModel], dict[str, float]]
    better: Mapping[str, Better]
    settings: Mapping[str, Any]


def needle_task(
    model: HookedModel,
    *,
    prompts: Sequence[Prompt] | None = None,
    length: int = 512,
    depths: Sequence[float] = (0.1, 0.5, 0.9),
    steps: int = STEPS,
    seed: int = 0,
) -> Task:
    """Needle recall: 8 needles x `depths` prompts of `length` tokens, or the prompts given (with meta "answer").

    Raises:
        InputDataError: a model without a tokenizer.
        OptionError: prompts that do not fit into the model's context.
    """
    given = (
        list(prompts)
        if prompts is not None
        else needle.prompts(_tokenizer(model), lengths=(length,), depths=depths, seed=seed)
    )
    longest = max(len(p.ids) for p in given) + steps
    if model.context_length is not None and longest > model.context_length:
        raise OptionError(
            f"prompt and answer take {longest} tokens, and the model reads {model.context_length}; give less"
        )

    def measure(model: HookedModel) -> dict[str, float]:
        recalls, accepted = [], []
        answered = greedy(model, [prompt.ids for prompt in given], steps=steps)
        for prompt, whole in zip(given, answered, strict=True):
            said = whole[len(prompt.ids) :].tolist()
            text = str(_tokenizer(model).decode(said, skip_special_tokens=True))
            recalls.append(needle.rouge1_recall(str(prompt.meta["answer"]), text))
            accepted.append(needle.accepted(prompt, text))
        return {"needle recall": float(np.mean(recalls)), "needle accepted": float(np.mean(accepted))}

    settings = {"prompts": len(given), "tokens": longest - steps, "steps": steps, "own_prompts": prompts is not None}
    settings |= {} if prompts is not None else {"length": length, "depths": list(depths), "seed": seed}
    return Task(
        name="needle",
        measure=measure,
        better={"needle recall": "higher", "needle accepted": "higher"},
        settings=settings,
    )


def repeated_task(
    model: HookedModel, *, length: int = TRANSFORMER_LENS.length, samples: int = 10, seed: int = 0
) -> Task:
    """Loss on the second half of [r, r], r being `length` random tokens (rows i >= length whose next token is known)."""
    form = replace(TRANSFORMER_LENS, length=length)
    given = repeated.prompts(_tokenizer(model), form, samples=samples, seed=seed)
    ids = torch.tensor([p.ids for p in given])

    def measure(model: HookedModel) -> dict[str, float]:
        return {"loss on the second half": _loss(model, ids, first_row=length)}

    return Task(
        name="repeated",
        measure=measure,
        better={"loss on the second half": "lower"},
        settings={"length": length, "samples": samples, "seed": seed},
    )


def succession_task(model: HookedModel, *, shown: int = 4, samples: int = 8, seed: int = 0) -> Task:
    """Lists to continue ("Tuesday, Wednesday, Thursday, Friday," -> " Saturday"), `samples` of each task.

    Logit difference: first token of the answer less that of the last element shown, which a head that copies would raise. Accuracy: the
    answer's first token has the largest logit among the first tokens of the list. Prompts whose two tokens are the same are left out.
    """
    drawn = succession.prompts(_tokenizer(model), shown=shown, samples=samples, seed=seed)
    given = [p for p in drawn if p.wrong is not None and p.wrong[0] != p.answer[0]]
    if not given:
        raise InputDataError(
            "under this tokenizer every list goes on with the token that it ended in; no prompt is left"
        )

    def measure(model: HookedModel) -> dict[str, float]:
        differences, right = [], []
        for prompt in given:
            logits = _logits(model, torch.tensor([prompt.ids]))[0, -1]
            choices = torch.tensor(prompt.choices["task"], device=logits.device)
            wrong = prompt.wrong[0] if prompt.wrong is not None else 0
            differences.append(float(logits[prompt.answer[0]] - logits[wrong]))
            right.append(int(choices[logits[choices].argmax()]) == prompt.answer[0])
        return {
            "succession logit difference": float(np.mean(differences)),
            "succession accuracy": float(np.mean(right)),
        }

    return Task(
        name="succession",
        measure=measure,
        better={"succession logit difference": "higher", "succession accuracy": "higher"},
        settings={"shown": shown, "prompts": len(given), "seed": seed},
    )


def text_task(
    model: HookedModel, *, texts: Sequence[str] | None = None, tokens: int = 512, samples: int = 4, seed: int = 0
) -> Task:
    """Loss on pieces of natural text (None: the held-out documents of the project's corpus), every row but the last."""
    pool = corpus_texts("held_out") if texts is None else texts
    ids = torch.tensor(sequences(model, "natural", texts=pool, tokens=tokens, count=samples, seed=seed))

    def measure(model: HookedModel) -> dict[str, float]:
        return {"loss on text": _loss(model, ids, first_row=0)}

    return Task(
        name="text",
        measure=measure,
        better={"loss on text": "lower"},
        settings={"tokens": tokens, "samples": samples, "seed": seed, "own_texts": texts is not None},
    )


TASKS: Final[Mapping[str, Callable[..., Task]]] = {
    "needle": needle_task,
    "repeated": repeated_task,
    "succession": succession_task,
    "text": text_task,
}
"""Name -> function that makes the task with its defaults."""


@torch.no_grad()
def _logits(model: HookedModel, ids: Tensor) -> Tensor:
    """Logits of texts of one length [text, token], float32 [text, token, vocabulary]."""
    return model.hf(input_ids=ids.to(model.device), use_cache=False).logits.float()


def _loss(model: HookedModel, ids: Tensor, *, first_row: int) -> float:
    """Mean negative log-likelihood of the next token over rows from `first_row` on, all texts together."""
    total, rows = 0.0, 0
    for some in ids.split(max(1, LOGITS // ids.shape[1])):
        logits = _logits(model, some)[:, first_row:-1]
        wanted = some[:, first_row + 1 :].to(logits.device)
        total += float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum"))
        rows += wanted.numel()
    return total / rows


def _tokenizer(model: HookedModel) -> Any:
    if model.tokenizer is None:
        raise InputDataError("the tasks are written in a tokenizer's tokens, and this model came without one")
    return model.tokenizer
