"""`interp sae harvest | train | eval | dashboard | show | attribute | long-prefix`: sparse autoencoders on attention outputs.

`train` keeps everything in one folder: `harvest` and `held_out` (z of text that is trained on, and of other text), `sae` (checkpoint, log, and
the finished autoencoder as SAELens writes it), `evaluation` and its figures. What is finished is not done again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.analysis import Model, Out, Quiet, Seed, loading
from interp.cli.console import print_json, print_table, say
from interp.cli.counting import counting
from interp.cli.options import load_model, number_list, one_of
from interp.cli.sae_dashboard import dashboard
from interp.cli.sae_files import Autoencoder, OfLayer, layer_of
from interp.cli.sae_progress import training_bar
from interp.cli.sae_show import attribute, long_prefix, show
from interp.cli.sae_texts import (
    Bos,
    Column,
    Context,
    Corpus,
    Dataset,
    Side,
    Split,
    Text,
    contexts,
    side_of,
    text_record,
)
from interp.errors import OptionError

if TYPE_CHECKING:
    from interp.models.hooked import HookedModel
    from interp.saes.evaluation import Evaluation
    from interp.saes.recipe import Recipe
    from interp.saes.store import Store

ARCHITECTURES = ("standard", "gated", "topk", "batchtopk", "jumprelu", "matryoshka_batchtopk")
CHECKED = 8
"""Held-out contexts on which the cross-entropy recovered is measured during training."""

Layer = Annotated[int, typer.Option("--layer", help="Layer whose z is read.")]
Stored = Annotated[str, typer.Option("--store", help="Dtype of z on disk: bfloat16, float16 or float32.")]
LossTokens = Annotated[
    int,
    typer.Option("--loss-tokens", help="Held-out tokens on which the model's own loss is measured, in whole contexts."),
]
Json = Annotated[bool, typer.Option("--json", help="Print metrics as JSON lines.")]


@loading
def harvest(
    model: Model,
    out: Out,
    layers: Annotated[str, typer.Option("--layers", help="Layers, such as 0-11,20.")],
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens at most.")],
    text: Text = None,
    dataset: Dataset = None,
    column: Column = "text",
    split: Split = "train",
    corpus: Corpus = None,
    side: Annotated[str, typer.Option("--side", help="Which text: train, or held_out.")] = "train",
    context: Context = 128,
    bos: Bos = None,
    store: Stored = "bfloat16",
    special: Annotated[str, typer.Option("--special", help="Rows of special tokens: drop or keep.")] = "drop",
    positions: Annotated[
        str | None,
        typer.Option("--positions", help="Positions of each context to keep, such as 1-127; all if left out."),
    ] = None,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Keep z, the attention output before W_O, of many layers in one pass each, as shards on disk. Resumable."""
    numbers = number_list(layers, "--layers") or []
    kept = number_list(positions, "--positions")
    one_of(side, ("train", "held_out"), "--side")
    one_of(special, ("drop", "keep"), "--special")
    source = {"text": text, "dataset": dataset, "column": column, "split": split, "corpus": corpus}
    plan = {
        "layers": tuple(sorted(set(numbers))),
        "dtype": store,
        "keep_special": special == "keep",
        **({} if kept is None else {"first": min(kept), "last": max(kept) + 1}),
    }
    hooked = load_model(model, **given)
    chosen: Any = side
    found = _harvest(hooked, out, chosen, plan, source, context=context, tokens=tokens, bos=bos, quiet=quiet)
    if not quiet:
        say(f"{found.rows:,} rows of {found.d_in} numbers for each of layers {found.layers} lie in {out}")


@loading
def train(
    model: Model,
    out: Out,
    layer: Layer,
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens to train on, those of repeated epochs included.")],
    text: Text = None,
    dataset: Dataset = None,
    column: Column = "text",
    split: Split = "train",
    corpus: Corpus = None,
    context: Context = 128,
    bos: Bos = None,
    store: Stored = "bfloat16",
    harvested: Annotated[
        int | None, typer.Option("--harvest-tokens", help="Tokens to harvest at most; as many as --tokens if left out.")
    ] = None,
    held_out: Annotated[int, typer.Option("--held-out-tokens", help="Tokens of the held-out text.")] = 20_000,
    loss_tokens: LossTokens = 4096,
    arch: Annotated[str, typer.Option("--arch", help=", ".join(ARCHITECTURES) + ".")] = "topk",
    k: Annotated[float, typer.Option("--k", help="Features per token, for the kinds that keep the k largest.")] = 32,
    expansion: Annotated[float, typer.Option("--expansion", help="Features per number of z.")] = 4.0,
    sparsity: Annotated[
        float, typer.Option("--sparsity", help="Weight of the L1 or L0 loss, for the other kinds.")
    ] = 1.0,
    batch: Annotated[int, typer.Option("--batch", help="Tokens of a step.")] = 1024,
    rate: Annotated[
        float | None, typer.Option("--lr", help="Learning rate; 2e-4 scaled to the number of features if left out.")
    ] = None,
    decoder: Annotated[str, typer.Option("--decoder", help="Norms of decoder rows: unit or free.")] = "unit",
    start: Annotated[
        str, typer.Option("--start", help="First directions: active-subspace or random.")
    ] = "active-subspace",
    dead_after: Annotated[
        int, typer.Option("--dead-after", help="Tokens without firing that make a feature dead.")
    ] = 100_000,
    resample_every: Annotated[
        int, typer.Option("--resample-every", help="Steps between resamplings of dead features; 0 for never.")
    ] = 0,
    checkpoint_every: Annotated[int, typer.Option("--checkpoint-every", help="Steps between checkpoints.")] = 200,
    evaluate_every: Annotated[
        int,
        typer.Option(
            "--evaluate-every",
            help="Steps between measurements of CE recovered, a multiple of 20; 0 for one at the end.",
        ),
    ] = 0,
    tensorboard: Annotated[Path | None, typer.Option("--tensorboard", help="Folder for TensorBoard's events.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Harvest, train and evaluate one autoencoder. Stopped, the same command goes on to the same weights."""
    one_of(arch, ARCHITECTURES, "--arch")
    one_of(decoder, ("unit", "free"), "--decoder")
    one_of(start, ("active-subspace", "random"), "--start")
    source = {"text": text, "dataset": dataset, "column": column, "split": split, "corpus": corpus}
    hooked = load_model(model, **given)
    plan = {"layers": (layer,), "dtype": store}
    cut = {"context": context, "bos": bos, "quiet": quiet}
    kept = _harvest(hooked, out / "harvest", "train", plan, source, tokens=harvested or tokens, **cut)
    other = _harvest(hooked, out / "held_out", "held_out", plan, source, tokens=held_out, **cut)
    from interp.saes.config import CHOOSES_K
    from interp.saes.recipe import Recipe

    kind: Any = arch
    rule: Any = decoder
    where: Any = start
    recipe = Recipe(
        architecture=kind,
        d_sae=round(expansion * kept.d_in),
        k=(int(k) if k == int(k) else k) if arch in CHOOSES_K else None,
        tokens=tokens,
        batch=batch,
        learning_rate=rate,
        sparsity=sparsity,
        decoder=rule,
        start=where,
        dead_after=dead_after,
        resample_every=resample_every,
        seed=seed,
    )
    if not quiet:
        say(
            f"{recipe.architecture}, {kept.d_in} -> {recipe.d_sae}: {recipe.steps:,} steps of {batch:,}, "
            f"{recipe.steps * batch:,} tokens of {kept.rows:,} distinct ones, {recipe.steps * batch / kept.rows:.2f} epochs"
        )
    sae = _train(
        hooked, layer, kept, other, recipe, out / "sae", (checkpoint_every, evaluate_every, tensorboard), quiet
    )
    from interp.display import plot
    from interp.saes.evaluation import evaluate

    measured = evaluate(sae, hooked, other, layer, contexts=_first(other, loss_tokens))
    measured.save(out / "evaluation")
    plot("saes.training", out / "sae").write_html(out / "training.html", include_plotlyjs=True)
    measured.plot().write_html(out / "evaluation.html", include_plotlyjs=True)
    _print(measured, as_json, quiet)
    if not quiet:
        say(f"the autoencoder lies in {out / 'sae'}, its metrics in {out / 'evaluation'}, figures beside them")


@loading
def evaluation(
    folder: Autoencoder,
    model: Model,
    out: Out,
    layer: OfLayer = None,
    harvested: Annotated[
        Path | None, typer.Option("--harvest", help="A harvest to measure on, in place of text.")
    ] = None,
    text: Text = None,
    dataset: Dataset = None,
    column: Column = "text",
    split: Split = "train",
    corpus: Corpus = None,
    side: Annotated[str, typer.Option("--side", help="Which text: held_out, or train.")] = "held_out",
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens of text at most.")] = 20_000,
    context: Context = 128,
    bos: Bos = None,
    store: Stored = "bfloat16",
    loss_tokens: LossTokens = 4096,
    as_json: Json = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Measure an autoencoder: reconstruction, prediction of the model, sparse probes; with and without position 0."""
    from interp.saes.evaluation import evaluate
    from interp.saes.files import load
    from interp.saes.store import Store

    one_of(side, ("train", "held_out"), "--side")
    sae = load(folder)
    hooked = load_model(model, **given)
    chosen = layer_of(sae.config.metadata, layer)
    if harvested is not None:
        rows = Store(harvested)
    else:
        source = {"text": text, "dataset": dataset, "column": column, "split": split, "corpus": corpus}
        which: Any = side
        plan = {"layers": (chosen,), "dtype": store}
        rows = _harvest(
            hooked, out / "harvest", which, plan, source, context=context, tokens=tokens, bos=bos, quiet=quiet
        )
    measured = evaluate(sae, hooked, rows, chosen, contexts=_first(rows, loss_tokens))
    measured.save(out / "evaluation")
    measured.plot().write_html(out / "evaluation.html", include_plotlyjs=True)
    _print(measured, as_json, quiet)


# ---------------------------------------------------------------------- steps
def _harvest(
    hooked: HookedModel,
    out: Path,
    side: Side,
    plan: dict[str, Any],
    source: dict[str, Any],
    *,
    context: int,
    tokens: int,
    bos: bool | None,
    quiet: bool,
) -> Store:
    from interp.saes.harvest import HarvestPlan
    from interp.saes.harvest import harvest as run

    texts = side_of(side, **source)
    cut = {"size": context, "tokens": tokens, "bos": bos}
    record = text_record(hooked, texts, **cut)
    with counting(f"harvest of the {side.replace('_', '-')} text, tokens", quiet=quiet) as count:
        return run(
            hooked,
            contexts(hooked, texts, **cut),
            out,
            HarvestPlan(**plan),
            text=record,
            progress=lambda done, speed: count(done, tokens),
        )


def _train(
    hooked: HookedModel,
    layer: int,
    kept: Store,
    other: Store,
    recipe: Recipe,
    folder: Path,
    when: tuple[int, int, Path | None],
    quiet: bool,
) -> Any:
    """Train with everyone listening: the bar, TensorBoard, and the loss in the model."""
    from interp.saes.log import Reporting
    from interp.saes.model_losses import LossMeter
    from interp.saes.training import train as run

    checkpoint_every, evaluate_every, tensorboard = when
    meter = LossMeter(hooked, layer, other.tokens(0).contexts[:CHECKED])
    writer = None if tensorboard is None else _writer(tensorboard)
    with training_bar("training", quiet=quiet) as progress:
        reporting = Reporting(
            checkpoint_every=checkpoint_every,
            evaluate=meter.recovered,
            evaluate_every=evaluate_every,
            progress=progress,
            tensorboard=writer,
        )
        sae = run(kept, layer, recipe, folder, held_out=other, reporting=reporting)
    if writer is not None:
        writer.close()
    return sae


def _writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise OptionError("--tensorboard needs the package tensorboard: pip install tensorboard") from error
    return SummaryWriter(str(folder))


def _first(store: Store, tokens: int) -> list[list[int]]:
    """The first contexts of a harvest that hold so many tokens together, at least one."""
    chosen: list[list[int]] = []
    for shard in range(store.shards):
        for context in store.tokens(shard).contexts:
            if chosen and sum(map(len, chosen)) >= tokens:
                return chosen
            chosen.append(context)
    return chosen


def _print(measured: Evaluation, as_json: bool, quiet: bool) -> None:
    frame: Any = measured.frame
    if as_json:
        for name, row in frame.iterrows():
            print_json({"metric": str(name), **{str(c): None if v != v else float(v) for c, v in row.items()}})
    elif not quiet:
        rows = [
            [name, *("–" if v != v else f"{v:.4g}" for v in row)]
            for name, row in zip(frame.index, frame.to_numpy(), strict=True)
        ]
        columns = ("metric", *map(str, frame.columns))
        print_table(
            f"layer {measured.manifest['layer']}, {measured.manifest['rows']:,} held-out rows",
            columns,
            rows,
            numbers=columns[1:],
        )
        if not measured.probing.empty:
            probes: Any = measured.probing
            cells = [
                [r["task"], r["k"], *(f"{r[c]:.3f}" for c in probes.columns[2:6])] for r in probes.to_dict("records")
            ]
            names = ("task", "k", "features", "numbers of z", "all of z", "shuffled")
            print_table("sparse probes: accuracy, 0.5 is chance", names, cells, numbers=names[1:])


app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Sparse autoencoders on attention outputs.")


@app.callback()
def _sae() -> None:
    """Sparse autoencoders on attention outputs."""


app.command()(harvest)
app.command()(train)
app.command(name="eval")(evaluation)
app.command()(loading(dashboard))
app.command()(show)
app.command()(loading(attribute))
app.command(name="long-prefix")(loading(long_prefix))
