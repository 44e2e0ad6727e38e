"""Previous-token, duplicate-token (echo) and induction heads on repeated random tokens.

On blocks of L random tokens a row i of a later block finds its own token at i - L, what followed it there at i - (L - 1), and the token
before it at i - 1. So three kinds of heads are three offsets, measured exactly in one pass (`Collect(offsets=...)`), whatever the length:

    previous    mean of A[i, i - 1]
    duplicate   mean of A[i, i - d L]            echo heads (RazorAttention), duplicate-token heads (IOI)
    induction   mean of A[i, i - (d L - 1)]      prefix matching (Olsson et al.), induction (TransformerLens, RazorAttention)

Rows. Duplicate and induction use rows of the later blocks only, counted from the first random token (a BOS in front shifts everything by
one): i >= L. TransformerLens's demos average the whole diagonal -(L - 1), of which row L - 1 looks at position 0, an attention sink, and
has no copy before it; that row never counts here. Previous uses every row whose previous token is one of the random tokens: i >= 1.

Forms, which differ in the input and in what they do with several earlier copies d = 1 ... R - 1:

    transformer-lens   50 tokens twice, no BOS; one copy                                                    (TransformerLens main demo)
    olsson             25 tokens four times, BOS; sum over all earlier copies                  (arXiv 2209.11895, appendix: prefix matching)
    razor              2,500 tokens four times, no BOS; the most recent copy, at most 1                     (arXiv 2407.15891; ports)
    razor-all-copies   the same; mean over all (row, earlier copy) pairs, at most 0.5 for R = 4             (the vendor's released code)

Values of different forms are not comparable; ranks mostly are. Patterns of this kind do not make a circuit: heads that lower what they
attend to have them too, so read `induction` beside `interp.heads.copying`, and confirm by ablation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from interp.capture.call import Attended, AttentionCall, Collect
from interp.errors import InputDataError, OptionError
from interp.heads.tables import head_table, named
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import Prompt, generator
from interp.tasks.repeated import OLSSON, RAZOR, TRANSFORMER_LENS, Repetition, prompts

Kind = Literal["previous", "duplicate", "induction"]
Form = Literal["transformer-lens", "olsson", "razor", "razor-all-copies"]
Copies = Literal["recent", "sum", "mean"]
TOKENS_PER_PASS = 4096
"""Tokens of one forward pass; sequences beyond it wait for the next."""


@dataclass(frozen=True, kw_only=True)
class RepeatedForm:
    """How a form measures: its input, and what it does with several earlier copies.

    Attributes:
        repetition: how the sequences are drawn.
        copies: "recent" looks at the last copy only, "sum" adds the mass on all earlier ones, "mean" averages over (row, copy) pairs.
    """

    repetition: Repetition
    copies: Copies


FORMS: Final[Mapping[Form, RepeatedForm]] = MappingProxyType(
    {
        "transformer-lens": RepeatedForm(repetition=TRANSFORMER_LENS, copies="recent"),
        "olsson": RepeatedForm(repetition=OLSSON, copies="sum"),
        "razor": RepeatedForm(repetition=RAZOR, copies="recent"),
        "razor-all-copies": RepeatedForm(repetition=RAZOR, copies="mean"),
    }
)


def previous_token(
    model: HookedModel,
    *,
    form: Form = "transformer-lens",
    repetition: Repetition | None = None,
    samples: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Mean attention to the token before, on random tokens: "heads.previous_token", score in [0, 1].

    `control` is the attention to the token before that one, so that a head which is merely local does not count. For arguments, spread
    and errors see `positional`; for real text `interp.heads.positional_text`.
    """
    return positional(
        model, ("previous",), form=form, repetition=repetition, samples=samples, seed=seed, progress=progress
    )["previous"]


def duplicate_token(
    model: HookedModel,
    *,
    form: Form = "transformer-lens",
    repetition: Repetition | None = None,
    samples: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Mean attention to earlier copies of the row's own token: "heads.duplicate_token", score in [0, 1] (echo heads).

    `control` is the score on the same tokens with the later blocks shuffled. For arguments, spread and errors see `positional`.
    """
    return positional(
        model, ("duplicate",), form=form, repetition=repetition, samples=samples, seed=seed, progress=progress
    )["duplicate"]


def induction(
    model: HookedModel,
    *,
    form: Form = "transformer-lens",
    repetition: Repetition | None = None,
    samples: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Mean attention to what followed earlier copies of the row's token: "heads.induction", score in [0, 1].

    `control` is the score on the same tokens with the later blocks shuffled. For arguments, spread and errors see `positional`.
    """
    return positional(
        model, ("induction",), form=form, repetition=repetition, samples=samples, seed=seed, progress=progress
    )["induction"]


def positional(
    model: HookedModel,
    kinds: Sequence[Kind] = get_args(Kind),
    *,
    form: Form = "transformer-lens",
    repetition: Repetition | None = None,
    samples: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Kind, Result]:
    """Measure several kinds of heads in the same passes; see the module for formulas, forms and rows.

    Args:
        model: a decoder with a tokenizer.
        kinds: of "previous", "duplicate", "induction".
        form: which form of the literature.
        repetition: another input for the form, e.g. `dataclasses.replace(RAZOR, length=500)` where 10,000 tokens do not fit.
        samples: sequences; at least 10 for numbers to report.
        seed: of the tokens; sequence i does not depend on how many there are.
        progress: called with (sequences done, sequences); each is run twice, once as its control.

    Returns:
        Result by kind: score, spread (standard deviation over sequences), control. Arrays: score [sample, layer, head].
        The control of duplicate and induction: the same offsets and rows, the tokens of each later block in another random order (a
        token keeps its place in 1 of L cases). The control of previous: offset 2 on the same sequences.

    Raises:
        OptionError: an unknown kind or form, fewer than two samples, or sequences longer than the model's context.
        InputDataError: no tokenizer, or too small a vocabulary.
    """
    for kind in kinds:
        named("kinds", kind, get_args(Kind))
    named("form", form, get_args(Form))
    if samples < 2:
        raise OptionError(f"samples must be at least 2 (10 for numbers to report), got {samples}")
    if model.tokenizer is None:
        raise InputDataError("repeated random tokens are drawn from a tokenizer, and this model came without one")
    drawn = repetition or FORMS[form].repetition
    sequences = prompts(model.tokenizer, drawn, samples=samples, seed=seed)
    length = len(sequences[0].ids)
    if model.context_length is not None and length > model.context_length:
        raise OptionError(
            f"form {form!r} makes sequences of {length} tokens, and the model reads {model.context_length}; give "
            "repetition=dataclasses.replace(interp.tasks.repeated.RAZOR, length=...) with fewer"
        )
    given = [p.ids for p in sequences]
    shuffled = [shuffle_later(p, drawn, generator(seed, samples + i)) for i, p in enumerate(sequences)]
    runs = {"score": given, "control": shuffled} if set(kinds) - {"previous"} else {"score": given}
    offsets = _offsets(drawn)
    start = sequences[0].rows["first"][0]
    measured: dict[str, NDArray[np.float32]] = {}
    for name, ids in runs.items():
        done = 0 if name == "score" else samples

        def say(count: int, done: int = done) -> None:
            if progress is not None:
                progress((done + count) // len(runs), samples)

        measured[name] = offset_masses(model, ids, offsets, say=say)[..., start:, :]
    return {
        kind: _result(model, kind, form, drawn, measured, offsets, manifest_of(model, form, drawn, sequences, seed))
        for kind in dict.fromkeys(kinds)
    }


def offset_masses(
    model: HookedModel,
    sequences: Sequence[Sequence[int]],
    offsets: Sequence[int],
    *,
    say: Callable[[int], None] = lambda count: None,
) -> NDArray[np.float32]:
    """Attention at exactly d tokens back, for several d at once: float32 [sample, layer, head, row, offset].

    Sequences must have one length N; O(N) memory per head and offset, nothing N x N. `say` gets the number of sequences done.
    """
    wish = Collect(offsets=tuple(offsets))
    batch = max(1, TOKENS_PER_PASS // len(sequences[0]))
    parts: list[NDArray[np.float32]] = []
    for first in range(0, len(sequences), batch):
        layers: dict[int, NDArray[np.float32]] = {}

        def take(call: AttentionCall, attended: Attended, layers: dict[int, NDArray[np.float32]] = layers) -> None:
            layers[call.site.layer] = attended.stats["offsets"].float().cpu().numpy()

        some = [list(s) for s in sequences[first : first + batch]]
        with torch.no_grad():
            model.probe(some, take, collect=lambda call: wish)
        parts.append(np.stack([layers[n] for n in sorted(layers)], axis=1))
        say(first + len(some))
    return np.concatenate(parts)


def shuffle_later(prompt: Prompt, drawn: Repetition, draw: np.random.Generator) -> tuple[int, ...]:
    """The prompt's tokens with those of every later block in a random order of their own."""
    start, size = prompt.rows["first"][0], drawn.length
    ids = list(prompt.ids)
    for block in range(1, drawn.repeats):
        at = start + block * size
        ids[at : at + size] = draw.permutation(ids[at : at + size]).tolist()
    return tuple(ids)


def score_of(
    masses: NDArray[np.floating], offsets: Sequence[int], kind: Kind, drawn: Repetition, copies: Copies
) -> NDArray[np.float64]:
    """Mean over the rows that count: [sample, layer, head].

    Args:
        masses: [sample, layer, head, row, offset], rows from the first random token on.
        offsets: what the last axis holds.
        kind: see the module.
        drawn: the sequences' length and repeats.
        copies: see `RepeatedForm`.
    """
    column = {d: masses[..., k].astype(np.float64) for k, d in enumerate(offsets)}
    if kind == "previous":
        return column[1][..., 1:].mean(-1)
    size, shift = drawn.length, 1 if kind == "induction" else 0
    if copies == "recent":
        return column[size - shift][..., size:].mean(-1)
    # a row of block b has b earlier copies: copy d counts from row d L on
    sums = [column[d * size - shift][..., d * size :] for d in range(1, drawn.repeats)]
    pairs = sum(x.shape[-1] for x in sums)
    rows = sums[0].shape[-1]
    total = np.sum([x.sum(-1) for x in sums], axis=0)
    return total / (rows if copies == "sum" else pairs)


def _offsets(drawn: Repetition) -> tuple[int, ...]:
    """Every offset that some kind or control needs, ascending."""
    copies = range(1, drawn.repeats)
    return tuple(sorted({1, 2, *(d * drawn.length for d in copies), *(d * drawn.length - 1 for d in copies)}))


def _result(
    model: HookedModel,
    kind: Kind,
    form: Form,
    drawn: Repetition,
    measured: Mapping[str, NDArray[np.float32]],
    offsets: Sequence[int],
    manifest: Mapping[str, object],
) -> Result:
    copies = FORMS[form].copies
    score = score_of(measured["score"], offsets, kind, drawn, copies)
    if kind == "previous":
        control = measured["score"][..., 2:, offsets.index(2)].mean(-1, dtype=np.float64)
    else:
        control = score_of(measured["control"], offsets, kind, drawn, copies)
    table = head_table(score, control=control.mean(0))
    name = kind if kind == "induction" else f"{kind}_token"
    return Result(
        kind=f"heads.{name}",
        table=table,
        manifest={**manifest, "method": name},
        arrays={"score": score.astype(np.float32), "control": control.astype(np.float32)},
    )


def manifest_of(
    model: HookedModel, form: Form, drawn: Repetition, sequences: Sequence[Prompt], seed: int
) -> dict[str, object]:
    """What the results say of how they were measured."""
    settings = {
        "form": form,
        "copies": FORMS[form].copies,
        "length": drawn.length,
        "repeats": drawn.repeats,
        "bos": drawn.bos,
        "ids": drawn.ids,
        "drop": drawn.drop,
        "distinct": drawn.distinct,
        "whole_vocabulary": sequences[0].meta["whole_vocabulary"],
        "samples": len(sequences),
        "rows": "previous: i >= 1; duplicate and induction: i >= length; counted from the first random token, BOS never a row",
    }
    return model.manifest() | {
        "source": "Olsson et al. 2022 (arXiv 2209.11895); RazorAttention (arXiv 2407.15891); TransformerLens main demo",
        "settings": settings,
        "seed": seed,
    }
