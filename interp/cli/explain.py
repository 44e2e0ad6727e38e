"""`interp explain MODEL --text ... --target ...`: what a method highlights in one text, and whether that highlight holds up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from interp.cli.analysis import Model, Out, Quiet, Seed, check_out, loading
from interp.cli.console import print_json, print_table, say
from interp.cli.counting import counting
from interp.cli.options import load_model, one_of, shares
from interp.cli.texts import read_text
from interp.errors import OptionError

if TYPE_CHECKING:
    import pandas as pd

    from interp.results import Result

CHECKS: Final = ("panel", "faithfulness", "rollout", "norms", "gradient", "agreement")
COLUMNS: Final = {
    "panel": ("check", "score", "control", "spread", "recency", "beaten", "unit"),
    "faithfulness": ("measure", "bin", "count", "score", "control", "spread", "recency", "log", "kl", "entropy"),
    "rollout": ("position", "token", "score", "control", "ratio", "masked"),
    "norms": ("layer", "head", "score", "control", "spread", "first_weight", "first_norm"),
    "gradient": ("layer", "head", "score", "control", "spread", "positive", "negative"),
    "agreement": ("first", "second", "score", "control", "spread", "spearman", "top_k"),
}
WORDS: Final = ("check", "unit", "measure", "bin", "token", "first", "second")
RANKED: Final = {"rollout": "score", "norms": "score", "gradient": "score"}
"""Checks of which the rows with the largest value are printed, and by what."""


@loading
def explain(
    model: Model,
    out: Out,
    text: Annotated[str | None, typer.Option("--text", "-t", help="The text whose next token is explained.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="A file with the text instead.")] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", help="The next token as text, mostly with a leading space; the prediction if left out."
        ),
    ] = None,
    check: Annotated[
        str, typer.Option("--check", "-c", help="panel, faithfulness, rollout, norms, gradient or agreement.")
    ] = "panel",
    scores: Annotated[
        str, typer.Option("--scores", help="What highlights: attention, rollout, masked, norms, gradient or recency.")
    ] = "rollout",
    share: Annotated[
        str | None,
        typer.Option("--share", help="Share of tokens (panel; 0.1), or several with commas (faithfulness; ERASER's)."),
    ] = None,
    keep_first: Annotated[
        bool, typer.Option("--keep-first", help="Never remove the first token, often a sink (faithfulness).")
    ] = False,
    draws: Annotated[
        int, typer.Option("--draws", help="Random sets, shuffles or targets of the control, at least 2.")
    ] = 10,
    seed: Seed = 0,
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="Rows to print of long tables.")] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON lines.")] = False,
    quiet: Quiet = False,
    **loading: Any,
) -> None:
    """Explain one next token, and check the explanation: removal, random and recent tokens, rollout with its control."""
    chosen = one_of(check, CHECKS, "--check")
    sizes = None if share is None else shares(share, "--share")
    if chosen == "panel" and sizes is not None and len(sizes) != 1:
        raise OptionError(f"the panel checks one highlight: give one --share; got {share!r}")
    said = _text(text, file)
    check_out(out, f"explain.{chosen}")
    hooked = load_model(model, **loading)
    with counting(f"{chosen} {hooked.source.name}", quiet=quiet) as progress:
        removal = {"scores": scores, "progress": progress}
        drawn = {"draws": draws, "seed": seed}
        result = _run(
            hooked, chosen, said, target, sizes=sizes, keep=(0,) if keep_first else (), removal=removal, drawn=drawn
        )
    result.save(out)
    rows = result.table
    if chosen in RANKED:
        rows = rows.sort_values(RANKED[chosen], ascending=False, kind="stable").head(top)
    if as_json:
        for row in rows.astype(object).where(rows.notna(), None).to_dict("records"):
            print_json({str(name): value for name, value in row.items()})
    elif not quiet:
        _print(result, chosen, rows)
        say(f"table, arrays and manifest lie in {out}")


def _run(
    hooked: Any,
    check: str,
    text: str,
    target: str | None,
    *,
    sizes: list[float] | None,
    keep: tuple[int, ...],
    removal: dict[str, Any],
    drawn: dict[str, Any],
) -> Result:
    from interp.explain.agreement import agreement
    from interp.explain.faithfulness import SHARES, faithfulness
    from interp.explain.gradient import gradient
    from interp.explain.norms import norms
    from interp.explain.panel import SHARE, panel
    from interp.explain.rollout import rollout

    if check == "rollout":
        return rollout(hooked, text, target)
    if check == "panel":
        return panel(hooked, text, target, share=SHARE if sizes is None else sizes[0], **removal, **drawn)
    if check == "faithfulness":
        return faithfulness(hooked, text, target, shares=sizes or SHARES, keep=keep, **removal, **drawn)
    measure = {"norms": norms, "gradient": gradient, "agreement": agreement}[check]
    return measure(hooked, text, target, **drawn)


def _text(text: str | None, file: Path | None) -> str:
    """The text that was given in one of the two ways. Raises OptionError if neither or both were given."""
    if (text is None) == (file is None):
        raise OptionError("give the text with --text, or a file that holds it with --file")
    if file is None:
        return str(text)
    return read_text(file)


def _print(result: Result, check: str, rows: pd.DataFrame) -> None:
    columns = COLUMNS[check]
    values: list[list[Any]] = (
        rows[list(columns)].astype(object).where(rows[list(columns)].notna(), None).to_numpy().tolist()
    )
    shown = [["–" if v is None else f"{v:.3g}" if isinstance(v, float) else v for v in row] for row in values]
    asked = result.manifest["question"]
    title = f"{result.manifest['model']['name']}: {check}, next token {asked['target_token']!r} ({asked['target_is']})"
    print_table(title, columns, shown, numbers=[c for c in columns if c not in WORDS])
    if "highlight" in result.manifest:
        said = " ".join(f"{row['position']}:{row['token']!r}" for row in result.manifest["highlight"])
        say(f"highlight by {result.manifest['settings']['scores']}: {said}")
    if "label" in result.manifest:
        say(str(result.manifest["label"]))
