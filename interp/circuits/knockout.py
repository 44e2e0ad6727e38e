"""Knock-out sweeps: cut the edges from some rows to some keys in a window of layers, and move the window through the model.

Geva et al. 2023 (arXiv 2304.14767): for each layer l the logits of the edges are -inf in the `window` layers around l (the rest of the row is
renormalised), and the probability of the answer is compared with the untouched model's; they take about 10 layers of 48. Where a cut hurts,
the rows read what the keys hold. The control cuts as many other keys, drawn from those that the rows see. All windows of a prompt are behind
each other in the batch (see `interp.circuits.cells`); the cut is a hidden rectangle of the mask, never N x N.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.capture.call import AttentionCall
from interp.circuits.cells import BATCH, TOKENS, copied
from interp.circuits.pairs import Pairs, labels_of, marked, paired
from interp.circuits.tables import circuit_result
from interp.errors import InputDataError, OptionError
from interp.interventions.effects import interval
from interp.interventions.readout import Readout
from interp.interventions.where import HeadEdit
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import Prompt

SOURCE = "attention knock-out; Geva et al. 2023 (arXiv 2304.14767)"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cut(HeadEdit):
    """Hides keys from rows, sequence by sequence.

    Attributes:
        rows: layer -> rows that are cut, bool [B, N].
        keys: bool [B, N].
    """

    rows: Mapping[int, Tensor]
    keys: Tensor
    selective: ClassVar[bool] = False

    def before(self, call: AttentionCall) -> AttentionCall:
        """One hidden rectangle for each sequence."""
        rows = self.rows[call.site.layer].to(call.q.device)
        return replace(call, mask=call.mask.hide(rows, self.keys.to(call.q.device)))


def knockout_sweep(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    keys: str,
    queries: str = "end",
    window: int = 9,
    draws: int = 2,
    seed: int = 0,
    batch: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Change of the answer's probability when the queries cannot see the keys in a window of layers around each layer.

    Args:
        model: a decoder.
        prompts: with the rows and key sets named; the first token of `answer` is judged.
        keys: name of a key set or row.
        queries: name of a row or key set; "end" is the last token.
        window: layers that are cut, around each layer; the windows at the ends are cut short.
        draws: sets of random other keys, at least 1. Position 0 is drawn too: cutting a sink is part of what any cut does.
        seed: of the draws and the intervals.
        batch: most sequences of one pass.
        progress: called with (sweeps done, sweeps).

    Returns:
        Result "circuits.knockout_sweep", one row per layer, head -1: score, mean over prompts of p(cut) / p - 1, -1 where the answer is
        lost; low and high, its bootstrap interval over prompts; spread over prompts; control, the mean of random keys; control_spread over prompts;
        logprob, the mean change of log p. Arrays: samples [prompt, layer], controls [draw, prompt, layer], probability [prompt].

    Raises:
        OptionError: names that a prompt does not have, a window below 1 or wider than the model, draws below 1.
        InputDataError: a prompt has fewer other keys than are cut.
    """
    labels_of(prompts, [keys, queries])
    if not 1 <= window <= model.layers or draws < 1:
        raise OptionError(f"wanted 1 <= window <= {model.layers} layers and draws >= 1; got {window} and {draws}")
    groups = paired(model, prompts, most=max(1, batch // model.layers), corrupt=False, wrong=False)
    readout = Readout(model)
    count = len(prompts)
    base, found = np.zeros(count), np.zeros((1 + draws, count, model.layers))
    done, total = 0, len(groups) * (1 + draws)
    for pairs in groups:
        numbers = list(pairs.numbers)
        rows, named = marked(pairs, queries), marked(pairs, keys)
        with torch.no_grad():
            base[numbers] = _logprob(readout, readout.states(pairs.clean), pairs.right)[0]
        for n in range(1 + draws):
            cut = named if n == 0 else _others(rows, named, [seed, n], numbers)
            found[n][numbers] = _sweep(readout, pairs, rows, cut, window=window, batch=batch).T
            done += 1
            if progress is not None:
                progress(done, total)
    change = np.exp(found - base[:, None]) - 1
    bounds = [interval(column, np.arange(count), seed=seed) for column in change[0].T]
    table = pd.DataFrame(
        {
            "layer": np.arange(model.layers),
            "head": -1,
            "score": change[0].mean(0),
            "spread": change[0].std(0, ddof=1) if count > 1 else np.nan,
            "control": change[1:].mean((0, 1)),
            "control_spread": change[1:].mean(0).std(0, ddof=1) if count > 1 else np.nan,
            "low": [low for low, _ in bounds],
            "high": [high for _, high in bounds],
            "logprob": (found[0] - base[:, None]).mean(0),
        }
    )
    settings = {"keys": keys, "queries": queries, "window": window, "draws": draws, "prompts": count}
    arrays = {"samples": change[0], "controls": change[1:], "probability": np.exp(base)}
    return circuit_result("knockout_sweep", model, table, arrays, source=SOURCE, settings=settings, seed=seed)


def span_of(layer: int, window: int, layers: int) -> range:
    """The layers of the window around one: `window` of them, the middle one (the upper of two) at `layer`, cut short at the ends."""
    first = layer - window // 2
    return range(max(0, first), min(layers, first + window))


@torch.no_grad()
def _sweep(
    readout: Readout, pairs: Pairs, rows: Tensor, keys: Tensor, *, window: int, batch: int
) -> NDArray[np.float64]:
    """Log-probability of the answer's first token with each window cut: [layer, P]."""
    model = readout.model
    sequences, tokens = pairs.clean.shape
    some = max(1, min(batch, TOKENS // tokens) // sequences)
    found = []
    for first in range(0, model.layers, some):
        centres = range(first, min(first + some, model.layers))
        spans = [span_of(layer, window, model.layers) for layer in centres]
        cut = {
            layer: torch.cat([rows if layer in span else torch.zeros_like(rows) for span in spans])
            for layer in sorted({layer for span in spans for layer in span})
        }
        edit = _Cut(rows=cut, keys=keys.repeat(len(spans), 1), layers=tuple(cut))
        with model.edit(edit), copied(model, min(cut), len(spans)):
            states = readout.states(pairs.clean)
        found.append(_logprob(readout, states, pairs.right))
    return np.concatenate(found)


def _logprob(readout: Readout, states: Tensor, right: Tensor) -> NDArray[np.float64]:
    """Log-probability of `right` [P] behind the last row of states [C * P, N, d]: [C, P]."""
    scores = readout.logits(states[:, -1]).double().log_softmax(-1)
    times = len(scores) // len(right)
    return scores.gather(1, right.to(scores.device).repeat(times)[:, None]).view(times, -1).cpu().numpy()


def _others(rows: Tensor, named: Tensor, seed: list[int], numbers: Sequence[int]) -> Tensor:
    """As many other keys for each prompt, of those that its last cut row sees and that are no such row themselves: bool [P, N]."""
    found = torch.zeros_like(named)
    for n, number in enumerate(numbers):
        last = int(torch.nonzero(rows[n])[-1])
        free = torch.nonzero(~rows[n, :last] & ~named[n, :last])[:, 0].numpy()
        wanted = int(named[n].sum())
        if len(free) < wanted:
            raise InputDataError(
                f"prompt {number} has {len(free)} other keys to cut for a control, and {wanted} are cut; name fewer keys"
            )
        found[n, np.random.default_rng([*seed, number]).choice(free, size=wanted, replace=False)] = True
    return found
