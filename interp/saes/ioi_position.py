"""The positional signal of indirect object identification: does a layer tell which name is repeated by where it stood?

Kissane et al. 2024 (section 4.4) found in GPT-2 small that what attention adds at S2 says "the repeated name came before (after) ' and'", and
hardly which name it was. Two tests, both on the difference of logits LD = right name - repeated name:

`ioi_position`   z of some layers at S2 is replaced by that of another prompt at its S2, everything else as it was:

    same order           other names in the same places                           position agrees, names do not
    same order, prefixed the same behind one more sentence                        position in the text differs, order agrees
    same order, reworded the same with ' and' between the names replaced          what order is counted from is gone
    other order          other names, the repeated one where the other stood      position contradicts
    not repeated         three different names                                    nothing is repeated
    zero                 z set to 0

kept = mean LD with the patch / mean LD without. A positional signal is kept by the first two, lost by the others, and turned over by "other
order". control: z of the same layers taken from the same source, but at the token in front of S2. `zero` is the reference to read the rest
against: where it keeps everything, these layers carry nothing (the released script's own zero reference has its branch inverted).

`ioi_features`   the features of an autoencoder that fire at S2, each set to 0 there with the error kept, ranked by the change of LD.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import InputDataError, OptionError
from interp.interventions.answers import answer_states, scores_of
from interp.interventions.readout import Readout
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.saes.core import SAE
from interp.saes.dfa import text_layers
from interp.saes.interventions import AblateFeatures
from interp.saes.splice import ReplaceOutputs
from interp.tasks.prompt import Prompt, generator
from interp.tasks.vocabulary import Tokenizer, plain_ids, single_token
from interp.tasks.wordlists import words

SOURCE = "positional signal of IOI; Kissane et al. 2024 (arXiv 2406.17759)"
VERSIONS: Final = ("same order", "same order, prefixed", "same order, reworded", "other order", "not repeated", "zero")
SENTENCE = "It was a quiet day in the town, and nothing had happened since the morning."
JOINED, REWORDED = " and", " alongside"
RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Source:
    """A prompt whose z is taken: its ids and where its S2 stands."""

    ids: tuple[int, ...]
    at: int


def ioi_position(
    model: HookedModel,
    prompts: Sequence[Prompt],
    layers: Sequence[int],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Patch z of some layers at S2 from prompts that share its order of names, or do not.

    Args:
        model: a decoder with a tokenizer.
        prompts: of `interp.tasks.ioi`.
        layers: patched together.
        seed: of the other names, and of the resamples.
        progress: called with (prompts done, prompts).

    Returns:
        Result "saes.ioi_position", one row per version, layer and head -1: score, the share of LD kept; spread, its standard deviation over
        resampled prompts; control, the same share with the token in front of S2; version; logit_difference, the mean with the patch;
        prompts, how many have that version (reworded: those with ' and' between the names). manifest["clean"]: mean LD without a patch.
        Arrays: logit_difference [version, prompt], control likewise (NaN where there is none), clean [prompt].

    Raises:
        OptionError: no prompts, prompts of another task, or layers that do not exist.
        InputDataError: no tokenizer, or too few names of one token.
    """
    tokenizer, readout = _checked(model, prompts), Readout(model)
    chosen = sorted(set(layers))
    if not chosen or not 0 <= chosen[0] <= chosen[-1] < model.layers:
        raise OptionError(f"layers: wanted numbers from 0 to {model.layers - 1}, got {list(layers)}")
    clean = np.array([_difference(readout, p) for p in prompts])
    found = np.full((2, len(VERSIONS), len(prompts)), np.nan)
    for n, prompt in enumerate(prompts):
        at = prompt.key_sets["S2"][0]
        for v, source in enumerate(_sources(tokenizer, prompt, generator(seed, n))):
            if source is None:
                continue
            given = None if VERSIONS[v] == "zero" else text_layers(model, source.ids, chosen)
            for k, shift in enumerate((0, -1)):
                rows = {x: None if given is None else given[x].flat[source.at + shift] for x in chosen}
                with model.edit(*(_patch(x, at + shift, row) for x, row in rows.items())):
                    found[k, v, n] = _difference(readout, prompt)
        if progress is not None:
            progress(n + 1, len(prompts))
    rows = [_row(version, found[:, v], clean, seed) for v, version in enumerate(VERSIONS)]
    manifest = model.manifest() | {
        "method": "ioi_position",
        "source": SOURCE,
        "settings": {"layers": chosen, "prompts": len(prompts)},
        "seed": seed,
        "clean": float(clean.mean()),
    }
    arrays = {"logit_difference": found[0], "control": found[1], "clean": clean}
    return Result(kind="saes.ioi_position", table=pd.DataFrame(rows), manifest=manifest, arrays=arrays)


@torch.no_grad()
def ioi_features(
    model: HookedModel,
    sae: SAE,
    layer: int,
    prompts: Sequence[Prompt],
    *,
    least: float = 0.25,
    most: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Set each feature that fires at S2 to 0 there, the autoencoder's error kept, and rank by what the logits lose.

    Args:
        model: a decoder with a tokenizer.
        sae: of z of one of its layers.
        layer: which.
        prompts: of `interp.tasks.ioi`, both orders.
        least: share of prompts at whose S2 a feature fires, for it to be tried.
        most: features tried, those with the largest mean value.
        progress: called with (features done, features).

    Returns:
        Result "saes.ioi_features", one row per feature, head -1: score, mean of LD clean - LD ablated (above 0: the feature helps); spread
        over prompts; control, the same feature ablated at the token in front of S2; feature; live, share of prompts where it fires at S2; ABBA and
        BABA, its mean value at S2 by the order of names: a positional feature has one of them.

    Raises:
        OptionError: no prompts, prompts of another task, or no feature fires often enough.
    """
    _checked(model, prompts)
    readout = Readout(model)
    at = [p.key_sets["S2"][0] for p in prompts]
    z = [text_layers(model, p.ids, [layer])[layer].flat[s] for p, s in zip(prompts, at, strict=True)]
    codes = sae.encode(torch.stack(z)).double()
    live = (codes > 0).double().mean(0)
    tried = [int(f) for f in codes.mean(0).argsort(descending=True) if live[f] >= least][:most]
    if not tried:
        raise OptionError(f"no feature fires at S2 of {least:.0%} of the prompts; give a smaller least")
    clean = np.array([_difference(readout, p) for p in prompts])
    order = np.array([p.meta["order"] for p in prompts])
    rows: list[dict[str, Any]] = []
    for n, feature in enumerate(tried):
        changes = np.zeros((2, len(prompts)))
        for i, (prompt, place) in enumerate(zip(prompts, at, strict=True)):
            for k, shift in enumerate((0, -1)):
                edit = AblateFeatures(sae=sae, layers=(layer,), features=(feature,), positions=(place + shift,))
                with model.edit(edit):
                    changes[k, i] = clean[i] - _difference(readout, prompt)
        values = codes[:, feature].numpy()
        by_order = {name: float(values[order == name].mean()) if name in order else np.nan for name in ("ABBA", "BABA")}
        own, beside = changes
        rows.append(
            {
                "layer": layer, "head": -1, "score": own.mean(), "spread": _deviation(own), "control": beside.mean(),
                "feature": feature, "live": float(live[feature]), **by_order,
            }
        )  # fmt: skip
        if progress is not None:
            progress(n + 1, len(tried))
    manifest = model.manifest() | {
        "method": "ioi_features",
        "source": SOURCE,
        "settings": {"layer": layer, "prompts": len(prompts), "least": least, "most": most},
        "seed": None,
        "clean": float(clean.mean()),
    }
    table = pd.DataFrame(rows).sort_values("score", ascending=False, key=np.abs, ignore_index=True)
    return Result(kind="saes.ioi_features", table=table, manifest=manifest)


def _sources(tokenizer: Tokenizer, prompt: Prompt, random: np.random.Generator) -> list[Source | None]:
    """The prompts that z is taken from, by `VERSIONS`; None where a prompt has no such version."""
    places = {name: prompt.key_sets[name][0] for name in ("IO", "S1", "S2")}
    own = {prompt.ids[i] for i in places.values()}
    pool = [i for i in single_token(tokenizer, [f" {name}" for name in words("names")])[0].values() if i not in own]
    a, b, c = (int(i) for i in random.choice(pool, 3, replace=False))

    def named(io: int, s1: int, s2: int) -> tuple[int, ...]:
        ids = list(prompt.ids)
        ids[places["IO"]], ids[places["S1"]], ids[places["S2"]] = io, s1, s2
        return tuple(ids)

    at, same = places["S2"], named(a, b, b)
    first = next(i for i in range(len(same)) if same[i] not in set(tokenizer.all_special_ids))
    sentence = plain_ids(tokenizer, SENTENCE + " ")
    return [
        Source(ids=same, at=at),
        Source(ids=(*same[:first], *sentence, *same[first:]), at=at + len(sentence)),
        _reworded(tokenizer, same, places),
        Source(ids=named(b, a, b), at=at),
        Source(ids=named(a, b, c), at=at),
        Source(ids=same, at=at),
    ]


def _reworded(tokenizer: Tokenizer, ids: tuple[int, ...], places: dict[str, int]) -> Source | None:
    """The prompt with the word between the two names replaced, where it is ' and'."""
    joined, other = plain_ids(tokenizer, JOINED), plain_ids(tokenizer, REWORDED)
    low, high = sorted((places["IO"], places["S1"]))
    between = list(ids[low + 1 : high])
    if between != joined:
        return None
    return Source(ids=(*ids[: low + 1], *other, *ids[high:]), at=places["S2"] + len(other) - len(joined))


def _patch(layer: int, at: int, row: Tensor | None) -> ReplaceOutputs:
    """z of one layer at one token becomes `row` [d_in], or 0."""

    def patched(flat: Tensor) -> Tensor:
        new = flat.clone()
        new[:, at] = 0.0 if row is None else row.to(flat)
        return new

    return ReplaceOutputs(layers=(layer,), function=patched, label="zero" if row is None else f"z of token {at}")


@torch.no_grad()
def _difference(readout: Readout, prompt: Prompt) -> float:
    """LD of one prompt under the interventions in force."""
    given = replace(prompt, answer=prompt.answer[:1])
    return float(scores_of(readout, [given], answer_states(readout, [given])).logit_difference[0])


def _row(version: str, found: NDArray[np.float64], clean: NDArray[np.float64], seed: int) -> dict[str, Any]:
    """A version's row, from LD at S2 and at the token in front of it [2, prompt]."""
    have = ~np.isnan(found[0])
    own, beside, mine = found[0][have], found[1][have], clean[have]
    random = np.random.default_rng(seed)
    draws = [random.integers(len(own), size=len(own)) for _ in range(RESAMPLES if len(own) > 1 else 0)]
    kept = [own[d].mean() / mine[d].mean() for d in draws]
    none = not len(own)
    return {
        "layer": -1,
        "head": -1,
        "score": np.nan if none else own.mean() / mine.mean(),
        "spread": float(np.std(kept, ddof=1)) if kept else np.nan,
        "control": np.nan if none else beside.mean() / mine.mean(),
        "version": version,
        "logit_difference": np.nan if none else own.mean(),
        "prompts": int(have.sum()),
    }


def _deviation(x: NDArray[np.float64]) -> float:
    return float(np.std(x, ddof=1)) if len(x) > 1 else float("nan")


def _checked(model: HookedModel, prompts: Sequence[Prompt]) -> Tokenizer:
    if model.tokenizer is None:
        raise InputDataError("other names are drawn from a tokenizer, and this model came without one")
    wrong = [n for n, p in enumerate(prompts) if not {"IO", "S1", "S2"} <= set(p.key_sets) or p.wrong is None]
    if not prompts or wrong:
        raise OptionError(f"wanted prompts of interp.tasks.ioi; {len(prompts)} given, {wrong[:5]} are of another task")
    return model.tokenizer
