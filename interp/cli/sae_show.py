"""`interp sae show | attribute | long-prefix`: whose the features of an autoencoder are, and which heads need a long prefix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.analysis import Model, Out, Quiet, Seed, check_out, print_records
from interp.cli.console import print_json, print_table, say
from interp.cli.counting import counting
from interp.cli.options import load_model, number_list, one_of
from interp.cli.sae_files import Autoencoder, OfLayer, layer_of
from interp.cli.sae_texts import Bos, Column, Context, Corpus, Dataset, Split, Text, contexts, side_of, text_record
from interp.errors import OptionError


def show(
    folder: Autoencoder,
    heads: Annotated[
        int | None, typer.Option("--heads", help="Query heads of its layer; what its file says if left out.")
    ] = None,
    layer: OfLayer = None,
    top: Annotated[int, typer.Option("--top", "-k", min=3, help="Features per head.")] = 10,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the table.")] = None,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the heads as JSON lines.")] = False,
) -> None:
    """Show an autoencoder without its model: for each head its share of the weights, top features, and how many things they write."""
    from interp.saes.attribution import weight_share
    from interp.saes.files import load, load_density
    from interp.saes.polysemanticity import polysemanticity

    sae = load(folder)
    config = sae.config
    count = _heads(config.metadata, heads)
    density = load_density(folder) if folder.is_dir() else None
    alive = None if density is None else (density > 1e-9).numpy()
    result = polysemanticity(sae, count, layer_of(config.metadata, layer), k=top, alive=alive, seed=seed)
    if out is not None:
        check_out(out, result.kind)
        result.save(out)
    mean = weight_share(sae, count).mean(0).tolist()
    rows: list[dict[str, Any]] = [
        {**{str(c): x for c, x in row.items()}, "mean_share": share}
        for row, share in zip(result.table.to_dict("records"), mean, strict=True)
    ]
    if as_json:
        for row in rows:
            print_json({c: None if x != x else x for c, x in row.items()})
        return
    known = "" if alive is None else f", {int(alive.sum()):,} alive"
    said = f"{config.architecture}, {config.d_in} -> {config.d_sae:,} features{known}; {top} features per head"
    columns = ("head", "share of weights", "of its top", "directions", "interval", "at random", "top features")
    cells = [
        [
            f"{r['layer']}.{r['head']}", f"{r['mean_share']:.3f}", f"{r['share']:.2f}", f"{r['score']:.1f}",
            f"{r['low']:.1f} to {r['high']:.1f}", f"{r['control']:.1f}", r["features"],
        ]
        for r in rows
    ]  # fmt: skip
    print_table(said, columns, cells, numbers=columns[1:6])


def attribute(
    folder: Autoencoder,
    model: Annotated[str, typer.Option("--model", help="The model that it is of.")],
    out: Out,
    layer: OfLayer = None,
    text: Text = None,
    dataset: Dataset = None,
    column: Column = "text",
    split: Split = "train",
    corpus: Corpus = None,
    side: Annotated[str, typer.Option("--side", help="Which text: held_out, or train.")] = "held_out",
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Tokens of text at most.")] = 20_000,
    context: Context = 128,
    bos: Bos = None,
    least: Annotated[int, typer.Option("--least", min=1, help="Firings below which a feature is left out.")] = 20,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print a row per feature as JSON lines.")] = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Attribute every firing on some text to heads and source tokens: shares beside those by weights, and families of features."""
    from interp.saes.feature_study import KIND, feature_attribution
    from interp.saes.files import load

    one_of(side, ("train", "held_out"), "--side")
    check_out(out, KIND)
    sae = load(folder)
    chosen = layer_of(sae.config.metadata, layer)
    hooked = load_model(model, **given)
    which: Any = side
    texts = side_of(which, text=text, dataset=dataset, column=column, split=split, corpus=corpus)
    cut = {"size": context, "tokens": tokens, "bos": bos}
    inputs = list(contexts(hooked, texts, **cut))
    with counting("texts", quiet=quiet) as progress:
        result = feature_attribution(hooked, sae, chosen, inputs, least=least, seed=seed, progress=progress)
    result.manifest["settings"]["text"] = text_record(hooked, texts, **cut)
    result.save(out)
    if as_json:
        print_records(result, result.table, as_json=True)
    elif not quiet:
        _print_agreement(result.manifest["agreement"])
        families = result.table["family"].value_counts()
        say(", ".join(f"{name}: {count}" for name, count in families.items()))
        say(f"{len(result.table):,} features; table, shares and manifest lie in {out}")


def _print_agreement(found: dict[str, Any]) -> None:
    """Weights against DFA, each number beside its control."""
    names = ("pearson", "rank", "top_head")
    rows = [
        [f"weights against {what}", *(f"{row[n]:.3f} ({row[f'{n}_control']:.3f})" for n in names)]
        for what, row in found.items()
    ]
    columns = ("shares of heads", "Pearson", "rank correlation", "same first head")
    print_table("agreement (of shuffled features)", columns, rows, numbers=columns[1:])


def long_prefix(
    model: Model,
    out: Out,
    prefixes: Annotated[str, typer.Option("--prefixes", help="Lengths of the prefix, such as 1-9.")] = "1-9",
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens of a sequence.")] = 128,
    samples: Annotated[int, typer.Option("--samples", help="Sequences of each length.")] = 400,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print all rows as JSON lines.")] = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Find induction heads that need a long prefix: attention to what followed it, by its length, with two controls."""
    from interp.saes.long_prefix import KIND
    from interp.saes.long_prefix import long_prefix as run

    lengths = number_list(prefixes, "--prefixes") or []
    check_out(out, KIND)
    hooked = load_model(model, **given)
    with counting("prefix lengths", quiet=quiet) as progress:
        result = run(hooked, prefixes=lengths, tokens=tokens, samples=samples, seed=seed, progress=progress)
    result.save(out)
    if as_json:
        print_records(result, result.table, as_json=True)
    elif not quiet:
        print_records(result, result.table.query("kind != ''"))
        say(f"rows of heads of either kind; table, arrays and manifest lie in {out}")


def _heads(metadata: Any, given: int | None) -> int:
    """The number of heads that was named, or that the file names.

    Raises:
        OptionError: neither.
    """
    chosen = metadata.get("interp", {}).get("heads") if given is None else given
    if chosen is None:
        raise OptionError("the file does not say how many heads its layer has; give --heads H")
    return int(chosen)
