"""Retrieval heads: heads that, while the model answers from a long context, look at the token that is said next (Wu et al. 2024).

The model answers each prompt greedily with its cache; then prompt and answer are replayed in one pass that keeps, of the answer's rows only,
the most attended keys (`Collect(topk=..., topk_rows=...)`): O(answer length) memory per head, nothing N x N. Step 0 is the last prompt row.
Samples count only if the answer was right; which scores there are stands in `interp.heads.retrieval_score`. Three forms:

    paper    distinct copied tokens / distinct span tokens, in [0, 1]; accepted by ROUGE-1 recall > 0.5          (arXiv 2404.15574)
    code     copying steps / span length, repeats count (released scores reach 1.79); accepted as "paper"        (their released code)
    headkv   probability of the span's keys among the most attended, no token match; accepted by answer F1 > 0.5 (HeadKV's code)

A retrieval head is one with a mean of `RETRIEVAL_HEAD` or more (Wu et al.). What this differs in from their code, on purpose: the span is
known from the tokenizer's offsets instead of searched for by set overlap (which starts early, or finds nothing and says nothing); generation
stops at the end of a line of text, whatever the tokenizer (theirs knows Llama's newline only, and others run all steps, which inflates
"code"); heads are not averaged over runs of different settings. HeadKV's two-hop needles come as `Needle(texts=(first, second), ...)`.
The score reads attention patterns alone: an induction head that attends like a retrieval head scores like one, whatever it writes. Literal
copying only: a paraphrase scores 0. Confirm by ablation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from interp.capture.call import Attended, AttentionCall, Collect
from interp.errors import InputDataError, OptionError
from interp.heads.retrieval_score import F1_ABOVE, answer_f1, code_score, copies, headkv_score, paper_score
from interp.heads.tables import head_table, named
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks import needle
from interp.tasks.prompt import Prompt, Span

Form = Literal["paper", "code", "headkv"]
Stop = Literal["line", "eos"]
RETRIEVAL_HEAD = 0.1
"""Mean score from which Wu et al. call a head a retrieval head."""
STEPS = 50
"""Most tokens of an answer (Wu et al., code)."""
BATCH = 8
"""Prompts that are answered together."""
LENGTHS = (512, 1024)
"""Prompt lengths by default, in tokens: what a small model can do; the paper has 20 from 1,000 to 50,000."""
SOURCES: Final[Mapping[Form, str]] = MappingProxyType(
    {
        "paper": "Wu et al. 2024 (arXiv 2404.15574), the paper's definition",
        "code": "Wu et al. 2024 (arXiv 2404.15574), as their released code computes it",
        "headkv": "HeadKV (arXiv 2410.19258), retrieval score of the released code",
    }
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Answered:
    """A prompt, the model's greedy answer, and what every head looks at most while giving it.

    Attributes:
        generated: token ids of the answer [step], the token that ended it included.
        text: the answer as text, without special tokens.
        top: most attended keys [layer, head, step, k], the first is the most attended; -1 where a row sees fewer.
        prob: their probabilities, float32, same shape.
    """

    generated: NDArray[np.int64]
    text: str
    top: NDArray[np.int64]
    prob: NDArray[np.float32]


def retrieval(
    model: HookedModel,
    prompts: Sequence[Prompt] | None = None,
    *,
    form: Form = "paper",
    span: str = "answer",
    steps: int | None = None,
    stop: Stop = "line",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Score every head by how much of a span it copies into the answer: "heads.retrieval".

    Args:
        model: a decoder with a tokenizer.
        prompts: with the key set `span` and meta "answer" (the text to be found); None makes 8 needles x `LENGTHS` x 5 depths by
            `interp.tasks.needle.prompts`. The tokenizer's own choice of BOS stands.
        form: see the module.
        span: which key set counts: "answer" (the part that a model can be asked for; Wu's code) or "needle" (the whole sentence; the paper).
        steps: most tokens of an answer; None takes 50, and for "headkv" the number of the right answer's tokens, as in its code.
        stop: "line" ends an answer behind the first newline that follows text, "eos" only at the model's end-of-text tokens.
        seed: of the default prompts and of the control spans.
        progress: called with (prompts done, prompts).

    Returns:
        Score (mean over accepted samples), spread (standard deviation over them), control (the same score for a random span of the same
        length elsewhere in the context), `active` (share of accepted samples with a score above 0).
        Arrays: "score" and "control" [accepted sample, layer, head], for "paper" and "code" both as "paper" and "code" too; "sample" which
        prompts were accepted; where every prompt says its length and depth, "grid" [length, depth, layer, head], mean over the cell's
        accepted samples (NaN without any) and "grid_accepted" [length, depth]; lengths and depths stand in the manifest.

    Raises:
        OptionError: an unknown form or stop, steps below 1, or prompts that do not fit into the model's context.
        InputDataError: no tokenizer, a prompt without the span or the answer's text or without room for a control span, or fewer than two
            accepted answers, for then there is no score.
    """
    named("form", form, get_args(Form))
    named("stop", stop, get_args(Stop))
    if steps is not None and steps < 1:
        raise OptionError(f"steps must be at least 1, got {steps}")
    if model.tokenizer is None:
        raise InputDataError("prompts and answers are text, and this model came without a tokenizer")
    given = needle.prompts(model.tokenizer, lengths=LENGTHS, seed=seed) if prompts is None else list(prompts)
    limits = [_limit(model, p, span, form, steps) for p in given]
    controls = [control_span(p, span, np.random.default_rng([seed, i, 1])) for i, p in enumerate(given)]
    accepted: dict[int, dict[str, NDArray[np.float64]]] = {}
    done = 0
    for batch in _batches([len(p.ids) for p in given], limits):
        wholes = greedy(model, [given[i].ids for i in batch], steps=limits[batch[0]], stop=stop)
        for i, whole in zip(batch, wholes, strict=True):
            prompt, place = given[i], given[i].key_sets[span]
            got = replay(model, whole, len(prompt.ids), keys=place[1] - place[0] if form == "headkv" else 1)
            if _accepts(prompt, got.text, form):
                control = _scores(prompt, got, controls[i], form)["score"]
                accepted[i] = _scores(prompt, got, place, form) | {"control": control}
            done += 1
            if progress is not None:
                progress(done, len(given))
    kept = sorted(accepted)
    rows = [accepted[i] for i in kept]
    if len(kept) < 2:
        raise InputDataError(
            f"{len(kept)} of {len(given)} answers were accepted, and a score needs at least two; give shorter prompts, more steps, or a "
            "model that can do the task"
        )
    arrays: dict[str, NDArray[Any]] = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    table = head_table(
        arrays["score"], control=arrays["control"].mean(0), extra={"active": (arrays["score"] > 0).mean(0)}
    )
    axes, cells = _grid([given[i] for i in kept], given, arrays["score"])
    settings = {
        "form": form,
        "span": span,
        "steps": steps,
        "stop": stop,
        "threshold": RETRIEVAL_HEAD,
        "samples": len(given),
        "accepted": len(kept),
        **axes,
    }
    return Result(
        kind="heads.retrieval",
        table=table,
        manifest=model.manifest()
        | {
            "method": "retrieval",
            "source": SOURCES[form],
            "task": "needle" if prompts is None else sorted({str(p.meta.get("task", "own prompts")) for p in given}),
            "settings": settings,
            "seed": seed,
        },
        arrays=arrays | {"sample": np.asarray(kept)} | cells,
    )


def replay(model: HookedModel, whole: Tensor, start: int, *, keys: int = 1) -> Answered:
    """Pass prompt and answer through the model once more, and keep each answer row's `keys` most attended keys.

    Args:
        model: that gave the answer.
        whole: token ids [prompt + answer], as `greedy` gives them.
        start: the prompt's number of tokens.
        keys: how many keys to keep.
    """
    generated = whole[start:]
    collect = Collect(topk=keys, topk_rows=torch.arange(start - 1, len(whole) - 1))
    layers: dict[int, tuple[Tensor, Tensor]] = {}

    def take(call: AttentionCall, attended: Attended) -> None:
        layers[call.site.layer] = (attended.stats["topk_index"][0].cpu(), attended.stats["topk_prob"][0].float().cpu())

    with torch.no_grad():
        model.probe(whole[:-1].tolist(), take, collect=lambda call: collect)
    index, prob = (torch.stack([layers[n][part] for n in sorted(layers)]).numpy() for part in (0, 1))
    return Answered(generated=generated.cpu().numpy(), text=_text(model.tokenizer, generated), top=index, prob=prob)


def greedy(model: HookedModel, prompts: Sequence[Sequence[int]], *, steps: int, stop: Stop = "line") -> list[Tensor]:
    """Each prompt and the model's greedy answer to it, with the cache: token ids [prompt + answer], the token that ended it included.

    Prompts of equal length are answered together, `BATCH` at a time.
    """
    found: dict[int, Tensor] = {}
    for batch in _batches([len(ids) for ids in prompts], [steps] * len(prompts)):
        length = len(prompts[batch[0]])
        lines = _LineEnd(model.tokenizer, length) if stop == "line" else None
        whole = model.generate(
            [list(prompts[i]) for i in batch],
            max_new_tokens=steps,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            stopping_criteria=StoppingCriteriaList([] if lines is None else [lines]),
        )
        for i, ids in zip(batch, whole, strict=True):
            found[i] = _until_end(model, ids, length, lines)
    return [found[i] for i in range(len(prompts))]


def _batches(lengths: Sequence[int], limits: Sequence[int]) -> Iterator[list[int]]:
    """Prompts that can be answered together: of one length and one limit of steps, at most `BATCH`."""
    kinds = list(zip(lengths, limits, strict=True))
    for kind in sorted(set(kinds)):
        equal = [i for i, other in enumerate(kinds) if other == kind]
        for first in range(0, len(equal), BATCH):
            yield equal[first : first + BATCH]


def _until_end(model: HookedModel, ids: Tensor, start: int, lines: _LineEnd | None) -> Tensor:
    """One row of a batch without the padding that follows its answer where others are longer."""
    ends = model.hf.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    for stop in range(start + 1, len(ids)):
        if int(ids[stop - 1]) in ends or (lines is not None and lines.ended(ids[:stop])):
            return ids[:stop]
    return ids


def control_span(prompt: Prompt, span: str, draw: np.random.Generator) -> Span:
    """A random run of as many tokens as the key set `span`, within "context" (or the prompt) and clear of every needle and answer.

    Raises:
        InputDataError: there is no such run.
    """
    start, stop = prompt.key_sets[span]
    size = stop - start
    first, last = prompt.key_sets.get("context", (0, len(prompt.ids)))
    taken = [place for name, place in prompt.key_sets.items() if name in {span, "answer"} or name.startswith("needle")]
    free = [a for a in range(first, last - size + 1) if all(a + size <= s or a >= e for s, e in taken)]
    if not free:
        raise InputDataError(
            f"the context has no {size} tokens beside {span!r} for a control span; give longer prompts"
        )
    at = int(draw.choice(free))
    return at, at + size


class _LineEnd(StoppingCriteria):
    """Ends the generation of each prompt behind the first newline that follows text."""

    def __init__(self, tokenizer: Any, start: int) -> None:
        self.tokenizer, self.start = tokenizer, start

    def ended(self, ids: Tensor) -> bool:
        """Whether the answer in one sequence is done."""
        return "\n" in _text(self.tokenizer, ids[self.start :]).lstrip()

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Which sequences are done, bool [batch]."""
        return torch.tensor([self.ended(ids) for ids in input_ids], device=input_ids.device)


def _text(tokenizer: Any, ids: Tensor) -> str:
    return str(tokenizer.decode(ids.tolist(), skip_special_tokens=True))


def _limit(model: HookedModel, prompt: Prompt, span: str, form: Form, steps: int | None) -> int:
    """Most tokens of the answer to this prompt, once the prompt is known to be fit."""
    if span not in prompt.key_sets:
        raise InputDataError(f"a prompt has no key set {span!r}; it has {', '.join(prompt.key_sets) or 'none'}")
    if not prompt.meta.get("answer"):
        raise InputDataError('a prompt has no meta "answer", the text by which its answer is judged')
    limit = steps or (max(1, len(prompt.answer)) if form == "headkv" else STEPS)
    if model.context_length is not None and len(prompt.ids) + limit > model.context_length:
        raise OptionError(
            f"a prompt of {len(prompt.ids)} tokens and {limit} steps do not fit into the {model.context_length} tokens that the model "
            "reads; give shorter prompts or fewer steps"
        )
    return limit


def _accepts(prompt: Prompt, text: str, form: Form) -> bool:
    if form == "headkv":
        return answer_f1(str(prompt.meta["answer"]), text) > F1_ABOVE
    return needle.accepted(prompt, text)


def _scores(prompt: Prompt, got: Answered, place: Span, form: Form) -> dict[str, NDArray[np.float64]]:
    """The scores [layer, head] of one answer for one span: "score", and for "paper" and "code" both by name."""
    if form == "headkv":
        return {"score": headkv_score(got.top, got.prob, place)}
    whole = np.concatenate([np.asarray(prompt.ids, dtype=np.int64), got.generated])
    copied = copies(got.top[..., 0], whole, got.generated, place)
    both = {
        "paper": paper_score(copied, got.generated, whole[slice(*place)]),
        "code": code_score(copied, place[1] - place[0]),
    }
    return both | {"score": both[form]}


def _grid(
    kept: Sequence[Prompt], given: Sequence[Prompt], scores: NDArray[np.float64]
) -> tuple[dict[str, list[Any]], dict[str, NDArray[Any]]]:
    """Mean score of every head by length and depth, if all prompts say theirs: the axes, and the arrays."""
    if not all("length" in p.meta and "depth" in p.meta for p in given):
        return {}, {}
    lengths, depths = (sorted({p.meta[name] for p in given}) for name in ("length", "depth"))
    sums = np.zeros((len(lengths), len(depths), *scores.shape[1:]))
    counts = np.zeros((len(lengths), len(depths)), dtype=np.int64)
    for prompt, score in zip(kept, scores, strict=True):
        cell = lengths.index(prompt.meta["length"]), depths.index(prompt.meta["depth"])
        sums[cell] += score
        counts[cell] += 1
    filled = np.where(counts > 0, counts, 1)[..., None, None]
    means = np.where(counts[..., None, None] > 0, sums / filled, np.nan)
    return {"lengths": lengths, "depths": depths}, {"grid": means, "grid_accepted": counts}
