"""What interventions do to a model: on texts, on answers, on generation; always beside matched controls, with spread and interval.

Every metric is a number per unit (a predicted token of a text, or a prompt) for the model as it is and for the edited one:

    texts        cross-entropy of the next token, nats; KL(base || edited), nats; whether both rank the same token first
    answers      the same KL and agreement over the answer's rows; log-probability of the answer, accuracy, difference of logits
    generation   whether the greedy continuation equals the base's, how far it does, whether it begins with the right answer

score is the mean of edited less base; low and high bound it (bootstrap over whole documents or prompts, 95 %). The control of an edit
of heads is the same edit on as many random other heads of the same layers (see `relocate`), drawn several times: control is the mean of its scores
and spread their standard deviation over draws. An edit that names no heads has no matched control of its own: give `controls=` (such as the
same bias on other keys), or the columns are NaN and the manifest says so. The base is whatever is in force where the function is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.capture.edits import Intervention
from interp.errors import OptionError
from interp.interventions.answers import (
    BATCH,
    Answerable,
    answer_states,
    check_prompts,
    equal_lengths,
    scores_of,
)
from interp.interventions.controls import random_heads
from interp.interventions.readout import Readout
from interp.interventions.relocate import edited_heads, moved
from interp.interventions.where import Head
from interp.models.hooked import HookedModel
from interp.results import Result

Values = NDArray[np.float64]
Controls = Sequence[Sequence[Intervention]]
RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class Metric:
    """One metric of every unit.

    Attributes:
        base: of the model as it is, [unit].
        edited: of the edited one, [unit].
    """

    base: Values
    edited: Values


Measured = dict[str, Metric]


def text_effects(
    model: HookedModel,
    edits: Sequence[Intervention],
    texts: Sequence[str] | Sequence[Sequence[int]],
    *,
    controls: Controls | None = None,
    draws: int = 5,
    seed: int = 0,
) -> Result:
    """What edits do to the prediction of texts. Keeps the base's last states: d numbers per token, never logits of a whole text.

    Args:
        model: a decoder.
        edits: as `model.edit` takes them.
        texts: texts, or token ids of texts, of at least two tokens each.
        controls: sets of edits to compare with; None moves the edits to random heads, `draws` times.
        draws: how often.
        seed: of the draws and the bootstrap.

    Returns:
        Result "interventions.text_effects", one row per metric: base, edited, score, low, high, control, spread, draws; layer and head are -1.
        Arrays: document, position and, for every predicted token, cross_entropy_change, kl and agrees; control_scores [metric, draw].

    Raises:
        OptionError: nothing to edit or to read, a text that is too short or too long, draws below 2, or no heads left for a control.
        EditError: as `HookedModel.edit`.
    """
    many = [torch.tensor(model.encode(t) if isinstance(t, str) else list(t)) for t in texts]
    for n, ids in enumerate(many):
        if len(ids) < 2 or (model.context_length is not None and len(ids) > model.context_length):
            raise OptionError(f"text {n} has {len(ids)} tokens; wanted 2 to {model.context_length or 'any number'}")
    if not many:
        raise OptionError("no texts given")
    readout = Readout(model)
    base = [_text_states(readout, ids) for ids in many]

    def measure() -> Measured:
        parts = [
            _compare(readout, kept, _text_states(readout, ids), ids[1:]) for ids, kept in zip(many, base, strict=True)
        ]
        return _joined(parts)

    documents = np.repeat(np.arange(len(many)), [len(ids) - 1 for ids in many])
    found, others = _conditions(model, edits, controls, measure, draws=draws, seed=seed)
    loss = found["cross-entropy"]
    arrays = {
        "document": documents,
        "position": np.concatenate([np.arange(1, len(ids)) for ids in many]),
        "cross_entropy_change": loss.edited - loss.base,
        "kl": found["KL(base || edited)"].edited,
        "agrees": found["top-1 agreement"].edited,
    }
    settings = {"texts": len(many), "tokens": int(sum(len(ids) for ids in many))}
    return _result("text_effects", model, edits, controls, (found, others), documents, settings, arrays, seed=seed)


def answer_effects(
    model: HookedModel,
    edits: Sequence[Intervention],
    prompts: Sequence[Answerable],
    *,
    choices: str | None = None,
    controls: Controls | None = None,
    draws: int = 5,
    seed: int = 0,
    batch: int = BATCH,
) -> Result:
    """What edits do to the answers of prompts (see `interp.interventions.answers.answer_scores` for accuracy and choices).

    Args:
        model, edits, controls, draws, seed: as `text_effects`.
        prompts: of a task, with answers.
        choices: name of the choices among which the next token is judged, None: greedy decoding of the answer.
        batch: most prompts of one pass.

    Returns:
        Result "interventions.answer_effects", as `text_effects`. Arrays: base and edited [metric, prompt]; control_scores [metric, draw].

    Raises:
        OptionError, EditError: as `text_effects` and `answer_scores`.
    """
    readout = Readout(model)
    base = answer_states(readout, prompts, batch=batch)
    before = scores_of(readout, prompts, base, choices=choices)

    def measure() -> Measured:
        states = answer_states(readout, prompts, batch=batch)
        after = scores_of(readout, prompts, states, choices=choices)
        found = {
            "log-probability of the answer": Metric(base=before.logprob, edited=after.logprob),
            "accuracy": Metric(base=before.correct.astype(np.float64), edited=after.correct.astype(np.float64)),
            "logit difference": Metric(base=before.logit_difference, edited=after.logit_difference),
        }
        rows = [
            _compare(readout, kept, mine, torch.tensor(p.answer))
            for p, kept, mine in zip(prompts, base, states, strict=True)
        ]
        for name in ("KL(base || edited)", "top-1 agreement"):
            sides = [np.array([getattr(row[name], side).mean() for row in rows]) for side in ("base", "edited")]
            found[name] = Metric(base=sides[0], edited=sides[1])
        return {name: m for name, m in found.items() if not np.isnan(m.base).all()}

    measured = _conditions(model, edits, controls, measure, draws=draws, seed=seed)
    settings = {"prompts": len(prompts), "choices": choices}
    return _result(
        "answer_effects", model, edits, controls, measured, np.arange(len(prompts)), settings, _sides(measured[0]), seed=seed
    )  # fmt: skip


def generation_effects(
    model: HookedModel,
    edits: Sequence[Intervention],
    prompts: Sequence[Answerable],
    *,
    steps: int,
    controls: Controls | None = None,
    draws: int = 5,
    seed: int = 0,
    batch: int = BATCH,
) -> Result:
    """What edits do to the greedy continuation of prompts, of `steps` tokens or up to the end token, with the cache.

    Args:
        model, edits, controls, draws, seed: as `text_effects`.
        prompts: of a task, with answers of at most `steps` tokens.
        steps: tokens to generate.
        batch: most prompts of one pass.

    Returns:
        Result "interventions.generation_effects", as `answer_effects`. "same as the base" and "shared with the base" (the share of the base's
        tokens before the first difference) are 1 for the base; "right answer" is whether the answer is generated first.

    Raises:
        OptionError, EditError: as `text_effects`.
    """
    check_prompts(model, prompts, steps=steps)
    if steps < max(len(p.answer) for p in prompts):
        raise OptionError(
            f"steps {steps} are fewer than the tokens of the longest answer, {max(len(p.answer) for p in prompts)}"
        )
    base = _greedy(model, prompts, steps, batch)
    ones = np.ones(len(prompts))

    def right(said: Sequence[tuple[int, ...]]) -> Values:
        return np.array([float(s[: len(p.answer)] == p.answer) for s, p in zip(said, prompts, strict=True)])

    def measure() -> Measured:
        said = _greedy(model, prompts, steps, batch)
        shared = [_shared(a, b) for a, b in zip(base, said, strict=True)]
        same = [float(a == b) for a, b in zip(base, said, strict=True)]
        return {
            "same as the base": Metric(base=ones, edited=np.array(same)),
            "shared with the base": Metric(base=ones, edited=np.array(shared)),
            "right answer": Metric(base=right(base), edited=right(said)),
        }

    measured = _conditions(model, edits, controls, measure, draws=draws, seed=seed)
    settings = {"prompts": len(prompts), "steps": steps}
    return _result(
        "generation_effects", model, edits, controls, measured, np.arange(len(prompts)), settings, _sides(measured[0]), seed=seed
    )  # fmt: skip


def interval(change: Values, cluster: NDArray[np.integer], *, seed: int) -> tuple[float, float]:
    """95 % interval of a mean over units by bootstrap over clusters (documents, prompts); NaN with fewer than two.

    Args:
        change: [unit].
        cluster: the cluster of each unit, [unit].
        seed: of the resamples.
    """
    _, at = np.unique(cluster, return_inverse=True)
    sums, counts = np.bincount(at, change), np.bincount(at)
    if len(counts) < 2:
        return np.nan, np.nan
    chosen = np.random.default_rng([seed, len(counts)]).integers(len(counts), size=(RESAMPLES, len(counts)))
    low, high = np.quantile(sums[chosen].sum(1) / counts[chosen].sum(1), [0.025, 0.975])
    return float(low), float(high)


# ------------------------------------------------------------------ conditions
def _conditions(
    model: HookedModel,
    edits: Sequence[Intervention],
    controls: Controls | None,
    measure: Callable[[], Measured],
    *,
    draws: int,
    seed: int,
) -> tuple[Measured, list[Measured]]:
    """The metrics under the edits, and under each control."""
    if not edits:
        raise OptionError("no edits given; name at least one intervention")
    if controls is None:
        heads = edited_heads(edits)
        if heads and draws < 2:
            raise OptionError(f"draws must be at least 2, for a spread; got {draws}")
        controls = [_control(edits, heads, model.heads, [seed, n]) for n in range(draws if heads else 0)]
    found = []
    for some in (edits, *controls):
        with model.edit(*some):
            found.append(measure())
    return found[0], found[1:]


def _control(edits: Sequence[Intervention], heads: Sequence[Head], width: int, seed: list[int]) -> list[Intervention]:
    others = random_heads(heads, width, np.random.default_rng(seed))
    places = dict(zip(sorted(heads), others, strict=True))
    return [moved(edit, places) for edit in edits]


# ------------------------------------------------------------------ measurements
@torch.no_grad()
def _text_states(readout: Readout, ids: Tensor) -> Tensor:
    """States that predict tokens 1, 2 ...: [N - 1, d]."""
    return readout.states(ids[None])[0, :-1].clone()


@torch.no_grad()
def _compare(readout: Readout, base: Tensor, edited: Tensor, wanted: Tensor) -> Measured:
    """Cross-entropy, KL and agreement of two sets of states [n, d] against the tokens that follow [n]."""
    losses, kls, agrees = [], [], []
    for (rows, p), (_, q) in zip(readout.log_probs(base), readout.log_probs(edited), strict=True):
        target = wanted[rows].to(p.device)[:, None]
        losses.append(-torch.stack([x.gather(1, target)[:, 0] for x in (p, q)]).double())
        # A token that both rule out has log-probability -inf twice, and adds nothing.
        kls.append((p.exp() * (p - q)).nan_to_num(nan=0.0).double().sum(-1).clamp(min=0.0))
        agrees.append((p.argmax(-1) == q.argmax(-1)).double())
    loss, kl, agree = torch.cat(losses, 1).cpu().numpy(), torch.cat(kls).cpu().numpy(), torch.cat(agrees).cpu().numpy()
    return {
        "cross-entropy": Metric(base=loss[0], edited=loss[1]),
        "KL(base || edited)": Metric(base=np.zeros_like(kl), edited=kl),
        "top-1 agreement": Metric(base=np.ones_like(agree), edited=agree),
    }


def _greedy(model: HookedModel, prompts: Sequence[Answerable], steps: int, batch: int) -> list[tuple[int, ...]]:
    """Greedy continuations, each up to its end token (included)."""
    found: dict[int, tuple[int, ...]] = {}
    config = model.hf.generation_config
    ends = getattr(config, "eos_token_id", None)
    ends = set(ends) if isinstance(ends, list) else {ends}
    for some in equal_lengths(prompts, batch):
        whole = model.generate(
            [list(prompts[i].ids) for i in some],
            max_new_tokens=steps,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
        )
        for i, ids in zip(some, whole, strict=True):
            said = ids[len(prompts[i].ids) :].tolist()
            stop = next((n + 1 for n, token in enumerate(said) if token in ends), len(said))
            found[i] = tuple(said[:stop])
    return [found[i] for i in range(len(prompts))]


def _shared(base: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Share of the base's tokens before the first difference."""
    pairs = zip(base, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(base), len(other))) / len(base)


# ------------------------------------------------------------------ results
def _joined(parts: Sequence[Measured]) -> Measured:
    return {
        name: Metric(
            base=np.concatenate([part[name].base for part in parts]),
            edited=np.concatenate([part[name].edited for part in parts]),
        )
        for name in parts[0]
    }


def _sides(found: Measured) -> dict[str, NDArray[Any]]:
    return {side: np.stack([getattr(m, side) for m in found.values()]) for side in ("base", "edited")}


def _result(
    name: str,
    model: HookedModel,
    edits: Sequence[Intervention],
    controls: Controls | None,
    measured: tuple[Measured, list[Measured]],
    clusters: NDArray[np.integer],
    settings: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    *,
    seed: int,
) -> Result:
    found, others = measured
    rows, scores = [], []
    for metric, m in found.items():
        known = ~np.isnan(m.edited - m.base)
        change = (m.edited - m.base)[known]
        low, high = interval(change, clusters[known], seed=seed)
        beside = np.array([np.nanmean(x[metric].edited - x[metric].base) for x in others])
        scores.append(beside)
        rows.append(
            {
                "layer": -1,
                "head": -1,
                "score": change.mean(),
                "spread": beside.std(ddof=1) if len(beside) > 1 else np.nan,
                "control": beside.mean() if len(beside) else np.nan,
                "metric": metric,
                "base": m.base[known].mean(),
                "edited": m.edited[known].mean(),
                "low": low,
                "high": high,
                "units": int(known.sum()),
                "draws": len(others),
            }
        )
    how = "given" if controls is not None else "the same edits on random heads of the same layers"
    manifest = model.manifest() | {
        "method": name,
        "edits": [edit.name for edit in edits],
        "controls": how if others else "none: the edits name no heads, and no controls were given",
        "settings": {**settings, "draws": len(others)},
        "seed": seed,
    }
    return Result(
        kind=f"interventions.{name}",
        table=pd.DataFrame(rows),
        manifest=manifest,
        arrays={**arrays, "control_scores": np.stack(scores)},
    )
