"""Prompts for tests, and the definition that gains are compared with: one head edited, one whole run, one prompt at a time, in float64."""

from __future__ import annotations

import numpy as np
import torch

from interp.calibration.tasks import CalibrationTask
from interp.tasks.prompt import Prompt

OPTIONS = "options"


def random_prompts(count, length, *, vocabulary=263, seed=0, options=5):
    """Random ordinary tokens with random options; the answer is the second option."""
    found = []
    for n in range(count):
        random = np.random.default_rng([seed, n])
        ids = tuple(random.integers(7, vocabulary, length).tolist())
        choices = tuple((7 + random.permutation(vocabulary - 7)[:options]).tolist())
        found.append(Prompt(ids=ids, answer=(choices[1],), choices={OPTIONS: choices}))
    return found


def copy_prompts(count, length, *, seed):
    """Distinct words of the planted models and one of them again: what followed it should follow, among five words that were there."""
    found = []
    for n in range(count):
        random = np.random.default_rng([seed, n])
        words = (1 + random.permutation(96)[:length]).tolist()
        at = int(random.integers(3, length - 2))
        others = [w for w in words[2:] if w != words[at + 1]]
        choices = (*random.choice(others, 4, replace=False).tolist(), words[at + 1])
        found.append(Prompt(ids=(*words, words[at]), answer=(words[at + 1],), choices={OPTIONS: choices}))
    return found


def copy_task(*, search=7, held_out=11):
    """A task of such prompts of two lengths."""
    sides = [
        (*copy_prompts(n, 23, seed=seed), *copy_prompts(n, 29, seed=seed + 1))
        for n, seed in ((search, 10), (held_out, 20))
    ]
    return CalibrationTask(name="copy", search=sides[0], held_out=sides[1], settings={"made": "by a test"})


@torch.no_grad()
def weaken(model, head, factor):
    """Multiply a head's queries: GPT-2's joint projection has them first."""
    attention = model.hf.transformer.h[head[0]].attn
    size = attention.head_dim
    mine = slice(head[1] * size, (head[1] + 1) * size)
    attention.c_attn.weight[:, mine] *= factor
    attention.c_attn.bias[mine] *= factor


def option_logprob(model, prompt, edits=()):
    """Log-probability of the right option among the options, by a whole run of one prompt; whether it is the largest."""
    if edits:
        with model.edit(*edits):
            return option_logprob(model, prompt)
    logits = model.run(list(prompt.ids), collect=[], keep="none", logits="last").logits.double().numpy()
    among = logits[list(prompt.choices[OPTIONS])]
    right = prompt.choices[OPTIONS].index(prompt.answer[0])
    return among[right] - np.log(np.exp(among - among.max()).sum()) - among.max(), bool(among.argmax() == right)
