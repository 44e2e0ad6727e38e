"""`interp sae dashboard`: what features fire on, as one page, with a file of each in Neuronpedia's shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.analysis import Out, Quiet, Seed
from interp.cli.console import say
from interp.cli.counting import counting
from interp.cli.options import load_model, number_list, one_of
from interp.cli.sae_files import Autoencoder, OfLayer, layer_of
from interp.cli.sae_texts import Bos, Column, Context, Corpus, Dataset, Split, Text, contexts, side_of, text_record
from interp.errors import OptionError

if TYPE_CHECKING:
    from interp.saes.dashboard import FeatureSource


def dashboard(
    folder: Autoencoder,
    out: Out,
    model: Annotated[
        str | None, typer.Option("--model", help="Model that it is of; the one that its file names if left out.")
    ] = None,
    features: Annotated[
        str, typer.Option("--features", help="Numbers and ranges such as 0,5,9-12, or top:50: those that write most.")
    ] = "top:50",
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
    seed: Seed = 0,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Write DIR/index.html (needs no network and no server) and DIR/features/NUMBER.json: contexts, heads, DFA and logits of features."""
    from interp.saes.files import load

    one_of(side, ("train", "held_out"), "--side")
    _wanted(features)
    sae = load(folder)
    chosen = layer_of(sae.config.metadata, layer)
    name = model or sae.config.metadata.get("model_name")
    if not name:
        raise OptionError("the file does not say which model it is of; give --model NAME")
    hooked = load_model(str(name), **given)
    which: Any = side
    texts = side_of(which, text=text, dataset=dataset, column=column, split=split, corpus=corpus)
    cut = {"size": context, "tokens": tokens, "bos": bos}
    from interp.saes.dashboard import feature_source
    from interp.widgets.feature_page import write_dashboard

    source = feature_source(sae, hooked, chosen, list(contexts(hooked, texts, **cut)), seed=seed)
    with counting("features", quiet=quiet) as progress:
        record = text_record(hooked, texts, **cut)
        page = write_dashboard(source, _features(source, features), out, text=record, progress=progress)
    if not quiet:
        say(f"open {page}; a file of each feature lies in {out / 'features'}")


def _wanted(text: str) -> int | list[int]:
    """How many of the strongest, or the numbers.

    Raises:
        OptionError: it is neither.
    """
    start, colon, count = text.partition(":")
    if not colon:
        return number_list(text, "--features") or []
    if start != "top" or not count.isdecimal() or not int(count):
        raise OptionError(f"--features must be numbers and ranges such as 0,5,9-12, or top:50; got {text!r}")
    return int(count)


def _features(source: FeatureSource, text: str) -> list[int]:
    wanted = _wanted(text)
    if isinstance(wanted, int):
        return source.most_active(wanted)
    return wanted
