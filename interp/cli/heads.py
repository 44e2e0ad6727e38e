"""`interp heads NAME MODEL --out DIR`: one command for each analysis of heads; all share the options of `interp.cli.analysis`.

Each function below takes its own options and returns what measures: (model, progress=...) -> the result.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

import typer

from interp.cli.analysis import loading
from interp.cli.heads_files import export_file, gates, import_file
from interp.cli.heads_report import causal, confirm, deploy, page, report
from interp.cli.jobs import in_context, single_analysis
from interp.cli.options import number_list, one_of, shares
from interp.errors import InputDataError

if TYPE_CHECKING:
    from interp.cli.counting import Count
    from interp.models.hooked import HookedModel
    from interp.results import Result

Samples = Annotated[int, typer.Option("--samples", help="Sequences, texts or prompts to average over.")]
Tokens = Annotated[int, typer.Option("--tokens", help="Tokens of each text.")]
Sinks = Annotated[int, typer.Option("--sinks", help="First keys that a streaming head sees.")]
Window = Annotated[int, typer.Option("--window", help="Last keys that a streaming head sees, the row's own included.")]
RepeatedForm = Annotated[
    str,
    typer.Option(
        "--form", help="transformer-lens, olsson, razor or razor-all-copies; text: equal tokens of real text."
    ),
]
Stand = Annotated[
    str, typer.Option("--embedding", help="What stands for a token: embed, mlp, embed+mlp or embed+attn+mlp.")
]
TEXT: Final = "text"
"""The form that looks at equal tokens of real text instead of repeated random ones."""


@single_analysis("heads.retrieval")
def retrieval(
    lengths: Annotated[str, typer.Option("--lengths", help="Tokens of the prompts, with commas.")] = "512,1024",
    depths: Annotated[
        str, typer.Option("--depths", help="Depths of the needle, from 0 to 1, with commas.")
    ] = "0.1,0.3,0.5,0.7,0.9",
    form: Annotated[str, typer.Option("--form", help="paper, code or headkv.")] = "paper",
    span: Annotated[
        str, typer.Option("--span", help="answer (what a model is asked for) or needle (the whole sentence).")
    ] = "answer",
    steps: Annotated[int | None, typer.Option("--steps", help="Most tokens of an answer; 50 if left out.")] = None,
    seed: int = 0,
) -> Any:
    """Retrieval heads: which heads copy a needle into the answer (Wu et al. 2024)."""
    from interp.heads.retrieval import Form
    from interp.heads.retrieval import retrieval as measure
    from interp.tasks import needle

    wanted, places = number_list(lengths, "--lengths") or [], shares(depths, "--depths")
    chosen = one_of(form, get_args(Form), "--form")

    def run(model: HookedModel, *, progress: Count) -> Result:
        if model.tokenizer is None:
            raise InputDataError("prompts and answers are text, and this model came without a tokenizer")
        prompts = needle.prompts(model.tokenizer, lengths=wanted, depths=places, seed=seed)
        return measure(model, prompts, form=chosen, span=span, steps=steps, seed=seed, progress=progress)

    return run


@single_analysis("heads.qrhead")
def qrhead(
    form: Annotated[str, typer.Option("--form", help="paper or code.")] = "code",
    samples: Samples = 16,
    seed: int = 0,
) -> Any:
    """Query-focused retrieval heads: from a question to the document that answers it (QRHead)."""
    from interp.heads.qrhead import Form
    from interp.heads.qrhead import qrhead as measure

    return partial(measure, form=one_of(form, get_args(Form), "--form"), samples=samples, seed=seed)


@single_analysis("heads.streaming")
def streaming(
    form: Annotated[
        str, typer.Option("--form", help="mass, output or gradient; gates are trained by `interp heads gates`.")
    ] = "mass",
    sinks: Sinks = 16,
    window: Window = 64,
    samples: Samples = 4,
    tokens: Tokens = 1024,
    seed: int = 0,
) -> Any:
    """Streaming heads: what a head loses that sees only the first and the last keys (DuoAttention)."""
    from interp.heads.streaming import MEASURES
    from interp.heads.streaming import streaming as measure

    return partial(
        measure,
        form=one_of(form, tuple(MEASURES), "--form"),
        sinks=sinks,
        window=window,
        samples=samples,
        tokens=tokens,
        seed=seed,
    )


@single_analysis("heads.previous_token")
def previous_token(
    form: RepeatedForm = "transformer-lens",
    samples: Samples = 10,
    tokens: Tokens = 512,
    seed: int = 0,
) -> Any:
    """Heads that look at the token before. --tokens is for --form text."""
    return _by_position("previous", form, samples, tokens, seed)


@single_analysis("heads.duplicate_token")
def duplicate_token(
    form: RepeatedForm = "transformer-lens",
    samples: Samples = 10,
    tokens: Tokens = 512,
    seed: int = 0,
) -> Any:
    """Heads that look at earlier copies of the row's token (echo heads). --tokens is for --form text."""
    return _by_position("duplicate", form, samples, tokens, seed)


@single_analysis("heads.induction")
def induction(
    form: RepeatedForm = "transformer-lens",
    samples: Samples = 10,
    tokens: Tokens = 512,
    seed: int = 0,
) -> Any:
    """Heads that look at what followed earlier copies of the row's token. --tokens is for --form text."""
    return _by_position("induction", form, samples, tokens, seed)


@single_analysis("heads.successor")
def successor(embedding: Stand = "mlp", seed: int = 0) -> Any:
    """Successor heads: Monday to Tuesday, from the weights (Gould et al. 2023)."""
    from interp.heads.parts import Embedding
    from interp.heads.successor import successor as measure

    return partial(measure, embedding=one_of(embedding, get_args(Embedding), "--embedding"), seed=seed)


@single_analysis("heads.successor_probe")
def successor_probe(embedding: Stand = "mlp", seed: int = 0) -> Any:
    """Is the place modulo 10 in what successor heads read, and do they use it? Probe and ablation (Gould et al. 2023)."""
    from interp.heads.parts import Embedding
    from interp.heads.successor_probe import successor_probe as measure

    return partial(measure, embedding=one_of(embedding, get_args(Embedding), "--embedding"), seed=seed)


@single_analysis("heads.succession_attention")
def succession_attention(samples: Samples = 40, seed: int = 0) -> Any:
    """Heads that look from an element of an ordered list to the one before: what successor heads do on prompts."""
    from interp.heads.succession_attention import succession_attention as measure

    return partial(measure, samples=samples, seed=seed)


@single_analysis("heads.copying")
def copying(embedding: Stand = "embed+attn+mlp", samples: Samples = 10, seed: int = 0) -> Any:
    """OV copying score: does a head raise the logit of the token it looks at (Olsson et al. 2022)."""
    from interp.heads.copying import copying as measure
    from interp.heads.parts import Embedding

    chosen = one_of(embedding, get_args(Embedding), "--embedding")
    return partial(measure, embedding=chosen, samples=samples, seed=seed)


@single_analysis("heads.patterns")
def patterns(
    candidates: Annotated[
        str, typer.Option("--candidates", help="equal (the same keys a row) or published (MInference's sizes).")
    ] = "equal",
    tokens: Tokens = 2048,
    samples: Samples = 3,
    seed: int = 0,
) -> Any:
    """Sparse pattern of each head: A-shape, vertical-slash or block-sparse (MInference)."""
    from interp.heads.patterns import patterns as measure

    chosen = one_of(candidates, ("equal", "published"), "--candidates")
    return partial(measure, candidates=chosen, tokens=tokens, samples=samples, seed=seed)


@single_analysis("heads.flexprefill")
def flexprefill(tokens: Tokens = 2048, samples: Samples = 3, seed: int = 0) -> Any:
    """FlexPrefill's divergence, choice of pattern and share of computed blocks."""
    from interp.heads.flexprefill import flexprefill as measure

    return partial(measure, tokens=tokens, samples=samples, seed=seed)


def _by_position(kind: str, form: str, samples: int, tokens: int, seed: int) -> Any:
    """One of the three kinds of heads by position, on repeated random tokens or on real text."""
    from interp.heads.positional import Form, Kind, positional
    from interp.heads.positional_text import positional_text

    chosen = one_of(form, (*get_args(Form), TEXT), "--form")
    kinds = (one_of(kind, get_args(Kind), "kind"),)

    def run(model: HookedModel, *, progress: Count) -> Result:
        if chosen == TEXT:
            return positional_text(model, kinds, tokens=tokens, samples=samples, seed=seed, progress=progress)[kinds[0]]
        return positional(model, kinds, form=chosen, samples=samples, seed=seed, progress=progress)[kinds[0]]

    return run


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What each attention head does: scores with controls, one report of them all, ablations, files of the field.",
)
for _command in (
    retrieval,
    qrhead,
    streaming,
    previous_token,
    duplicate_token,
    induction,
    successor,
    successor_probe,
    succession_attention,
    copying,
    patterns,
    flexprefill,
):
    app.command()(_command)
for _command in (gates, report, confirm, causal, deploy):
    app.command()(in_context(loading(_command)))
app.command()(loading(page))
app.command("import")(import_file)
app.command("export")(export_file)
