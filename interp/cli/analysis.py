"""What the commands that analyse one model share: their options, loading, and the tables that they print."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.console import print_json, print_table
from interp.cli.options import load_model
from interp.errors import OutputError

if TYPE_CHECKING:
    import pandas as pd

    from interp.models.hooked import HookedModel
    from interp.results import Result

KEYWORD = inspect.Parameter.KEYWORD_ONLY
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Model: a name that `interp models` lists, a hub id, a folder, or a .gguf file."
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the result.")]
Seed = Annotated[int, typer.Option("--seed", help="Of everything that is drawn.")]
Top = Annotated[int, typer.Option("--top", "-k", min=1, help="How many heads to print.")]
Json = Annotated[bool, typer.Option("--json", help="Print the top heads as JSON lines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")]

LOADING: dict[str, tuple[Any, Any]] = {
    "dtype": (Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")], "float32"),
    "device": (Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 ...")], "cpu"),
    "backend": (
        Annotated[str, typer.Option("--backend", help="Kernels: auto, portable, cpu, triton or reference.")],
        "auto",
    ),
    "threads": (Annotated[int | None, typer.Option("--threads", help="Threads of torch.")], None),
    "revision": (
        Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub model.")],
        None,
    ),
    "offline": (
        Annotated[bool, typer.Option("--offline", help="Take a hub model from this machine's cache, ask nobody.")],
        False,
    ),
}
"""How a model is loaded: option -> its annotation and default; the keywords of `load_model`."""
SHARED: dict[str, tuple[Any, Any]] = {
    "seed": (Seed, 0),
    "top": (Top, 10),
    **LOADING,
    "as_json": (Json, False),
    "quiet": (Quiet, False),
}


def with_options(
    command: Callable[..., None], own: Callable[..., Any], added: dict[str, tuple[Any, Any]]
) -> Callable[..., None]:
    """`command` with the parameters of `own` that are options (annotated by typer), and the added ones behind them."""
    mine = [p.replace(kind=KEYWORD) for p in inspect.signature(own, eval_str=True).parameters.values() if _is_option(p)]
    theirs = [
        inspect.Parameter(name, KEYWORD, annotation=annotation, default=default)
        for name, (annotation, default) in added.items()
    ]
    command.__signature__ = inspect.Signature([*mine, *theirs])  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {p.name: p.annotation for p in (*mine, *theirs)}
    command.__doc__ = own.__doc__
    command.__name__ = own.__name__
    return command


def loading(run: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function that takes the options of `LOADING` as **loading: they are added to its own."""

    def command(**given: Any) -> None:
        run(**given)

    return with_options(command, run, LOADING)


def check_out(out: Path, kind: str) -> None:
    """Refuse a folder that holds something other than a result of this kind, before anything is measured.

    Raises:
        OutputError: it does.
    """
    from interp.results import Result

    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / "manifest.json").exists() or Result.load(out).kind != kind:
        raise OutputError(f"{out} holds something that is not a {kind} result; choose a new folder")


def print_top(result: Result, top: int, *, title: str | None = None, by: str = "score") -> None:
    """Print the heads with the largest score (or other column): that column, spread and control."""
    table = result.table.set_index(["layer", "head"])
    rows = []
    for layer, head, score in result.top(top, by=by):
        row: Any = table.loc[(layer, head)]
        rows.append([f"{layer}.{head}", _number(score), _number(float(row["spread"])), _number(float(row["control"]))])
    name = result.manifest.get("model", {}).get("name", "a model without a name")
    columns = ("head", by, "spread", "control")
    said = title or f"{name}: {result.kind.removeprefix('heads.').replace('_', ' ')}, top heads (layer.head)"
    print_table(said, columns, rows, numbers=columns[1:])


def print_rows(result: Result, top: int, *, by: str = "score") -> None:
    """Print the heads with the largest score (or other column) as JSON lines."""
    table = result.table.set_index(["layer", "head"])
    for layer, head, score in result.top(top, by=by):
        row: Any = table.loc[(layer, head)]
        spread, control = (None if math.isnan(row[name]) else float(row[name]) for name in ("spread", "control"))
        print_json({"layer": layer, "head": head, by: score, "spread": spread, "control": control})


def print_records(result: Result, rows: pd.DataFrame, *, as_json: bool = False, quiet: bool = False) -> None:
    """Print rows of a result's table with all their columns, whatever they are rows of."""
    records = rows.to_dict("records")
    if as_json:
        for row in records:
            print_json({str(k): None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()})
    elif not quiet:
        columns = [c for c in rows.columns if c not in ("layer", "head") or (rows[c] >= 0).to_numpy().any()]
        shown = [[f"{r[c]:.3g}" if isinstance(r[c], float) else r[c] for c in columns] for r in records]
        numbers = [c for c in columns if rows[c].dtype.kind in "if"]
        name = (result.manifest.get("model") or {}).get("name", "a model without a name")
        print_table(
            f"{name}: {result.kind.partition('.')[2].replace('_', ' ') or result.kind}", columns, shown, numbers=numbers
        )


def load_like(record: dict[str, Any], model: str | None, loading: dict[str, Any]) -> HookedModel:
    """Load the model that a result was measured on, and see that it is the same.

    Args:
        record: "model" of the result's manifest.
        model: name, folder or file to load it from; None takes the recorded name.
        loading: the options of `LOADING`.

    Raises:
        OptionError: another model.
    """
    from interp.errors import OptionError

    hooked = load_model(model or str(record["name"]), **loading)
    if hooked.manifest()["model"] != record:
        raise OptionError(
            f"the report is of the model {record['name']}, and what was loaded is {hooked.source.name} (or another revision of it); "
            "give --model NAME, FOLDER or FILE of the same weights"
        )
    return hooked


def _is_option(parameter: inspect.Parameter) -> bool:
    metadata = getattr(parameter.annotation, "__metadata__", ())
    return any(type(x).__module__.startswith("typer") for x in metadata)


def _number(x: float) -> str:
    return "–" if math.isnan(x) else f"{x:.3g}"
