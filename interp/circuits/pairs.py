"""Prompts in clean and corrupted form, as tensors that share a pass, and the metric of all circuit tools: the difference of logits.

    LD = logit(answer[0]) - logit(wrong[0]) at the last token of the prompt

Effects are in units of the gap that the corruption makes, gap = mean over prompts of LD(clean) - LD(corrupt):

    denoise     (LD(patched) - LD(corrupt)) / gap    0 where patching does nothing, 1 where it restores the clean answer
    noise       (LD(patched) - LD(clean)) / gap      0 where patching does nothing, -1 where it does all that the corruption does
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import OptionError
from interp.interventions.answers import check_prompts
from interp.interventions.readout import Readout
from interp.models.hooked import HookedModel
from interp.tasks.prompt import Prompt

Direction = Literal["denoise", "noise"]
Positions = Literal["all", "each"] | Sequence[str]
"""Where to patch: every position together, each by itself, or rows and key sets of the prompts by name, each by itself."""
LEAST_GAP = 1e-6
"""Smallest gap, in logits, that effects are divided by."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Prompts of one length.

    Attributes:
        prompts: them.
        numbers: their places in what was given.
        clean: their ids, int64 [P, N].
        corrupt: ids of their corruptions, [P, N]; the clean ones where none was asked for.
        right: first token of the answer, [P].
        wrong: first token of the wrong answer, [P].
    """

    prompts: tuple[Prompt, ...]
    numbers: tuple[int, ...]
    clean: Tensor
    corrupt: Tensor
    right: Tensor
    wrong: Tensor

    def sides(self, direction: Direction) -> tuple[Tensor, Tensor]:
        """Ids of the run that is patched, and of the run that the patches come from."""
        return (self.corrupt, self.clean) if direction == "denoise" else (self.clean, self.corrupt)


def paired(
    model: HookedModel, prompts: Sequence[Prompt], *, most: int, corrupt: bool = True, wrong: bool = True
) -> list[Pairs]:
    """Prompts grouped by length, at most `most` in a group.

    Args:
        model: what they are given to.
        prompts: in any order.
        most: prompts of a group.
        corrupt: whether each must have a corruption.
        wrong: whether each must have a wrong answer whose first token is not the answer's; else `right` stands for it.

    Raises:
        OptionError: no prompts, one that is too long, or one that lacks what is wanted.
    """
    check_prompts(model, prompts)
    for n, p in enumerate(prompts):
        if corrupt and p.corrupt is None:
            raise OptionError(f"prompt {n} has no corruption to patch from; give prompts with `corrupt`")
        if wrong and (not p.wrong or p.wrong[0] == p.answer[0]):
            raise OptionError(f"prompt {n} has no wrong answer that begins otherwise, so it has no logit difference")
    lengths = [len(p.ids) for p in prompts]
    found = []
    for length in sorted(set(lengths)):
        equal = [n for n, other in enumerate(lengths) if other == length]
        found += [_pairs(model, prompts, equal[at : at + most]) for at in range(0, len(equal), most)]
    return found


def difference(readout: Readout, states: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
    """LD of the last row of states [B, N, d], float [B]; B may be a multiple of the tokens' [P], copies of all prompts behind each other."""
    logits = readout.logits(states[:, -1])
    times = len(logits) // len(right)
    right, wrong = (x.to(logits.device).repeat(times)[:, None] for x in (right, wrong))
    return (logits.gather(1, right) - logits.gather(1, wrong))[:, 0]


@torch.no_grad()
def baselines(readout: Readout, groups: Sequence[Pairs]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """LD of the clean and of the corrupted prompts, [prompt] each in the order they were given, and the mean gap.

    Raises:
        OptionError: there is no gap to measure effects by.
    """
    count = sum(len(pairs.numbers) for pairs in groups)
    clean, corrupt = np.zeros(count), np.zeros(count)
    for pairs in groups:
        for into, ids in ((clean, pairs.clean), (corrupt, pairs.corrupt)):
            found = difference(readout, readout.states(ids), pairs.right, pairs.wrong)
            into[list(pairs.numbers)] = found.double().cpu().numpy()
    gap = float((clean - corrupt).mean())
    if abs(gap) < LEAST_GAP:
        raise OptionError(
            f"the logit difference is {clean.mean():.4g} on clean and on corrupted prompts alike: the corruption takes nothing away that "
            "patching could bring back; give other prompts"
        )
    return clean, corrupt, gap


def check_direction(direction: str) -> None:
    """Raise OptionError for an unknown direction."""
    if direction not in get_args(Direction):
        raise OptionError(f"direction must be one of {', '.join(get_args(Direction))}; got {direction!r}")


def labels_of(prompts: Sequence[Prompt], positions: Positions) -> list[str]:
    """The names of the places to patch: "all", token positions as numbers, or the names given.

    Raises:
        OptionError: "each" for prompts of several lengths; a name that a prompt does not have.
    """
    if positions == "all":
        return ["all"]
    if positions == "each":
        lengths = {len(p.ids) for p in prompts}
        if len(lengths) > 1:
            raise OptionError(
                f"positions='each' needs prompts of one length, got {sorted(lengths)}; name rows or key sets instead"
            )
        return [str(n) for n in range(lengths.pop())]
    if isinstance(positions, str) or not positions:
        raise OptionError(f"positions must be 'all', 'each' or names of rows and key sets; got {positions!r}")
    for name in positions:
        for prompt in prompts:
            places(prompt, name)
    return list(positions)


def places(prompt: Prompt, label: str) -> list[int]:
    """Token positions of a prompt that a label names. Raises OptionError if there are none of that name within the prompt."""
    if label == "all":
        return list(range(len(prompt.ids)))
    if label.isdecimal():
        return [int(label)]
    if label in prompt.key_sets:
        return list(range(*prompt.key_sets[label]))
    found = [n for n in prompt.rows.get(label, ()) if n < len(prompt.ids)]
    if not found:
        known = sorted({*prompt.key_sets, *prompt.rows})
        raise OptionError(f"no position {label!r} in this prompt; there are: all, each, {', '.join(known)}")
    return found


def marked(pairs: Pairs, label: str) -> Tensor:
    """The positions of a label in each prompt of a group, bool [P, N]."""
    found = torch.zeros(pairs.clean.shape, dtype=torch.bool)
    for row, prompt in zip(found, pairs.prompts, strict=True):
        row[places(prompt, label)] = True
    return found


def _pairs(model: HookedModel, prompts: Sequence[Prompt], numbers: Sequence[int]) -> Pairs:
    some = tuple(prompts[n] for n in numbers)

    def tokens(rows: Sequence[Sequence[int] | int]) -> Tensor:
        return torch.tensor([list(row) if isinstance(row, Sequence) else row for row in rows], device=model.device)

    return Pairs(
        prompts=some,
        numbers=tuple(numbers),
        clean=tokens([p.ids for p in some]),
        corrupt=tokens([p.ids if p.corrupt is None else p.corrupt for p in some]),
        right=tokens([p.answer[0] for p in some]),
        wrong=tokens([p.wrong[0] if p.wrong else p.answer[0] for p in some]),
    )
