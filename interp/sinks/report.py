"""`report`: every measurement of attention sinks on one model, with its controls, as one table of heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from interp.models.hooked import HookedModel
from interp.results import Result
from interp.sinks.alpha import EPSILONS, PAPER_EPSILON, alphas, sink_rates
from interp.sinks.detect import Form, hidden_sinks
from interp.sinks.hidden import (
    PHI_THRESHOLD,
    first_over_others,
    hidden_states,
    massive_activations,
    norms,
    phi,
    sink_dimensions,
)
from interp.tasks.corpus import corpus
from interp.tasks.sequences import SEQUENCES, SOURCES, TOKENS, sequences

STEPS = len(SOURCES) + 3
NO_OP_SINK_MASS = 0.8
NO_OP_OUTPUT = 0.5


def report(
    model: HookedModel,
    *,
    texts: Sequence[str] | None = None,
    tokens: int = TOKENS,
    count: int = SEQUENCES,
    long_tokens: int = 1024,
    form: Form = "paper",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Measure attention sinks on natural text, random tokens and repeated tokens.

    The score of a head is Sink_1 at eps = 0.3 on natural text: the share of sequences in which the mean attention on the first token
    exceeds 0.3 (Gu et al. 2025; T and the number of sequences as in the paper by default). `spread` is the standard deviation over
    sequences of alpha of the first token; `control` is the score on random tokens.

    Args:
        model: any hooked decoder.
        texts: natural texts; None takes the held-out documents of the project's corpus.
        tokens: T, tokens per sequence.
        count: sequences of each kind.
        long_tokens: length of the one long text on which hidden sinks, no-op heads, norms and massive activations are looked at.
        form: rule for sinks behind the first token, see `interp.sinks.detect`.
        seed: for all draws.
        progress: called with (steps done, steps in all).

    Returns:
        Result "sinks". Columns beside layer, head, score, spread, control: sink_rate_EPS for natural text at each eps, rate_random,
        rate_repeated, alpha_first, hidden_sinks (keys behind the first that pass the rule on the long text), first_mass and
        output_ratio (norm of z relative to the layer's median) on the long text, no_op (first_mass > 0.8 and output_ratio < 0.5),
        learned_sink (mass of a learned sink logit, NaN without one). Arrays: alpha_natural, alpha_random, alpha_repeated
        [sequence, layer, head, key]; phi [layer + 1, token]; residual_ratio, key_ratio, value_ratio [layer] (first token over the
        median of the others). The manifest holds Sink_1 of each kind at each eps, the sink dimensions, massive activations and the
        strongest hidden sinks.
    """
    say = progress or (lambda done, total: None)
    texts = default_texts() if texts is None else texts
    measured: dict[str, np.ndarray] = {}
    for step, source in enumerate(SOURCES):
        measured[source] = alphas(model, sequences(model, source, texts=texts, tokens=tokens, count=count, seed=seed))
        say(step + 1, STEPS)
    natural = sink_rates(measured["natural"])
    ids = sequences(model, "natural", texts=texts, tokens=long_tokens, count=1, seed=seed + 1)[0]
    run = model.run(
        ids, collect=["alpha", "first_token_mass", "output_norm", "learned_sink_mass"], keep="none", logits="none"
    )
    behind = hidden_sinks(run, form=form)
    say(len(SOURCES) + 1, STEPS)
    states = hidden_states(model, ids)
    dimensions = sink_dimensions(states)
    say(len(SOURCES) + 2, STEPS)
    sizes = norms(model, ids)
    say(STEPS, STEPS)

    first_mass = run.stats["first_token_mass"].nanmean(-1).numpy()
    output = run.stats["output_norm"].nanmean(-1).numpy()
    output_ratio = output / np.median(output, axis=1, keepdims=True)
    layers, heads = first_mass.shape
    counts = (
        behind.groupby(["layer", "head"])
        .size()
        .reindex(pd.MultiIndex.from_product([range(layers), range(heads)]), fill_value=0)
    )
    learned = run.stats.get("learned_sink_mass")
    columns = {
        "score": natural[PAPER_EPSILON],
        "spread": measured["natural"][..., 0].std(axis=0, ddof=1),
        "control": sink_rates(measured["random"])[PAPER_EPSILON],
        **{f"sink_rate_{eps}": natural[eps] for eps in EPSILONS},
        "rate_random": sink_rates(measured["random"])[PAPER_EPSILON],
        "rate_repeated": sink_rates(measured["repeated"])[PAPER_EPSILON],
        "alpha_first": measured["natural"][..., 0].mean(axis=0),
        "hidden_sinks": counts.to_numpy().reshape(layers, heads),
        "first_mass": first_mass,
        "output_ratio": output_ratio,
        "no_op": (first_mass > NO_OP_SINK_MASS) & (output_ratio < NO_OP_OUTPUT),
        "learned_sink": np.full((layers, heads), np.nan) if learned is None else learned.nanmean(-1).numpy(),
    }
    index = {"layer": np.repeat(np.arange(layers), heads), "head": np.tile(np.arange(heads), layers)}
    table = pd.DataFrame(index | {name: np.asarray(x).reshape(-1) for name, x in columns.items()})
    sink_tokens = phi(states, dimensions)
    manifest = model.manifest() | {
        "method": "sinks",
        "settings": {
            "tokens": tokens,
            "sequences": count,
            "long_tokens": long_tokens,
            "form": form,
            "bos": model.bos_record(None),
        },
        "seed": seed,
        "sink_1": {
            source: {str(eps): float(rate.mean()) for eps, rate in sink_rates(x).items()}
            for source, x in measured.items()
        },
        "sink_dimensions": dimensions,
        "tokens_with_phi_over_20": int((sink_tokens[2:-1].amax(0) > PHI_THRESHOLD).sum()),
        "massive_activations": massive_activations(states).head(50).to_dict("records"),
        "strongest_hidden_sinks": behind.head(20).to_dict("records"),
    }
    arrays = {f"alpha_{source}": x for source, x in measured.items()} | {
        "phi": sink_tokens.numpy(),
        **{f"{name}_ratio": first_over_others(sizes, name) for name in ("residual", "key", "value")},
    }
    return Result(kind="sinks", table=table, manifest=manifest, arrays=arrays)


def default_texts() -> list[str]:
    """The held-out documents of the project's corpus."""
    return [document.text for document in corpus("held_out")]
