"""The parts of a report: which analyses there are, how each is asked, and which columns it gives to the wide table.

A part gives one result or several (those measured in the same passes). Its settings are all that its numbers depend on beside the model: a
kept result is used again when they agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd

from interp.errors import InputDataError
from interp.heads.copying import copying
from interp.heads.features import FEATURES, features
from interp.heads.flexprefill import flexprefill
from interp.heads.patterns import patterns
from interp.heads.positional import positional
from interp.heads.positional_text import positional_text
from interp.heads.qrhead import qrhead
from interp.heads.retrieval import STEPS, retrieval
from interp.heads.streaming import streaming
from interp.heads.succession_attention import succession_attention
from interp.heads.successor import successor
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.sinks.report import report as sink_report
from interp.tasks import needle

Say = Callable[[int, int], None]
Results = dict[str, Result]
SHORTEST = 256
"""Least length of a needle prompt that a report asks for."""
DEPTHS = (0.1, 0.5, 0.9)
FEATURE_SAMPLES = 2


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a report is asked for.

    Attributes:
        tokens: length of the long inputs.
        samples: random sequences and pieces of text of the analyses that average over them.
        seed: of everything drawn.
    """

    tokens: int
    samples: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a report.

    Attributes:
        name: of the part, for progress and the manifest.
        gives: names of its results; each is kept in a folder of that name.
        measure: runs it.
        depends: fields of the plan that its numbers depend on.
        columns: result -> columns of the wide table beside score, spread and control: new name -> column of the result.
    """

    name: str
    gives: tuple[str, ...]
    measure: Callable[[HookedModel, Plan, Say], Results]
    depends: tuple[str, ...] = ("seed",)
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def settings(self, plan: Plan) -> dict[str, int]:
        """What a kept result must have been measured with to be used again."""
        return {name: value for name, value in vars(plan).items() if name in self.depends}


def wide_columns(part: Part, name: str, result: Result) -> dict[str, pd.Series]:
    """The columns that a result gives to the wide table, indexed by (layer, head): NAME, NAME_spread, NAME_control, and those named."""
    rows: Any = result.table.set_index(["layer", "head"])
    found = {name: rows["score"], f"{name}_spread": rows["spread"], f"{name}_control": rows["control"]}
    return found | {new: rows[old] for new, old in part.columns.get(name, {}).items() if old in rows.columns}


def _random_tokens(model: HookedModel, plan: Plan, say: Say) -> Results:
    found = positional(model, samples=plan.samples, seed=plan.seed, progress=say)
    return {
        "previous_token": found["previous"],
        "duplicate_token": found["duplicate"],
        "induction": found["induction"],
    }


def _real_text(model: HookedModel, plan: Plan, say: Say) -> Results:
    found = positional_text(model, tokens=plan.tokens, samples=plan.samples, seed=plan.seed, progress=say)
    return {
        "previous_token_text": found["previous"],
        "duplicate_token_text": found["duplicate"],
        "induction_text": found["induction"],
    }


def _features(model: HookedModel, plan: Plan, say: Say) -> Results:
    return {"features": features(model, tokens=plan.tokens, samples=FEATURE_SAMPLES, seed=plan.seed, progress=say)}


def _retrieval(model: HookedModel, plan: Plan, say: Say) -> Results:
    prompts = needle.prompts(_tokenizer(model), lengths=_retrieval_lengths(model, plan), depths=DEPTHS, seed=plan.seed)
    return {"retrieval": retrieval(model, prompts, seed=plan.seed, progress=say)}


def _sinks(model: HookedModel, plan: Plan, say: Say) -> Results:
    found = sink_report(model, long_tokens=min(plan.tokens, 1024), seed=plan.seed, progress=say)
    # the label's quantity is the mean attention itself; the share of sequences above a threshold stays in the kept result
    first = {name: found.arrays[f"alpha_{name}"][..., 0].astype(np.float64) for name in ("natural", "random")}
    table = found.table.assign(
        first_token=first["natural"].mean(0).reshape(-1),
        first_token_spread=first["natural"].std(0, ddof=1).reshape(-1),
        first_token_control=first["random"].mean(0).reshape(-1),
    )
    return {"sink_rate": Result(kind=found.kind, table=table, manifest=found.manifest, arrays=found.arrays)}


def _retrieval_lengths(model: HookedModel, plan: Plan) -> list[int]:
    """Lengths of needle prompts: a quarter, half and all of `tokens`, less where the answer would not fit into the context."""
    room = plan.tokens if model.context_length is None else min(plan.tokens, model.context_length - STEPS)
    return sorted({min(room, max(SHORTEST, plan.tokens // part)) for part in (4, 2, 1)})


def _tokenizer(model: HookedModel) -> Any:
    if model.tokenizer is None:
        raise InputDataError("it is written in text, and this model came without a tokenizer")
    return model.tokenizer


PARTS: Final = (
    Part(
        name="copying",
        gives=("copying",),
        measure=lambda model, plan, say: {"copying": copying(model, seed=plan.seed, progress=say)},
        columns={"copying": {"suppression": "suppression", "ov_eigenvalues": "eigenvalues"}},
    ),
    Part(
        name="successor",
        gives=("successor",),
        measure=lambda model, plan, say: {"successor": successor(model, seed=plan.seed, progress=say)},
        columns={"successor": {"successor_tasks": "tasks_above", "sends_to_itself": "itself"}},
    ),
    Part(
        name="random tokens",
        gives=("previous_token", "duplicate_token", "induction"),
        measure=_random_tokens,
        depends=("seed", "samples"),
    ),
    Part(
        name="succession attention",
        gives=("succession_attention",),
        measure=lambda model, plan, say: {
            "succession_attention": succession_attention(model, seed=plan.seed, progress=say)
        },
    ),
    Part(
        name="sinks",
        gives=("sink_rate",),
        measure=_sinks,
        depends=("seed", "tokens"),
        columns={
            "sink_rate": {
                **{name: name for name in ("first_token", "first_token_spread", "first_token_control")},
                **{name: name for name in ("hidden_sinks", "output_ratio", "no_op", "learned_sink")},
            }
        },
    ),
    Part(
        name="features",
        gives=("features",),
        measure=_features,
        depends=("seed", "tokens"),
        columns={"features": {name: name for name in FEATURES}},
    ),
    Part(
        name="real text",
        gives=("previous_token_text", "duplicate_token_text", "induction_text"),
        measure=_real_text,
        depends=("seed", "tokens", "samples"),
    ),
    Part(
        name="qrhead",
        gives=("qrhead",),
        measure=lambda model, plan, say: {"qrhead": qrhead(model, seed=plan.seed, progress=say)},
        columns={"qrhead": {"qrhead_first": "first"}},
    ),
    Part(
        name="flexprefill",
        gives=("flexprefill",),
        measure=lambda model, plan, say: {
            "flexprefill": flexprefill(model, tokens=plan.tokens, seed=plan.seed, progress=say)
        },
        depends=("seed", "tokens"),
        columns={"flexprefill": {"flexprefill_pattern": "pattern", "flexprefill_computed": "computed"}},
    ),
    Part(
        name="patterns",
        gives=("patterns",),
        measure=lambda model, plan, say: {
            "patterns": patterns(model, tokens=plan.tokens, seed=plan.seed, progress=say)
        },
        depends=("seed", "tokens"),
        columns={
            "patterns": {"pattern": "label", "pattern_budget": "budget"}
            | {name: name for name in ("recall_a_shape", "recall_vertical_slash", "recall_block_sparse")}
        },
    ),
    Part(
        name="streaming",
        gives=("streaming_mass",),
        measure=lambda model, plan, say: {
            "streaming_mass": streaming(model, tokens=plan.tokens, seed=plan.seed, progress=say)
        },
        depends=("seed", "tokens"),
        columns={
            "streaming_mass": {
                "kv_head": "kv_head",
                "streaming_output": "output",
                "streaming_output_control": "output_control",
            }
        },
    ),
    Part(
        name="streaming gradient",
        gives=("streaming_gradient",),
        measure=lambda model, plan, say: {
            "streaming_gradient": streaming(
                model, form="gradient", tokens=min(plan.tokens, 1024), seed=plan.seed, progress=say
            )
        },
        depends=("seed", "tokens"),
    ),
    Part(
        name="retrieval",
        gives=("retrieval",),
        measure=_retrieval,
        depends=("seed", "tokens"),
        columns={"retrieval": {"retrieval_active": "active"}},
    ),
)
"""Every part, the quick ones first."""
