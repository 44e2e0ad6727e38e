"""Attention rollout of one row in O(N) memory, beside the same rollout of attention without content, and with the sinks masked.

Rollout (Abnar and Zuidema 2020, arXiv 2005.00928): A_l = 0.5 mean_h P^h_l + 0.5 I, the product over layers. For one row the product is never
made: a row vector goes down through the layers, r <- 0.5 r + 0.5 / H sum_h sum_i r_i p^h_ij, which is one weighted column sum a layer.

Two things that a rollout must be shown beside, because in a causal decoder mass drifts to early tokens whatever a model does:

    control   the same with q = 0 in every head: uniform over what each row sees (position biases of the mask stay, a learned sink too); `ratio` is
              rollout / control
    masked    the keys of the sinks hidden and every row renormalised, and without learned sink logits; sinks dominate a plain rollout

Rollout ignores values, W_O, MLPs and norms: it says where weights lead, not what flows. A learned sink's share leaves the text (manifest: `kept`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import OptionError
from interp.explain.question import Call, Target, Text, ask, calls_of, weighted_columns
from interp.models.hooked import HookedModel
from interp.results import Result

SOURCE = "Abnar and Zuidema 2020 (arXiv 2005.00928)"


def rollout(
    model: HookedModel, prompt: Text, target: Target = None, *, sinks: Sequence[int] = (0,), stay: float = 0.5
) -> Result:
    """Attention rollout of the row that predicts the next token.

    Args:
        model, prompt, target: see `interp.explain.question.ask`; rollout does not depend on the target, which is recorded only.
        sinks: positions that are hidden for the masked rollout.
        stay: share of the residual stream in each layer (0.5 in the paper), in [0, 1).

    Returns:
        Result "explain.rollout", a row for each position: position, token, score (rollout), control (without content), ratio, masked;
        spread is NaN, layer and head are -1. Arrays: "by_layer" [layer, position], the row vector behind each layer (layer 0 is the score).

    Raises:
        OptionError: a share outside [0, 1), or sinks that hold the last token.
    """
    question = ask(model, prompt, target)
    if not 0.0 <= stay < 1.0:
        raise OptionError(f"stay is the share of the residual stream, in [0, 1); got {stay}")
    check_keys("sinks", sinks, question.row)
    calls = calls_of(model, question.ids)
    rolled = push(calls, question.row, stay)
    control = push({n: without_content(call) for n, call in calls.items()}, question.row, stay)[0]
    masked = push({n: without_keys(call, sinks) for n, call in calls.items()}, question.row, stay)[0]
    score, against, hidden = (x.double().cpu().numpy() for x in (rolled[0], control, masked))
    # A layer's own window can put positions out of reach of any row vector.
    ratio = np.divide(score, against, out=np.full_like(score, np.nan), where=against > 0)
    table = by_position(model, question.ids, score).assign(control=against, ratio=ratio, masked=hidden)
    manifest = model.manifest() | {
        "method": "rollout",
        "source": SOURCE,
        "question": question.record(model),
        "settings": {"stay": stay, "sinks": list(sinks), "control": "q = 0 in every head"},
        "kept": float(score.sum()),
        "note": "where weights lead, not what flows: values, MLPs and norms are ignored",
    }
    return Result(
        kind="explain.rollout", table=table, manifest=manifest, arrays={"by_layer": rolled.double().cpu().numpy()}
    )


@torch.no_grad()
def push(calls: Mapping[int, Call], row: int, stay: float = 0.5) -> Tensor:
    """The row vector of one position behind each layer, [layer, position]: from the last layer (e_row goes in) down to layer 0."""
    found: dict[int, Tensor] = {}
    first = next(iter(calls.values()))[1].lse
    r = torch.zeros(first.shape[2], dtype=first.dtype, device=first.device)
    r[row] = 1.0
    for layer in sorted(calls, reverse=True):
        call, attended = calls[layer]
        r = stay * r + (1 - stay) * weighted_columns(call, attended, r).mean(0).to(r)
        found[layer] = r
    return torch.stack([found[layer] for layer in sorted(found)])


@torch.no_grad()
def without_content(given: Call) -> Call:
    """The call with queries of 0, which look at all they see alike (but for position biases of the mask)."""
    blank = replace(given[0], q=torch.zeros_like(given[0].q), edit=None)
    return blank, blank.attend(None)


@torch.no_grad()
def without_keys(given: Call, keys: Sequence[int]) -> Call:
    """The call with some keys hidden from every row and no learned sink; rows are renormalised, and one that sees nothing is empty."""
    call = given[0]
    hidden = torch.zeros(call.keys, dtype=torch.bool, device=call.q.device)
    hidden[list(keys)] = True
    rows = torch.ones(call.queries, dtype=torch.bool, device=call.q.device)
    part = replace(call, mask=call.mask.hide(rows, hidden), sink_logits=None)
    return part, part.attend(None)


def check_keys(name: str, keys: Sequence[int], row: int) -> None:
    """Raise OptionError for positions that are not before the row."""
    if bad := [key for key in keys if not 0 <= key < row]:
        raise OptionError(f"{name}: wanted positions from 0 to {row - 1} (before the last token), got {bad}")


def by_position(model: HookedModel, ids: Sequence[int], score: NDArray[np.float64]) -> pd.DataFrame:
    """The table of a score of positions; control and spread NaN."""
    return pd.DataFrame(
        {
            "layer": -1,
            "head": -1,
            "position": np.arange(len(ids)),
            "token": model.tokens(list(ids)),
            "score": score,
            "spread": np.nan,
            "control": np.nan,
        }
    )
