"""`interp circuits patch | path | dla | atp | knockout | overlap | codes`: which heads carry an answer, and along which paths."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.analysis import Json, Model, Out, Quiet, Seed, Top, check_out, loading, print_records
from interp.cli.console import say
from interp.cli.counting import counting
from interp.cli.known_tasks import TASKS, Bos, Samples, Task, task_prompts
from interp.cli.options import load_model, number_list, one_of, word_list
from interp.errors import OptionError

if TYPE_CHECKING:
    from interp.results import Result

Sites = Annotated[str, typer.Option("--sites", help="What is patched, with commas: z, q, k, v.")]
Where = Annotated[
    str, typer.Option("--positions", help="all, each, or names of rows and key sets of the task, with commas.")
]
Way = Annotated[str, typer.Option("--direction", help="denoise (what restores) or noise (what is needed).")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Most sequences of one pass.")]


def patch(
    model: Model,
    out: Out,
    task: Task = "ioi",
    samples: Samples = 10,
    bos: Bos = None,
    sites: Sites = "z",
    positions: Where = "all",
    direction: Way = "denoise",
    control: Annotated[
        str, typer.Option("--control", help="none, or 'other pair': the sweep again with another pair's values.")
    ] = "none",
    batch: Batch = 45,
    seed: Seed = 0,
    top: Top = 10,
    as_json: Json = False,
    quiet: Quiet = False,
    **loading: Any,
) -> None:
    """Activation patching: the exact effect of each head's z, q, k or v, one run for each."""
    kind, options = "circuits.activation_patching", _options(task, sites, positions, direction)
    beside = one_of(control, ("none", "other pair"), "--control")
    check_out(out, kind)
    from interp.circuits.activation_patching import activation_patching

    hooked = load_model(model, **loading)
    prompts = task_prompts(hooked, task, samples=samples, bos=bos, seed=seed, needs=("corrupt", "wrong"))
    with counting("patched runs", quiet=quiet) as progress:
        result = activation_patching(hooked, prompts, **options, control=beside, batch=batch, progress=progress)
    _finish(result, out, top=top, as_json=as_json, quiet=quiet)


def atp(
    model: Model,
    out: Out,
    task: Task = "ioi",
    samples: Samples = 10,
    bos: Bos = None,
    sites: Sites = "z",
    positions: Where = "all",
    direction: Way = "denoise",
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Integrated gradients with so many steps; plain if left out.")
    ] = None,
    batch: Batch = 8,
    seed: Seed = 0,
    top: Top = 10,
    as_json: Json = False,
    quiet: Quiet = False,
    **loading: Any,
) -> None:
    """Attribution patching: the first-order effect of every head from one backward pass."""
    kind, options = "circuits.attribution_patching", _options(task, sites, positions, direction)
    check_out(out, kind)
    from interp.circuits.attribution_patching import attribution_patching

    hooked = load_model(model, **loading)
    prompts = task_prompts(hooked, task, samples=samples, bos=bos, seed=seed, needs=("corrupt", "wrong"))
    result = attribution_patching(hooked, prompts, **options, steps=steps, batch=batch)
    _finish(result, out, top=top, as_json=as_json, quiet=quiet)


def path(
    model: Model,
    out: Out,
    task: Task = "ioi",
    samples: Samples = 10,
    bos: Bos = None,
    senders: Annotated[
        str | None, typer.Option("--senders", help="LAYER.HEAD, with commas; all heads if left out.")
    ] = None,
    receivers: Annotated[
        str, typer.Option("--receivers", help="logits, or LAYER.HEAD.q (or .k, .v: key heads), with commas.")
    ] = "logits",
    position: Annotated[str, typer.Option("--position", help="all, or a row or key set of the task.")] = "all",
    mlps: Annotated[str, typer.Option("--mlps", help="recomputed (Wang et al.) or frozen.")] = "recomputed",
    direction: Way = "noise",
    batch: Batch = 45,
    seed: Seed = 0,
    top: Top = 10,
    as_json: Json = False,
    quiet: Quiet = False,
    **loading: Any,
) -> None:
    """Path patching (Wang et al. 2022): the effect of heads along their paths to some receivers."""
    one_of(task, tuple(TASKS), "--task")
    one_of(mlps, ("recomputed", "frozen"), "--mlps")
    way = one_of(direction, ("denoise", "noise"), "--direction")
    ends: Any = "logits" if receivers == "logits" else [_receiver(x) for x in word_list(receivers) or []]
    heads = None if senders is None else [_head(x) for x in word_list(senders) or []]
    check_out(out, "circuits.path_patching")
    from interp.circuits.path_patching import path_patching

    hooked = load_model(model, **loading)
    prompts = task_prompts(hooked, task, samples=samples, bos=bos, seed=seed, needs=("corrupt", "wrong"))
    with counting("senders", quiet=quiet) as progress:
        result = path_patching(
            hooked, prompts, heads, ends, freeze_mlps=mlps == "frozen", direction=way,
            position=position, batch=batch, progress=progress,
        )  # fmt: skip
    _finish(result, out, top=top, as_json=as_json, quiet=quiet)


def dla(
    model: Model,
    out: Out,
    task: Task = "ioi",
    samples: Samples = 10,
    bos: Bos = None,
    seed: Seed = 0,
    top: Top = 10,
    as_json: Json = False,
    quiet: Quiet = False,
    **loading: Any,
) -> None:
    """Direct logit attribution: what each head writes towards the answer by itself, in logits."""
    one_of(task, tuple(TASKS), "--task")
    check_out(out, "circuits.direct_logit_attribution")
    from interp.circuits.direct import direct_logit_attribution

    hooked = load_model(model, **loading)
    prompts = task_prompts(hooked, task, samples=samples, bos=bos, seed=seed, needs=("wrong",))
    result = direct_logit_attribution(hooked, prompts)
    _finish(result, out, top=top, as_json=as_json, quiet=quiet)
    if not quiet and not as_json:
        said = "  ".join(f"{name} {value:.4g}" for name, value in result.manifest["parts"].items())
        say(f"parts (logits): {said}")


def knockout(
    model: Model,
    out: Out,
    keys: Annotated[str, typer.Option("--keys", help="Key set that is hidden, such as IO.")],
    task: Task = "ioi",
    samples: Samples = 10,
    bos: Bos = None,
    queries: Annotated[str, typer.Option("--queries", help="Row or key set that it is hidden from.")] = "end",
    window: Annotated[int, typer.Option("--window", min=1, help="Layers that are cut at a time.")] = 9,
    draws: Annotated[int, typer.Option("--draws", min=1, help="Sets of random other keys.")] = 2,
    batch: Batch = 45,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    **loading: Any,
) -> None:
    """Knock-out sweep (Geva et al. 2023): hide keys from queries in a window of layers, and move the window."""
    one_of(task, tuple(TASKS), "--task")
    check_out(out, "circuits.knockout_sweep")
    from interp.circuits.knockout import knockout_sweep

    hooked = load_model(model, **loading)
    prompts = task_prompts(hooked, task, samples=samples, bos=bos, seed=seed)
    with counting("sweeps", quiet=quiet) as progress:
        result = knockout_sweep(
            hooked, prompts, keys=keys, queries=queries, window=window, draws=draws, seed=seed, batch=batch,
            progress=progress,
        )  # fmt: skip
    _finish(result, out, top=None, as_json=as_json, quiet=quiet)


def overlap(
    first: Annotated[Path, typer.Argument(metavar="DIR", help="Result of one task.")],
    second: Annotated[Path, typer.Argument(metavar="DIR", help="Result of the same tool on another task.")],
    out: Out,
    k: Annotated[str, typer.Option("--k", help="Sizes of the circuits, with commas.")] = "5,10,20",
    position: Annotated[str | None, typer.Option("--position", help="Of results with several.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Overlap of the top heads of two tasks (circuit component reuse), beside random heads of the same layers."""
    check_out(out, "circuits.overlap")
    from interp.circuits.overlap import overlap as measure
    from interp.results import Result

    sizes = number_list(k, "--k") or []
    result = measure(Result.load(first), Result.load(second), sizes, seed=seed, position=position)
    _finish(result, out, top=None, as_json=as_json, quiet=quiet)


def codes(
    model: Model,
    out: Out,
    task: Task = "ioi",
    samples: Samples = 48,
    bos: Bos = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth",
            help="Result of patching that names the circuit; attribution patching of the same prompts if left out.",
        ),
    ] = None,
    size: Annotated[int, typer.Option("--size", min=1, help="Strongest heads of it that count as the circuit.")] = 20,
    position: Annotated[
        str, typer.Option("--position", help="Tokens averaged over: all, or a row or key set of the task.")
    ] = "all",
    scale: Annotated[
        str, typer.Option("--scale", help="Head outputs as they are (none), or of one norm (unit).")
    ] = "none",
    k: Annotated[int, typer.Option("--k", min=1, help="Codes of each head output.")] = 1,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Dictionaries to fit.")] = 4,
    draws: Annotated[int, typer.Option("--draws", min=2, help="Draws of the null, and resamples.")] = 200,
    seed: Seed = 0,
    top: Top = 10,
    as_json: Json = False,
    quiet: Quiet = False,
    **loading: Any,
) -> None:
    """Circuit identification by codes (O'Neill and Bui 2024), beside the norm that needs no codes, chance, and a null."""
    one_of(task, tuple(TASKS), "--task")
    chosen = one_of(scale, ("none", "unit"), "--scale")
    check_out(out, "circuits.codes")
    from interp.circuits.attribution_patching import attribution_patching
    from interp.circuits.coders import shared_dictionary
    from interp.circuits.codes import code_circuits
    from interp.results import Result

    known = None if truth is None else Result.load(truth)
    hooked = load_model(model, **loading)
    prompts = task_prompts(hooked, task, samples=samples, bos=bos, seed=seed, needs=("corrupt", "wrong"))
    if known is None:
        known = attribution_patching(hooked, prompts)
    with counting("dictionaries", quiet=quiet) as progress:
        result = code_circuits(
            hooked, prompts, known, coder=shared_dictionary(scale=chosen), position=position, size=size, k=k,
            trials=trials, draws=draws, seed=seed, progress=progress,
        )  # fmt: skip
    _finish(result, out, top=top, as_json=as_json, quiet=quiet)
    if not quiet and not as_json:
        for row in result.manifest["identification"]:
            null = "" if row["null"] is None else f"; null {row['null']:.3f}, p {row['p']:.3g}"
            said = f"{row['average_precision']:.3f} ({row['low']:.3f} to {row['high']:.3f}), chance {row['chance']:.3f}{null}"
            say(f"average precision of {row['score']}: {said}; ROC-AUC {row['roc_auc']:.3f}")


def _options(task: str, sites: str, positions: str, direction: str) -> dict[str, Any]:
    """The options that patching and attribution share."""
    one_of(task, tuple(TASKS), "--task")
    kinds = [one_of(x, ("z", "q", "k", "v"), "--sites") for x in word_list(sites) or []]
    return {
        "sites": kinds,
        "positions": positions if positions in ("all", "each") else word_list(positions),
        "direction": one_of(direction, ("denoise", "noise"), "--direction"),
    }


def _head(text: str) -> tuple[int, int]:
    layer, dot, head = text.partition(".")
    if not (dot and layer.isdecimal() and head.isdecimal()):
        raise OptionError(f"a head is written LAYER.HEAD, such as 23.3; got {text!r}")
    return int(layer), int(head)


def _receiver(text: str) -> tuple[int, int, str]:
    head, _, kind = text.rpartition(".")
    return (*_head(head), one_of(kind, ("q", "k", "v"), "--receivers, LAYER.HEAD.INPUT: its input"))


def _finish(result: Result, out: Path, *, top: int | None, as_json: bool, quiet: bool) -> None:
    """Save, and print the rows with the largest effect (all of them without `top`)."""
    result.save(out)
    rows: Any = result.table
    if top is not None:
        order = rows["score"].abs().sort_values(ascending=False, kind="stable").index[:top]
        rows = rows.loc[order]
    print_records(result, rows, as_json=as_json, quiet=quiet)
    if not as_json and not quiet:
        say(f"table, arrays and manifest lie in {out}")


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Circuits: which heads carry an answer, along which paths, exactly and to first order.",
)
for _command in (patch, path, dla, atp, knockout, codes):
    app.command()(loading(_command))
app.command()(overlap)
