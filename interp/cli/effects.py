"""`interp effects MODEL --edit FILE.json --text FILE | --task NAME --out DIR`: what saved interventions do, beside matched random controls."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.analysis import Json, Model, Out, Quiet, Seed, check_out, loading
from interp.cli.console import print_json, print_table, say
from interp.cli.known_tasks import TASKS, Bos, Samples, task_prompts
from interp.cli.options import load_model, one_of
from interp.errors import InputDataError, OptionError


@loading
def effects(
    model: Model,
    out: Out,
    edit: Annotated[list[Path], typer.Option("--edit", help="Saved interventions (interp.interventions.to_json).")],
    text: Annotated[list[Path] | None, typer.Option("--text", help="Text file to predict; may be repeated.")] = None,
    task: Annotated[str | None, typer.Option("--task", help=f"Or a task: {', '.join(TASKS)}.")] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Generate so many tokens instead of forcing the answer.")
    ] = None,
    choices: Annotated[
        str | None, typer.Option("--choices", help="Choices of the task among which accuracy judges.")
    ] = None,
    control: Annotated[
        list[Path] | None, typer.Option("--control", help="Saved interventions to compare with; may be repeated.")
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=2, help="Longest piece of a text, in tokens.")] = 512,
    samples: Samples = 20,
    bos: Bos = None,
    draws: Annotated[int, typer.Option("--draws", help="Random sets of heads of the same layers.")] = 5,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """What interventions do to the prediction of a text, to the answers of a task, or to generation, beside controls."""
    if (task is None) == (not text):
        raise OptionError("give --text FILE (may be repeated) or --task NAME, one of them")
    if task is not None:
        one_of(task, tuple(TASKS), "--task")
    if steps is not None and (task is None or choices is not None):
        raise OptionError("--steps generates the answers of a --task, and judges them without --choices")
    kind = "text_effects" if task is None else "answer_effects" if steps is None else "generation_effects"
    check_out(out, f"interventions.{kind}")
    from interp.interventions.effects import answer_effects, generation_effects, text_effects

    edits = [e for path in edit for e in _read(path)]
    more: dict[str, Any] = {
        "controls": None if not control else [_read(path) for path in control],
        "draws": draws,
        "seed": seed,
    }
    hooked = load_model(model, **given)
    if task is None:
        pieces = [piece for path in text or [] for piece in _pieces(hooked, path, tokens)]
        result = text_effects(hooked, edits, pieces, **more)
    else:
        prompts = task_prompts(hooked, task, samples=samples, bos=bos, seed=seed)
        if steps is None:
            result = answer_effects(hooked, edits, prompts, choices=choices, **more)
        else:
            result = generation_effects(hooked, edits, prompts, steps=steps, **more)
    result.save(out)
    records = result.table.drop(columns=["layer", "head"]).to_dict("records")
    if as_json:
        for row in records:
            print_json({str(k): None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()})
    elif not quiet:
        columns = ("metric", "base", "edited", "change", "95 % interval", "change of control")
        rows = [
            [
                r["metric"],
                f"{r['base']:.4g}",
                f"{r['edited']:.4g}",
                f"{r['score']:+.4g}",
                _pair(r["low"], r["high"], " to "),
                _pair(r["control"], r["spread"], " ± "),
            ]
            for r in records
        ]
        title = f"{hooked.source.name}: {', '.join(result.manifest['edits'])}"
        print_table(title, columns, rows, numbers=columns[1:])
        say(f"controls: {result.manifest['controls']}")
        say(f"table, arrays and manifest lie in {out}")


def _read(path: Path) -> list[Any]:
    from interp.interventions.saved import from_json

    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputDataError(f"cannot read {path}: {error}") from error


def _pieces(model: Any, path: Path, tokens: int) -> list[list[int]]:
    """Token ids of a file in pieces of at most `tokens`; a last piece of a single token is left out."""
    try:
        ids = model.encode(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputDataError(f"cannot read {path}: {error}") from error
    pieces = [ids[n : n + tokens] for n in range(0, len(ids), tokens)]
    if not pieces or len(pieces[0]) < 2:
        raise InputDataError(f"{path} has fewer than two tokens, so nothing in it is predicted")
    return [piece for piece in pieces if len(piece) > 1]


def _pair(a: float, b: float, between: str) -> str:
    return "–" if math.isnan(a) else f"{a:+.3g}{between}{b:.3g}"
