"""Streaming heads: heads that lose little when they see only the first tokens and the last ones (DuoAttention, arXiv 2410.10819).

S u W are the first `sinks` keys and the last `window` ones, the row's own included (Xiao et al. 2023, arXiv 2309.17453: attention sinks). With
O_full the head's output, O_str its output over S u W alone, and lse the rows' log-sum-exp, all forms come from one or two kernel calls a layer
in O(N) memory (heads.md, section 2 e):

    mass       mean_i exp(lse_SW(i) - lse(i)), the attention that S u W holds; HIGH = streams              in [0, 1]
    output     mean_i ||O_full,i - O_str,i|| / ||O_full,i||; high = needs full attention                   0 or more
    gradient   - dL/da = - sum_i <dL/dO_i, O_full,i - O_str,i> for O = a O_full + (1 - a) O_str at a = 1:
               how much the loss rises, to first order, if the head streams (nats per token); high = needs full attention
    gates      the gate a as DuoAttention trains it (`interp.heads.duo_gates`); high = needs full attention in [0, 1]

L is the mean cross-entropy of the next tokens of the counted rows. Rows that see no more than sinks + window keys lose nothing; they count as 1
(mass) and 0 (output), as in the definition, and are a share of (sinks + window) / N. A learned sink's share counts as kept.
"mass" and "output" look at one head at a time, with everything else unstreamed; mass that moves between equal values costs no output, so they
disagree. "gradient" is exact only near a = 1. A layer whose own sliding window is shorter than the text has NaN: it streams by construction.

Grouped queries. Scores stand per query head; a cache is dropped per key-value head (`kv_head`), for which `streaming_heads` takes the group's
mean (for the gradient, a gate that the group shares has r times that) or its worst head.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from interp.capture.call import Attended, AttentionCall
from interp.errors import InputDataError, OptionError
from interp.heads.duo_data import check_prompts, natural, shuffled
from interp.heads.duo_gates import SOURCE, GateTraining, train_gates
from interp.heads.duo_mixing import GateMix, check_sizes, frozen, is_local, key_heads, own_windows, streamed
from interp.heads.tables import head_table, mean_of, named
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import Prompt, generator

Form = Literal["mass", "output", "gradient", "gates"]
Group = Literal["mean", "worst"]
SPARSITY = 0.5
"""Share of key-value heads that stream where queries share them; 0.75 where they do not (author, DuoAttention issue 5)."""
Scores = Mapping[str, NDArray[np.float64]]
"""[layer, head] by name."""


def streaming(
    model: HookedModel,
    prompts: Sequence[Prompt] | None = None,
    *,
    form: Form = "mass",
    sinks: int = 16,
    window: int = 64,
    samples: int = 4,
    tokens: int = 1024,
    rows: str | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Score every head by how well it streams, or how much it needs full attention: "heads.streaming". See the module for the forms.

    Args:
        model: a causal decoder.
        prompts: texts (their `whole`); None takes `samples` pieces of `tokens` tokens of the held-out corpus.
        form: see the module. "mass" and "output" come from the same pass and stand in each other's table.
        sinks, window: S u W. The paper deploys 64 and 256.
        samples, tokens: of the default prompts; for "gates", `tokens` is the length of the training prompts.
        rows: name of the prompts' rows that count, e.g. "answers" of passkeys; None counts all.
        folder: for "gates" only, and then needed: where `train_gates` keeps its training with the default settings.
        seed: of the pieces and of the control; for "gates" of the training.
        progress: called with (prompts done, prompts); each is run twice, once as its control. For "gates" with (steps done, steps).

    Returns:
        Score, spread (standard deviation over prompts), control, kv_head; for "mass" and "output" also mass, mass_control, output,
        output_control. Control: the same on the same tokens in random order (the first stays, and so do those from the first counted
        row on where `rows` are named). Arrays: "score" and "control" [prompt, layer, head].

    Raises:
        OptionError: an unknown form, sizes out of range, or prompts that are too long for the model or too short to lose a key.
        InputDataError: no tokenizer for the default prompts, or rows that a prompt lacks.
        UnsupportedModelError: attention that sees later tokens.
    """
    named("form", form, get_args(Form))
    check_sizes(sinks, window)
    if form == "gates":
        if folder is None or prompts is not None or rows is not None:
            raise OptionError(
                "form 'gates' needs folder=, and makes its own prompts; for other settings call interp.heads.train_gates"
            )
        training = GateTraining(lengths=(tokens,), sinks=sinks, window=window, seed=seed)
        return train_gates(model, folder, training, progress=progress)
    if folder is not None:
        raise OptionError(f"folder= is for form 'gates', which trains; form {form!r} keeps nothing")
    given = natural(model, samples=samples, tokens=tokens, seed=seed) if prompts is None else list(prompts)
    check_prompts(model, given, rows, sinks + window)
    measure = MEASURES[form]
    found: list[Scores] = []
    control: list[Scores] = []
    for i, prompt in enumerate(given):
        stop = prompt.rows[rows][0] if rows is not None else len(prompt.whole)
        other = shuffled(prompt, stop, generator(seed, i))
        found.append(measure(model, prompt, rows, sinks, window))
        control.append(measure(model, other, rows, sinks, window))
        if progress is not None:
            progress(i + 1, len(given))
    score, against = (np.stack([x[form] for x in which]) for which in (found, control))
    groups = key_heads(model)
    extra: dict[str, NDArray[Any]] = {
        "kv_head": np.indices(score.shape[1:])[1] // (score.shape[2] // groups),
        **{name: mean_of([x[name] for x in found]) for name in found[0]},
        **{f"{name}_control": mean_of([x[name] for x in control]) for name in found[0]},
    }
    if form == "gradient":
        extra = {"kv_head": extra["kv_head"]}
    settings = {
        "form": form,
        "sinks": sinks,
        "window": window,
        "tokens": sorted({len(p.whole) for p in given}),
        "samples": len(given),
        "rows": rows or "all",
        "high": "streams" if form == "mass" else "needs full attention",
        "heads": "per query head; groups are aggregated by streaming_heads",
    }
    return Result(
        kind="heads.streaming",
        table=head_table(score, control=mean_of(against), extra=extra),
        manifest=model.manifest()
        | {
            "method": "streaming",
            "source": SOURCE,
            "task": "natural text"
            if prompts is None
            else sorted({str(p.meta.get("task", "own prompts")) for p in given}),
            "settings": settings,
            "seed": seed,
        },
        arrays={"score": score, "control": against},
    )


def streaming_heads(result: Result, sparsity: float = SPARSITY, *, group: Group = "mean") -> list[tuple[int, int]]:
    """The (layer, key-value head) pairs that stream when a share `sparsity` of them does, sorted.

    The rule of DuoAttention's authors: those below the `sparsity` quantile of the gates (linear between order statistics, as numpy), none at
    0 and all at 1; heads without a score stream anyway and are neither counted nor named. They break ties by noise without a seed; here the
    lowest layer and head streams first (streaming heads lie low: their issue 8).

    Args:
        result: of `streaming`, `train_gates` or `interp.heads.published.gates_result`.
        sparsity: share, in [0, 1].
        group: how query heads that share a key-value head are joined: their mean, or the one that needs full attention most.

    Raises:
        OptionError: another kind of result, a sparsity outside [0, 1], or an unknown group.
    """
    named("group", group, get_args(Group))
    if result.kind != "heads.streaming":
        raise OptionError(f"wanted a result of kind heads.streaming, got {result.kind}")
    if not 0.0 <= sparsity <= 1.0:
        raise OptionError(f"sparsity is the share of heads that stream, between 0 and 1; got {sparsity}")
    need = _need(result, group)
    places = sorted((value, int(a), int(b)) for (a, b), value in np.ndenumerate(need) if not np.isnan(value))
    below = int((np.arange(len(places)) < sparsity * (len(places) - 1)).sum()) if sparsity < 1.0 else len(places)
    return sorted((layer, head) for _, layer, head in places[:below])


def _need(result: Result, group: Group) -> NDArray[np.float64]:
    """How much each key-value head needs full attention: [layer, key-value head]."""
    if "gates" in result.arrays:
        return np.clip(result.arrays["gates"], 0.0, 1.0)
    sign = -1.0 if result.manifest["settings"]["form"] == "mass" else 1.0
    table = result.table.assign(need=sign * result.table["score"])
    joined = table.groupby(["layer", "kv_head"])["need"].agg("mean" if group == "mean" else "max")
    return joined.unstack().to_numpy(dtype=np.float64)  # pyright: ignore[reportAttributeAccessIssue]


def _kept(model: HookedModel, prompt: Prompt, rows: str | None, sinks: int, window: int) -> Scores:
    """Mass and output error of one text, from one pass with two kernel calls a layer."""
    layers: dict[int, tuple[Tensor, Tensor]] = {}

    def take(call: AttentionCall, attended: Attended) -> None:
        if is_local(call):
            nothing = torch.full(attended.lse.shape[1:2], torch.nan, dtype=torch.float64)
            layers[call.site.layer] = nothing, nothing
            return
        part = streamed(call, sinks, window).attend(None)
        at = slice(None) if rows is None else list(prompt.rows[rows])
        mass = (part.lse.double() - attended.lse.double()).exp()[0, :, at].mean(-1)
        full, stream = (out[0, :, at].double() for out in (attended.out, part.out))
        error = ((full - stream).norm(dim=-1) / full.norm(dim=-1)).nanmean(-1)
        layers[call.site.layer] = mass.cpu(), error.cpu()

    with torch.no_grad():
        model.probe(list(prompt.whole), take)
    mass, output = (torch.stack([layers[n][part] for n in sorted(layers)]).numpy() for part in (0, 1))
    return {"mass": mass, "output": output}


def _gradient(model: HookedModel, prompt: Prompt, rows: str | None, sinks: int, window: int) -> Scores:
    """First-order rise of the loss of one text as each head streams."""
    whole = torch.tensor(prompt.whole, device=model.device)
    at = torch.tensor(range(len(whole)) if rows is None else prompt.rows[rows], device=model.device)
    at = at[at + 1 < len(whole)]
    if not len(at):
        raise InputDataError(f"the rows {rows!r} of a prompt have no next token, so there is no loss; name other rows")
    gates = torch.ones(model.layers, model.heads, device=model.device, requires_grad=True)
    mix = GateMix(gates=gates, sinks=sinks, window=window, backend=model.backend)
    picks = "logits_to_keep" in inspect.signature(model.hf.forward).parameters
    with frozen(model.hf), torch.enable_grad(), model.edit(mix):
        options = {"logits_to_keep": at} if picks else {}
        logits = model.hf(input_ids=whole[None], use_cache=False, **options).logits[0]
        loss = cross_entropy((logits if picks else logits[at]).float(), whole[at + 1])
        (slope,) = torch.autograd.grad(loss, gates)
    score = -slope.double().cpu().numpy()
    local = [layer for layer, own in own_windows(model).items() if own is not None and own < len(whole)]
    score[local] = np.nan
    return {"gradient": score}


Measure = Callable[[HookedModel, Prompt, str | None, int, int], Scores]
MEASURES: Final[Mapping[Literal["mass", "output", "gradient"], Measure]] = MappingProxyType(
    {"mass": _kept, "output": _kept, "gradient": _gradient}
)
