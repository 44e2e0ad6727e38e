"""DuoAttention's deployment, measured: some key-value heads stream, and their old keys really leave the cache (arXiv 2410.10819, section 2.3).

    streaming heads   the `share` of key-value heads that need full attention least (`streaming_heads`; for other scores the lowest ones),
                      under `Streaming(sinks, window)` in prefill and in decode, with the evicting cache of `interp.interventions`
    full              the model as it is, with an ordinary cache
    random            as many key-value heads of each layer, drawn freely (a layer of which all stream leaves no choice: see `same`)
    all               every head streams: what the share saves at most, and costs

Measured: needle recall (greedy answers, one prompt at a time, because the evicting cache holds one text), loss and perplexity of natural text
(one prefill), and the bytes of keys and values that the cache holds behind the last answered prompt. Bytes are of the cache between steps;
while a layer attends, its keys are laid out at full length, so this is no measure of peak memory or of speed.

Heads are key-value heads: under grouped queries a key can be dropped only if all its query heads stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import DynamicCache

from interp.errors import InputDataError, OptionError
from interp.heads.confirm_tasks import STEPS, text_task
from interp.heads.duo_mixing import check_sizes, key_heads, own_windows
from interp.heads.streaming import SPARSITY, Group, streaming_heads
from interp.heads.tables import named
from interp.interventions.streaming import Streaming
from interp.interventions.streaming_cache import cache_bytes, streaming_cache
from interp.interventions.where import Head
from interp.ledger import Ledger
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks import needle
from interp.tasks.prompt import Prompt, generator

METRICS = ("needle recall", "needle accepted", "loss on text", "perplexity", "cache bytes")
LEDGER = "deployment.json"


def deployment(
    model: HookedModel,
    result: Result,
    *,
    share: float = SPARSITY,
    sinks: int = 16,
    window: int = 64,
    group: Group = "mean",
    prompts: Sequence[Prompt] | None = None,
    length: int = 1024,
    texts: Sequence[str] | None = None,
    text_tokens: int = 1024,
    text_samples: int = 4,
    draws: int = 5,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Deploy streaming heads, and measure recall, perplexity and cache beside full attention and random heads.

    Args:
        model: a causal decoder with a tokenizer.
        result: scores of its heads. "heads.streaming" by its own rule; any other, as "heads.retrieval": high needs full attention.
        share: of key-value heads that stream, in (0, 1).
        sinks, window: what a streaming head sees (the paper deploys 64 and 256).
        group: how query heads that share a key-value head are joined, see `interp.heads.streaming_heads`.
        prompts: needle prompts with meta "answer"; None hides 8 needles at depths 0.1, 0.5 and 0.9 in `length` tokens.
        length: of the default prompts.
        texts: natural texts for the loss; None takes the held-out documents of the project's corpus.
        text_tokens, text_samples: pieces of them.
        draws: random sets, at least 2.
        seed: of prompts, pieces and sets.
        folder: keeps finished evaluations, so that the same call goes on where it was interrupted.
        progress: called with (evaluations done, evaluations).

    Returns:
        Result "heads.deployment", a row for each metric: metric, base (full attention), score (streaming heads), control and spread (mean and
        standard deviation over random sets), everything (all heads stream), better ("higher" or "lower"); layer and head are -1. Arrays: "random"
        [draw, metric]; "streaming" [layer, key-value head] bool. The manifest names the heads and `same`, the mean share of them in a
        random set.

    Raises:
        OptionError: a share, sizes or scores that do not fit, prompts or texts too short to lose a key, or fewer than two draws.
        InputDataError: a model without a tokenizer.
    """
    check_sizes(sinks, window)
    if model.tokenizer is None:
        raise InputDataError("needles are text, and this model came without a tokenizer")
    if not 0 < share < 1 or draws < 2:
        raise OptionError(f"wanted a share between 0 and 1 and draws >= 2, got {share} and {draws}")
    groups = key_heads(model)
    chosen = deployed(result, share, group=group, shape=(model.layers, groups))
    given = (
        list(prompts)
        if prompts is not None
        else needle.prompts(model.tokenizer, lengths=(length,), depths=(0.1, 0.5, 0.9), seed=seed)
    )
    _check_lengths(model, given, text_tokens, sinks + window)
    text = text_task(model, texts=texts, tokens=text_tokens, samples=text_samples, seed=seed)
    settings = {
        "share": share, "sinks": sinks, "window": window, "group": group, "key_value_heads": groups, "prompts": len(given),
        "prompt_tokens": sorted({len(p.ids) for p in given}), "own_prompts": prompts is not None, "steps": STEPS, "text": dict(text.settings),
    }  # fmt: skip
    record = {
        "model": model.manifest()["model"], "dtype": str(model.dtype), "settings": settings, "streaming": chosen, "seed": seed,
        "prompts": [p.ids for p in given] if prompts is not None else None,
    }  # fmt: skip
    ledger = Ledger(None if folder is None else Path(folder) / LEDGER, record)
    random = [_as_many(chosen, groups, generator(seed, 1000 + n)) for n in range(draws)]
    every = [(layer, kv) for layer in range(model.layers) for kv in range(groups)]
    local = [layer for layer, own in own_windows(model).items() if own is not None]
    plans = {"full": None, "streaming": chosen, "everything": every} | {f"random {n}": x for n, x in enumerate(random)}
    found: dict[str, dict[str, float]] = {}
    for n, (name, heads) in enumerate(plans.items()):
        edit = None if heads is None else _edit(model, heads, groups, sinks, window, local)

        def measure(edit: Streaming | None = edit) -> dict[str, float]:
            recall = _needle(model, given, edit)
            if edit is None:
                loss = text.measure(model)["loss on text"]
            else:
                with model.edit(edit):
                    loss = text.measure(model)["loss on text"]
            return recall | {"loss on text": loss, "perplexity": float(np.exp(loss))}

        found[name] = dict(ledger.get(name, measure))
        if progress is not None:
            progress(n + 1, len(plans))
    drawn = np.array([[found[f"random {n}"][metric] for metric in METRICS] for n in range(draws)])
    rows: list[dict[str, Any]] = []
    for m, metric in enumerate(METRICS):
        rows.append(
            {
                "layer": -1,
                "head": -1,
                "metric": metric,
                "score": found["streaming"][metric],
                "spread": drawn[:, m].std(ddof=1),
                "control": drawn[:, m].mean(),
                "base": found["full"][metric],
                "everything": found["everything"][metric],
                "better": "higher" if metric.startswith("needle") else "lower",
            }
        )
    streams = np.zeros((model.layers, groups), dtype=np.bool_)
    streams[tuple(np.array(chosen).T)] = True
    manifest = model.manifest() | {
        "method": "deployment",
        "source": "DuoAttention (arXiv 2410.10819), section 2.3",
        "settings": settings | {"draws": draws, "scores": result.kind},
        "seed": seed,
        "heads": [f"{layer}.{kv}" for layer, kv in chosen],
        "same": float(np.mean([len(set(x) & set(chosen)) / len(chosen) for x in random])),
        "passed_over": {"layers with a window of their own": local},
    }
    return Result(
        kind="heads.deployment",
        table=pd.DataFrame(rows),
        manifest=manifest,
        arrays={"random": drawn, "streaming": streams},
    )


def deployed(result: Result, share: float, *, group: Group, shape: tuple[int, int]) -> list[Head]:
    """The (layer, key-value head) pairs that stream, sorted.

    Args:
        result: see `deployment`.
        share: of the key-value heads that have a score.
        group: "mean", or "worst", the query head that needs full attention most.
        shape: layers and key-value heads of the model.

    Raises:
        OptionError: scores of another model, or a share that leaves no head or all of them.
    """
    named("group", group, ("mean", "worst"))
    layers, groups = shape
    if result.kind == "heads.streaming":
        chosen = streaming_heads(result, share, group=group)
        count = layers * groups
    else:
        table: Any = result.table
        width = int(table["head"].max()) + 1
        whole = len(table) == layers * width and not table.duplicated(["layer", "head"]).any()
        if table["layer"].max() + 1 != layers or width % groups or not whole:
            raise OptionError(
                f"the scores are of {int(table['layer'].max()) + 1} layers x {width} heads, and the model has {layers} layers x {groups} "
                "key-value heads; give one score for each of its query heads"
            )
        # Rows by (layer, head), so that equal heads of a group lie side by side.
        need = table.sort_values(["layer", "head"])["score"].to_numpy(dtype=np.float64).reshape(layers, groups, -1)
        need = need.mean(-1) if group == "mean" else need.max(-1)
        places = sorted((float(x), layer, kv) for (layer, kv), x in np.ndenumerate(need) if not np.isnan(x))
        count = len(places)
        chosen = sorted((layer, kv) for _, layer, kv in places[: round(share * count)])
    if not chosen or len(chosen) == count or any(layer >= layers or kv >= groups for layer, kv in chosen):
        raise OptionError(
            f"a share of {share:g} makes {len(chosen)} of {count} key-value heads stream, and the model has {layers} layers x {groups}; "
            "give scores of this model and a share that leaves some of both"
        )
    return chosen


def _as_many(chosen: Sequence[Head], groups: int, draw: np.random.Generator) -> list[Head]:
    """As many key-value heads of each layer, any of them."""
    found: list[Head] = []
    for layer in sorted({layer for layer, _ in chosen}):
        count = sum(at == layer for at, _ in chosen)
        found += [(layer, int(kv)) for kv in np.sort(draw.choice(groups, size=count, replace=False))]
    return found


def _edit(
    model: HookedModel, heads: Sequence[Head], groups: int, sinks: int, window: int, local: Sequence[int]
) -> Streaming:
    """The intervention on the query heads of some key-value heads; layers with a window of their own stream already."""
    each = model.heads // groups
    queries = [(layer, kv * each + n) for layer, kv in heads if layer not in local for n in range(each)]
    if not queries:
        raise OptionError("every head that should stream lies in a layer with a window of its own: nothing is deployed")
    return Streaming(heads=tuple(queries), sinks=sinks, window=window)


@torch.no_grad()
def _needle(model: HookedModel, prompts: Sequence[Prompt], edit: Streaming | None) -> dict[str, float]:
    """Recall of greedy answers with the cache of the deployment, and the bytes it holds behind the longest."""
    recalls, accepted, held = [], [], 0
    for prompt in prompts:
        if edit is None:
            cache = DynamicCache(config=model.hf.config)
            whole = _answer(model, prompt, cache)
        else:
            cache = streaming_cache(model, edit)
            with model.edit(edit):
                whole = _answer(model, prompt, cache)
        tokenizer: Any = model.tokenizer
        said = str(tokenizer.decode(whole[len(prompt.ids) :], skip_special_tokens=True)).lstrip().partition("\n")[0]
        recalls.append(needle.rouge1_recall(str(prompt.meta["answer"]), said))
        accepted.append(needle.accepted(prompt, said))
        held = max(held, cache_bytes(cache))
    return {
        "needle recall": float(np.mean(recalls)),
        "needle accepted": float(np.mean(accepted)),
        "cache bytes": float(held),
    }


def _answer(model: HookedModel, prompt: Prompt, cache: Any) -> list[int]:
    # No end token: every answer has the same number of steps, so that caches are compared at one length.
    whole = model.generate(
        [list(prompt.ids)],
        past_key_values=cache,
        max_new_tokens=STEPS,
        min_new_tokens=STEPS,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
    )
    return whole[0].tolist()


def _check_lengths(model: HookedModel, prompts: Sequence[Prompt], text_tokens: int, seen: int) -> None:
    if not prompts or any(not prompt.meta.get("answer") for prompt in prompts):
        raise InputDataError('wanted prompts with meta "answer", the text by which an answer is judged')
    shortest, longest = min(len(p.ids) for p in prompts), max(len(p.ids) for p in prompts) + STEPS
    if min(shortest, text_tokens) <= seen:
        raise OptionError(
            f"sinks and window keep {seen} keys, and the shortest prompt or text has {min(shortest, text_tokens)}: nothing would be dropped; "
            "give longer ones or smaller sizes"
        )
    if model.context_length is not None and max(longest, text_tokens) > model.context_length:
        raise OptionError(
            f"prompts with answers take {longest} tokens and texts {text_tokens}, and the model reads {model.context_length}"
        )
