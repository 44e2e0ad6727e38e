"""`interp heads report | confirm | causal | deploy | page`: the whole taxonomy of a model, its ablations, a deployment, and its pages.

The folder of a report holds `report` (the table), `results` (every analysis), `confirm`, `causal`, `embedding`, `atlas.html` and `heads/*.html`.
The report is a job, and so are `confirm` and `causal` in folders of their own, and a deployment: what is finished is used again.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from interp.cli.analysis import Model, Out, Quiet, Seed, load_like
from interp.cli.console import print_table, say
from interp.cli.counting import counting
from interp.cli.jobs import RESULT, EngineName, Patience, Workers, check_job, run_alone, run_analysis
from interp.cli.options import load_model, number_list, one_of, word_list
from interp.errors import OptionError

if TYPE_CHECKING:
    from interp.batch.analysis_task import Say
    from interp.results import Result

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a finished report.")]
Like = Annotated[
    str | None, typer.Option("--model", help="Where the report's model is, if not under the name in its manifest.")
]
Apart = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder of the job; one of the command's name in DIR if left out.")
]
Draws = Annotated[int, typer.Option("--draws", help="Sets of random heads of the same layers, at least 2.")]
Pages = Annotated[int, typer.Option("--pages", min=0, help="Pages of single heads: so many for each label.")]
STRONGEST = 5


def report(
    ctx: Any,
    model: Model,
    out: Out,
    tokens: Annotated[int, typer.Option("--tokens", help="Length of the long inputs.")] = 2048,
    samples: Annotated[int, typer.Option("--samples", help="Sequences and texts to average over.")] = 10,
    parts: Annotated[
        str | None, typer.Option("--parts", help="Parts to measure, with commas; all if left out.")
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", help="Threshold of a label as NAME=VALUE, such as retrieval=0.2; may be repeated."),
    ] = None,
    pages: Pages = 2,
    seed: Seed = 0,
    workers: Workers = None,
    engine: EngineName = "local",
    patience: Patience = None,
    quiet: Quiet = False,
    **loading: Any,
) -> None:
    """Run the whole taxonomy of heads: every score with spread and control, labels by rule, an atlas page. A job of parts: resumable."""
    from interp.heads.embedding import embedding
    from interp.widgets.atlas import EMBEDDING, write_atlas
    from interp.widgets.head_page import write_head_pages

    wide = run_analysis(
        ctx,
        "heads.report",
        {"tokens": tokens, "samples": samples, "parts": word_list(parts), "seed": seed},
        choices={"rules": _rules(rule or [])},
        shown={
            "model": model,
            "out": out,
            "workers": workers,
            "engine": engine,
            "patience": patience,
            "quiet": quiet,
            **loading,
        },
    )
    try:
        embedding(wide, seed=seed).save(out / EMBEDDING)
    except OptionError as error:
        say(f"no embedding of the heads: {error}")
    if pages:
        with counting("pages of heads", quiet=quiet) as count:
            hooked = load_model(model, **loading)
            write_head_pages(hooked, out, most=pages, seed=seed, progress=count)
    path = write_atlas(out)
    if not quiet:
        _print_report(wide)
        say(f"atlas: {path}")


def confirm(
    ctx: Any,
    folder: Folder,
    model: Like = None,
    out: Apart = None,
    kinds: Annotated[
        str, typer.Option("--kinds", help="Ways to ablate, with commas: zero, mean, uniform.")
    ] = "zero,mean,uniform",
    labels: Annotated[str | None, typer.Option("--labels", help="Labels, with commas; all if left out.")] = None,
    draws: Draws = 5,
    seed: Seed = 0,
    quiet: Quiet = False,
    **loading: Any,
) -> None:
    """Ablate the strongest heads of each label, and random heads of the same layers. A job: resumable; writes the atlas anew."""
    from interp.heads.ablation import Kind
    from interp.heads.confirm import MOST
    from interp.heads.confirm import confirm as measure
    from interp.heads.labels import LABELS, labelled
    from interp.heads.report import load_report
    from interp.interventions.controls import within_half
    from interp.widgets.atlas import CONFIRM, write_atlas

    place = folder / CONFIRM if out is None else out
    wide, _ = load_report(folder)
    wanted = [one_of(x, LABELS, "--labels") for x in word_list(labels) or LABELS]
    ways = [one_of(x, get_args(Kind), "--kinds") for x in word_list(kinds) or []]
    check_job(place, "heads.confirm")
    hooked = load_like(dict(wide.manifest["model"]), model, loading)
    heads = {name: within_half(x, hooked.heads, MOST) for name, x in labelled(wide.table).items() if name in wanted}

    def run(steps: Path, say: Say) -> Result:
        progress = partial(say, "ablations")
        return measure(hooked, heads, kinds=ways, draws=draws, seed=seed, folder=steps, progress=progress)

    settings = {"heads": heads, "kinds": ways, "draws": draws, "seed": seed}
    result = run_alone(ctx, hooked, "heads.confirm", settings, run, out=place, quiet=quiet)
    path = write_atlas(folder)
    if not quiet:
        columns = ("label", "kind", "metric", "base", "ablated", "random heads", "harm", "harm of random")
        rows = [
            [
                *(r[c] for c in columns[:3]),
                f"{r['base']:.4g}",
                f"{r['ablated']:.4g}",
                f"{r['control_mean']:.4g} ± {r['control_std']:.2g}",
                f"{r['score']:.3g}",
                f"{r['control']:.3g} ± {r['spread']:.2g}",
            ]
            for r in result.table.to_dict("records")
        ]
        print_table(
            "Ablation of labelled heads, and of random heads of the same layers", columns, rows, numbers=columns[3:]
        )
        say(f"atlas: {path}")


def causal(
    ctx: Any,
    folder: Folder,
    model: Like = None,
    out: Apart = None,
    k: Annotated[str, typer.Option("--k", help="How many of the strongest heads to mask, with commas.")] = "1,5,10,20",
    kind: Annotated[str, typer.Option("--kind", help="How to mask: zero, mean or uniform.")] = "zero",
    length: Annotated[int, typer.Option("--length", help="Tokens of the needle prompts.")] = 512,
    draws: Draws = 5,
    seed: Seed = 0,
    quiet: Quiet = False,
    **loading: Any,
) -> None:
    """Needle recall with the top k retrieval heads masked, and with k random heads of the same layers. A job: resumable."""
    from interp.heads.ablation import Kind
    from interp.heads.causal import causal_retrieval
    from interp.heads.confirm_tasks import needle_task
    from interp.heads.report import load_report

    place = folder / "causal" if out is None else out
    counts, way = number_list(k, "--k") or [], one_of(kind, get_args(Kind), "--kind")
    wide, parts = load_report(folder)
    if "retrieval" not in parts:
        raise OptionError(
            f"the report in {folder} has no retrieval scores; see why in `interp heads show` or its atlas"
        )
    ranking = parts["retrieval"]
    check_job(place, "heads.causal_retrieval")
    hooked = load_like(dict(wide.manifest["model"]), model, loading)

    def run(steps: Path, say: Say) -> Result:
        return causal_retrieval(
            hooked,
            ranking,
            k=counts,
            draws=draws,
            kind=way,
            task=needle_task(hooked, length=length, seed=seed),
            seed=seed,
            folder=steps,
            progress=partial(say, "masked answers"),
        )

    ranked = [(layer, head) for layer, head, _ in ranking.top(hooked.layers * hooked.heads)]
    settings = {"ranking": ranked, "k": counts, "kind": way, "length": length, "draws": draws, "seed": seed}
    result = run_alone(ctx, hooked, "heads.causal_retrieval", settings, run, out=place, quiet=quiet)
    if not quiet:
        base = result.table["base"].iloc[0]
        rows = [
            [r["k"], f"{r['ablated']:.3f}", f"{r['control_mean']:.3f} ± {r['control_std']:.3f}", r["heads"]]
            for r in result.table.to_dict("records")
        ]
        columns = ("k", "top heads masked", "random heads masked", "heads")
        print_table(f"Needle recall, {base:.3f} unmasked", columns, rows, numbers=columns[:3])
        say(f"table, arrays and manifest lie in {place}")


def deploy(
    ctx: Any,
    model: Model,
    scores: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder of scores: of heads streaming, gates (OUT/result), retrieval ..."),
    ],
    out: Out,
    share: Annotated[float, typer.Option("--share", help="Share of key-value heads that stream.")] = 0.5,
    sinks: Annotated[
        int, typer.Option("--sinks", help="First keys that a streaming head keeps (64 in the paper).")
    ] = 16,
    window: Annotated[int, typer.Option("--window", help="Last keys that it keeps (256 in the paper).")] = 64,
    group: Annotated[
        str, typer.Option("--group", help="How heads that share a key are joined: mean or worst.")
    ] = "mean",
    length: Annotated[int, typer.Option("--length", help="Tokens of the needle prompts.")] = 1024,
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens of the texts for the perplexity.")] = 1024,
    samples: Annotated[int, typer.Option("--samples", help="How many of them.")] = 4,
    draws: Draws = 5,
    seed: Seed = 0,
    quiet: Quiet = False,
    **loading: Any,
) -> None:
    """Needle recall, perplexity and cache bytes with streaming heads, beside full attention and random heads. A job: resumable."""
    from interp.heads.deployment import deployed, deployment
    from interp.heads.duo_mixing import key_heads
    from interp.heads.streaming import Group
    from interp.results import Result

    chosen = one_of(group, get_args(Group), "--group")
    check_job(out, "heads.deployment", RESULT)
    given = Result.load(scores)
    hooked = load_model(model, **loading)
    record = dict(given.manifest.get("model", {}))
    # A published file knows a name at most; a result of ours says exactly which model it is of.
    if "class" in record and record != hooked.manifest()["model"]:
        raise OptionError(f"{scores} holds scores of {record.get('name')}, and what was loaded is {hooked.source.name}")

    def run(steps: Path, say: Say) -> Result:
        return deployment(
            hooked, given, share=share, sinks=sinks, window=window, group=chosen, length=length, text_tokens=tokens,
            text_samples=samples, draws=draws, seed=seed, folder=steps, progress=partial(say, "deployments"),
        )  # fmt: skip

    settings = {
        "streaming": deployed(given, share, group=chosen, shape=(hooked.layers, key_heads(hooked))),
        "share": share, "sinks": sinks, "window": window, "group": chosen, "length": length, "tokens": tokens, "samples": samples,
        "draws": draws, "seed": seed,
    }  # fmt: skip
    result = run_alone(ctx, hooked, "heads.deployment", settings, run, out=out, quiet=quiet, result=RESULT)
    if not quiet:
        columns = ("metric", "full attention", "streaming heads", "random heads", "all heads stream")
        rows = [
            [
                r["metric"],
                f"{r['base']:.4g}",
                f"{r['score']:.4g}",
                f"{r['control']:.4g} ± {r['spread']:.2g}",
                f"{r['everything']:.4g}",
            ]
            for r in result.table.to_dict("records")
        ]
        title = (
            f"{hooked.source.name}: {len(result.manifest['heads'])} key-value heads stream ({sinks} + {window} keys)"
        )
        print_table(title, columns, rows, numbers=columns[1:])
        say(f"table, arrays and manifest lie in {out / RESULT}")


def page(
    folder: Folder,
    heads: Annotated[str, typer.Argument(metavar="LAYER.HEAD,...", help="Heads, with commas.")],
    model: Like = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    **loading: Any,
) -> None:
    """Write the pages of some heads into a report's folder, and link them in its atlas."""
    from interp.heads.report import load_report
    from interp.widgets.atlas import write_atlas
    from interp.widgets.head_page import write_head_pages

    wide, _ = load_report(folder)
    wanted = [_head(x) for x in word_list(heads) or []]
    hooked = load_like(dict(wide.manifest["model"]), model, loading)
    with counting("pages of heads", quiet=quiet) as count:
        paths = write_head_pages(hooked, folder, wanted, seed=seed, progress=count)
    write_atlas(folder)
    for path in paths:
        print(path)


def _rules(given: list[str]) -> Any:
    """Thresholds with those of NAME=VALUE changed."""
    from dataclasses import fields, replace

    from interp.heads.labels import Rules

    rules = Rules()
    known = {f.name: type(getattr(rules, f.name)) for f in fields(rules)}
    for text in given:
        name, _, value = text.partition("=")
        if name not in known:
            raise OptionError(f"--rule must be NAME=VALUE with a name of {', '.join(known)}; got {text!r}")
        try:
            rules = replace(rules, **{name: known[name](value)})
        except ValueError as error:
            raise OptionError(f"--rule {text!r}: {error}") from error
    return rules


def _head(text: str) -> tuple[int, int]:
    layer, dot, head = text.partition(".")
    if not (dot and layer.isdecimal() and head.isdecimal()):
        raise OptionError(f"a head is written LAYER.HEAD, such as 23.2; got {text!r}")
    return int(layer), int(head)


def _print_report(wide: Any) -> None:
    """The strongest heads of each label, what the controls would earn, and what was not measured."""
    from interp.heads.labels import LABELS, SCORES, labelled

    by_label = labelled(wide.table)
    table = wide.table.set_index(["layer", "head"])
    rows = []
    for label in LABELS:
        heads = by_label.get(label, [])
        best = [f"{a}.{b} {table.loc[(a, b), SCORES[label]]:.3g}" for a, b in heads[:STRONGEST]]
        rows.append([label, len(heads), wide.manifest["labels_by_controls"][label], "  ".join(best)])
    columns = ("label", "heads", "by controls", "strongest (layer.head score)")
    print_table(f"{wide.manifest['model']['name']}: heads by label", columns, rows, numbers=columns[1:3])
    for name, record in wide.manifest["parts"].items():
        said = f"{name}: {record['outcome']}, {record['seconds']} s"
        say(said + (f": {record['reason']}" if "reason" in record else ""))
