"""`interp calibrate MODEL --task T --method M --out DIR`: search heads to calibrate, test them on held-out prompts, save what helps.

DIR holds `result` (the held-out table, every score, the search), `calibration.html` (its figure), `parts` (finished passes, from which the same
command goes on) and, if heads were kept, `calibration.json` for `interp.load(MODEL, calibration=FILE)`.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from interp.cli.analysis import Model, Out, Quiet, Seed, check_out, loading
from interp.cli.console import print_json, print_table, say
from interp.cli.counting import counting_parts
from interp.cli.options import load_model, number_list, one_of
from interp.errors import InputDataError, OptionError

TASK_NAMES = ("succession", "needle", "topics")
METHOD_NAMES = ("act", "var", "zerotune", "temperature")
MASS_ENOUGH = 0.8
NOT_MOVED = "the method changes no head on these prompts (ACT finds no sinks in short prompts by 5 / tokens: try --detection code)"


@loading
def calibrate(
    model: Model,
    out: Out,
    task: Annotated[str, typer.Option("--task", help=", ".join(TASK_NAMES) + ".")] = "succession",
    method: Annotated[str, typer.Option("--method", help=", ".join(METHOD_NAMES) + ".")] = "act",
    detection: Annotated[
        str | None,
        typer.Option("--detection", help="How act finds sinks: paper (5 / tokens) or code (0.1); paper if left out."),
    ] = None,
    heads: Annotated[
        str, typer.Option("--heads", help="Heads to verify exactly, by the screen's ranking, or all.")
    ] = "16",
    layers: Annotated[
        str | None, typer.Option("--layers", help="Layers to search, such as 2-30; all if left out.")
    ] = None,
    prompts: Annotated[
        int | None, typer.Option("--prompts", help="Prompts of each side; the task's own number if left out.")
    ] = None,
    metric: Annotated[str, typer.Option("--metric", help="What heads are kept by: logprob or accuracy.")] = "logprob",
    margin: Annotated[float, typer.Option("--margin", help="Keep heads that gain more than this.")] = 1e-4,
    most: Annotated[int | None, typer.Option("--most", min=1, help="Keep at most so many heads.")] = None,
    p: Annotated[float | None, typer.Option("--p", help="Keep heads up to this p_family only.")] = None,
    draws: Annotated[int, typer.Option("--draws", help="Random sets of each control, at least 2.")] = 5,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the held-out table as JSON lines.")] = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Find heads whose calibration helps a task, and test them on held-out prompts beside random heads. Resumable."""
    one_of(task, TASK_NAMES, "--task")
    one_of(method, METHOD_NAMES, "--method")
    if detection is not None and (method != "act" or detection not in ("paper", "code")):
        raise OptionError(
            f"--detection must be paper or code, and goes with --method act; got {detection!r} with {method}"
        )
    if heads != "all" and not (heads.isdecimal() and int(heads)):
        raise OptionError(f"--heads must be a number from 1 on, or all; got {heads!r}")
    at = number_list(layers, "--layers")
    check_out(out / "result", "calibration")
    from interp.batch.folder import prepare
    from interp.batch.lock import locked
    from interp.batch.result import PARTS
    from interp.calibration.methods import act
    from interp.calibration.report import calibrate as measure
    from interp.calibration.saved import save_calibration
    from interp.calibration.search import Selection
    from interp.calibration.tasks import TASKS

    rule = Selection(metric=one_of(metric, ("logprob", "accuracy"), "--metric"), margin=margin, most=most, p=p)
    hooked = load_model(model, **given)
    if hooked.tokenizer is None:
        raise InputDataError("the tasks are text, and this model came without a tokenizer")
    made = TASKS[task](hooked.tokenizer, seed=seed, **({} if prompts is None else {"prompts": prompts}))
    with locked(prepare(out)), counting_parts(quiet=quiet) as progress:
        result = measure(
            hooked,
            made,
            method=act(detection="code") if detection == "code" else method,
            heads=None if heads == "all" else int(heads),
            layers=at,
            selection=rule,
            draws=draws,
            seed=seed,
            folder=out / PARTS,
            progress=progress,
        )
    result.save(out / "result")
    result.plot().write_html(out / "calibration.html", include_plotlyjs=True)
    file = out / "calibration.json"
    kept = bool(result.manifest["calibrated"])
    if kept:
        save_calibration(result, file, model=hooked)
    else:
        file.unlink(missing_ok=True)  # of an earlier run with other options
    if as_json:
        for row in result.table.astype(object).where(result.table.notna(), None).to_dict("records"):
            print_json({str(k): v for k, v in row.items() if k not in ("layer", "head")})
    elif not quiet:
        _print(result, task, method)
        say(f"table, figure and {'calibration.json' if kept else 'parts'} lie in {out}")
    if not kept and not quiet:
        why = "none of the verified heads helped by itself" if result.manifest["moved"] else NOT_MOVED
        say(f"no head was kept, so there is no calibration.json: {why}")
    reached = min((float(x) for x in result.table["mass"].dropna()), default=1.0)
    if reached < MASS_ENOUGH and not quiet:
        say(f"random keys reach {reached:.2f} of the mass of the sinks, so that they are a weak control here")


def _print(result: Any, task: str, method: str) -> None:
    """The held-out table."""
    columns = (
        "metric",
        "base",
        "calibrated",
        "gain",
        "95 % interval",
        "on the search side",
        "against",
        "gain of control",
    )
    rows = [
        [
            r["metric"],
            f"{r['base']:.3f}",
            f"{r['calibrated']:.3f}",
            f"{r['score']:+.3f}",
            f"{r['low']:+.3f} to {r['high']:+.3f}",
            _signed(r["search"]),
            r["against"],
            f"{_signed(r['control'])} ± {_signed(r['spread']).lstrip('+')}",
        ]
        for r in result.table.to_dict("records")
    ]
    heads = result.manifest["calibrated"]
    print_table(
        f"{method} on {task}, held-out prompts, {len(heads)} heads kept of {result.manifest['candidates']} candidates",
        columns,
        rows,
        numbers=columns[1:6],
    )


def _signed(x: float) -> str:
    return "–" if x != x else f"{x:+.3f}"
