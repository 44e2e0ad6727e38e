"""The page of one head: every score with its control, exact maps on three inputs, the token pairs it links, and its OV and QK circuits in short.

The inputs: a piece of natural text; random tokens twice, where previous-token, duplicate and induction heads show; a needle prompt with the
right answer, where retrieval heads show. Every picture is exact (`AttentionMap`): the whole map pooled by max and by mean, and a crop with
tokens around the rows in which the head looks elsewhere than at the first token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from interp.batch.files import make_folder, write_file
from interp.batch.pictures import pictures
from interp.capture.run import Run
from interp.errors import InputDataError, OptionError, UnsupportedModelError
from interp.heads.labels import labelled
from interp.heads.parts import Weights
from interp.heads.report import load_report
from interp.heads.summary import ov_sizes, qk_sizes, strongest_pairs, written
from interp.heads.weights import read_weights
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks import needle, repeated
from interp.tasks.haystack import corpus_texts
from interp.tasks.repeated import TRANSFORMER_LENS
from interp.tasks.sequences import sequences
from interp.tasks.vocabulary import Tokenizer
from interp.widgets.atlas import ATLAS, PAGES, WORDS, plain_values
from interp.widgets.colours import sequential
from interp.widgets.page import build_page
from interp.widgets.payload import FLOOR, base64_of, encode_map
from interp.widgets.report import WEB

MODULES: Final = ("dom", "data", "maps", "head")
TEXT_TOKENS = 384
NEEDLE_TOKENS = 384
CROWDED = 64
"""First row of a text that may be shown large: earlier ones see few keys."""
SOURCES = 6
"""Tokens of the natural text for which the OV circuit is shown."""
Head = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Input:
    """A text that heads are shown on.

    Attributes:
        name: of the input.
        note: what to look for.
        ids: its tokens.
        rows: first row that may be shown large, and the one after the last.
    """

    name: str
    note: str
    ids: tuple[int, ...]
    rows: tuple[int, int]


def page_inputs(model: HookedModel, *, seed: int = 0) -> list[Input]:
    """The three inputs; one that the tokenizer or the context cannot have is left out.

    Raises:
        InputDataError: a model without a tokenizer.
    """
    if model.tokenizer is None:
        raise InputDataError("the page of a head shows text, and this model came without a tokenizer")
    tokenizer, longest = model.tokenizer, model.context_length or TEXT_TOKENS
    size = min(TEXT_TOKENS, longest)
    text = tuple(sequences(model, "natural", texts=corpus_texts("held_out"), tokens=size, count=1, seed=seed)[0])
    found = [
        Input(
            name="natural text", note="a piece of the held-out corpus", ids=text, rows=(min(CROWDED, size // 2), size)
        )
    ]
    made: list[Callable[[], Input]] = [
        lambda: _repeated(tokenizer, seed),
        lambda: _needle(tokenizer, min(NEEDLE_TOKENS, longest), seed),
    ]
    for make in made:
        try:
            one = make()
        except (InputDataError, OptionError):
            continue
        if len(one.ids) <= longest:
            found.append(one)
    return found


def write_head_pages(
    model: HookedModel,
    folder: Path,
    heads: Sequence[Head] | None = None,
    *,
    most: int = 3,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write `heads/LAYER.HEAD.html` into a report's folder.

    Args:
        model: the model of the report.
        folder: of the report.
        heads: which heads, None for the `most` strongest of each label.
        most: see `heads`.
        seed: of the inputs.
        progress: called with (pages written, pages).

    Raises:
        OutputError: the folder holds no finished report, or cannot be written.
        OptionError: a head that the model does not have.
    """
    wide, parts = load_report(folder)
    by_label = labelled(wide.table, most=most)
    wanted = sorted({head for group in by_label.values() for head in group} if heads is None else set(heads))
    if bad := [h for h in wanted if not (0 <= h[0] < model.layers and 0 <= h[1] < model.heads)]:
        raise OptionError(f"no heads {bad}; the model has {model.layers} layers of {model.heads} heads")
    inputs = page_inputs(model, seed=seed)
    runs = [_run(model, one, sorted({layer for layer, _ in wanted})) for one in inputs] if wanted else []
    try:
        weights, reason = read_weights(model), ""
    except UnsupportedModelError as error:
        weights, reason = None, str(error)
    make_folder(folder / PAGES)
    paths = []
    for done, (layer, head) in enumerate(wanted, 1):
        data = head_data(model, wide, parts, inputs, runs, weights, (layer, head), reason=reason)
        path = folder / PAGES / f"{layer}.{head}.html"
        page = build_page(WEB, MODULES, data)
        write_file(path, lambda temporary, page=page: temporary.write_text(page, encoding="utf-8", newline="\n"))
        paths.append(path)
        if progress is not None:
            progress(done, len(wanted))
    return paths


def head_data(
    model: HookedModel,
    wide: Result,
    parts: Mapping[str, Result],
    inputs: Sequence[Input],
    runs: Sequence[Run],
    weights: Weights | None,
    head: Head,
    *,
    reason: str = "",
) -> dict[str, Any]:
    """Everything the page of a head shows, as plain JSON values.

    Args:
        model: of the report.
        wide: the report.
        parts: its results by name, from which sources are quoted.
        inputs: of `page_inputs`.
        runs: of each of them, with the head's layer, its queries and keys and "first_token_mass".
        weights: for the OV circuit, None where they cannot be read.
        head: (layer, head).
        reason: why there are no weights.
    """
    layer, number = head
    row = wide.table.set_index(["layer", "head"]).loc[head]
    return {
        "model": str(wide.manifest["model"]["name"]),
        "layer": layer,
        "head": number,
        "atlas": f"../{ATLAS}",
        "labels": [x for x in str(row["labels"]).split(", ") if x],
        "pattern": str(row["pattern"]) if "pattern" in row.index else None,
        "scores": [_score(wide.table, parts, name, head) for name in WORDS if name in wide.table.columns],
        "inputs": [_shown(model, one, run, head) for one, run in zip(inputs, runs, strict=True)],
        "circuits": {"reason": reason} if weights is None else _circuits(model, weights, head, inputs[0]),
        "colours": base64_of(sequential()),
        "floor": FLOOR,
        "manifest": plain_values(
            {key: wide.manifest[key] for key in ("model", "dtype", "versions", "settings", "seed")}
        ),
    }


def _run(model: HookedModel, one: Input, layers: Sequence[int]) -> Run:
    return model.run(list(one.ids), layers=layers, collect=["first_token_mass"], keep="qk", logits="none")


def _score(table: Any, parts: Mapping[str, Result], name: str, head: Head) -> dict[str, Any]:
    title, unit, formula = WORDS[name]
    row: Any = table.set_index(["layer", "head"]).loc[head]
    value = float(row[name])
    spread, control = (float(row.get(f"{name}_{part}", np.nan)) for part in ("spread", "control"))
    rank = None if np.isnan(value) else int((table[name] > value).sum()) + 1
    source = str(parts[name].manifest.get("source", "")) if name in parts else ""
    words = {"title": title, "unit": unit, "formula": formula, "source": source}
    return plain_values({**words, "value": value, "spread": spread, "control": control, "rank": rank, "of": len(table)})


def _shown(model: HookedModel, one: Input, run: Run, head: Head) -> dict[str, Any]:
    """Pictures and token pairs of a head on one input."""
    layer, number = head
    first = run.stats["first_token_mass"][run.layers.index(layer), number].cpu().numpy()
    away: NDArray[np.float32] = np.zeros_like(first)
    away[slice(*one.rows)] = 1.0 - np.nan_to_num(first[slice(*one.rows)], nan=1.0)
    shots = pictures(run, (one.name, layer, number), away)
    pairs = strongest_pairs(run, layer, number, first=one.rows[0])
    texts = model.tokens(list(one.ids))
    return {
        "name": one.name,
        "note": one.note,
        "tokens": len(one.ids),
        "maps": [encode_map(shot, 0, one.note) for shot in shots],
        "pairs": [
            {"query": texts[p.query], "at": p.query, "key": texts[p.key], "from": p.key, "weight": p.weight}
            for p in pairs
        ],
    }


def _circuits(model: HookedModel, weights: Weights, head: Head, text: Input) -> dict[str, Any]:
    """The OV and QK circuits of a head in plain values, for a few different words of the text."""
    layer, number = head
    words = [t for t in dict.fromkeys(text.ids) if model.tokens([t])[0].strip().isalpha()] or list(
        dict.fromkeys(text.ids)
    )
    chosen = words[:: max(1, len(words) // SOURCES)][:SOURCES]
    sizes = {"ov": ov_sizes(weights, layer, number), "qk": qk_sizes(model, layer, number)}

    def said(pairs: Sequence[tuple[int, float]]) -> list[list[Any]]:
        return [[text, value] for text, (_, value) in zip(model.tokens([t for t, _ in pairs]), pairs, strict=True)]

    return {
        "reason": "",
        "written": [
            {"source": model.tokens([w.source])[0], "raised": said(w.raised), "lowered": said(w.lowered)}
            for w in written(weights, layer, number, chosen)
        ],
        **{name: None if x is None else [float(v) for v in x] for name, x in sizes.items()},
    }


def _repeated(tokenizer: Tokenizer, seed: int) -> Input:
    prompt = repeated.prompts(tokenizer, TRANSFORMER_LENS, samples=1, seed=seed)[0]
    size = TRANSFORMER_LENS.length
    note = f"{size} random tokens, twice: a row of the second half has its copy {size} tokens back"
    return Input(name="repeated random tokens", note=note, ids=prompt.ids, rows=(size, 2 * size))


def _needle(tokenizer: Tokenizer, length: int, seed: int) -> Input:
    prompt = needle.prompts(tokenizer, lengths=(length - 32,), depths=(0.5,), hidden=needle.needles()[:1], seed=seed)[0]
    start, stop = prompt.key_sets["answer"]
    note = f"the needle at keys {start} to {stop - 1}; the last {len(prompt.answer)} rows give the right answer"
    return Input(name="needle prompt", note=note, ids=prompt.whole, rows=(prompt.rows["answer"][0], len(prompt.whole)))
