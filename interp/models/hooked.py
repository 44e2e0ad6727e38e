"""`HookedModel`: a Hugging Face model whose attention runs through `interp_kernels`: runs, statistics, exact maps, a bridge."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from interp.capture.attend import IMPLEMENTATION, listening, register
from interp.capture.call import BackendChoice
from interp.capture.edits import Editing, Intervention, editing, in_force, stand
from interp.capture.inputs import Spans, TextOrIds, Tokens
from interp.capture.probe import Probe, Take, Wish
from interp.capture.record import Keep, Recorder
from interp.capture.run import Capture, Run
from interp.capture.sites import attention_sites
from interp.errors import CaptureError, OptionError, UnsupportedModelError
from interp.models import sizes
from interp.models.passes import Logits, forward, prepare
from interp.models.snapshot import Snapshot
from interp.models.source import ModelSource
from interp.models.verify import check_rows
from interp.stats.catalogue import find, forward_names
from interp.stats.declaration import Statistic
from interp.stats.placement import KEY_SETS

VERSIONED = ("interp", "torch", "transformers", "transformer-lens")
NO_INTERFACE = (
    "{model} does not send its attention through transformers' attention interface: nothing to capture; "
    "models with an attention of their own (Bloom, MPT, Falcon, GPT-J ...) are not supported"
)


def wrap(hf: PreTrainedModel, tokenizer: Any = None, *, source: ModelSource | None = None) -> HookedModel:
    """Hook a Hugging Face model that you loaded yourself. It is changed in place; `HookedModel.release` gives it back as it came.

    Args:
        hf: any transformers model whose attention goes through transformers' attention interface.
        tokenizer: its tokenizer (or a processor that holds one), or None to work with ids and tensors only.
        source: where it came from, for manifests; None records the class name.

    Raises:
        UnsupportedModelError: the model's attention does not go through the interface.
    """
    return HookedModel(hf, tokenizer, source=source or ModelSource(name=type(hf).__name__, kind="wrapped"))


class HookedModel:
    """A hooked model. Build it with `interp.load` or `interp.wrap`.

    Attributes:
        hf: the Hugging Face module, in evaluation mode, its attention implementation set to ours until `release`.
        tokenizer: the model's own tokenizer, or None.
        source: where the weights came from.
        backend: which kernel backend to ask for; "auto" takes the fastest that supports each call.
    """

    def __init__(self, hf: PreTrainedModel, tokenizer: Any, *, source: ModelSource) -> None:
        if getattr(hf.config, "_attn_implementation", None) == IMPLEMENTATION:
            raise UnsupportedModelError("this model is hooked already; use that HookedModel, or release() it first")
        self.hf = hf
        self.tokenizer: PreTrainedTokenizerBase | None = getattr(tokenizer, "tokenizer", tokenizer)
        self.source = source
        self.backend: BackendChoice = "auto"
        self._tokens = Tokens(self.tokenizer)
        self._before = Snapshot(hf)
        self._bridge: Any = None
        self._bridge_built = False
        self._released = False
        self._standing: tuple[Editing, dict[str, Any]] | None = None
        self._sites = attention_sites(hf, encoder_decoder=self.is_encoder_decoder)
        hf.eval()
        register()
        hf.set_attn_implementation(IMPLEMENTATION)
        configs = [m.config for m in hf.modules() if isinstance(m, PreTrainedModel)]
        if all(config._attn_implementation != IMPLEMENTATION for config in configs):
            self._before.restore()
            raise UnsupportedModelError(NO_INTERFACE.format(model=type(hf).__name__))

    # ------------------------------------------------------------------ facts
    @property
    def is_encoder_decoder(self) -> bool:
        """Whether the model has an encoder and a decoder with cross-attention."""
        return sizes.is_encoder_decoder(self.hf.config)

    @property
    def layers(self) -> int:
        """Number of layers (of the decoder, for an encoder-decoder)."""
        return sizes.layers(self.hf.config)

    @property
    def heads(self) -> int:
        """Query heads of each layer (of the decoder, for an encoder-decoder)."""
        return sizes.heads(self.hf.config)

    @property
    def context_length(self) -> int | None:
        """Longest input that the model's positions allow, None where there is no bound."""
        return getattr(self.hf.config.get_text_config(), "max_position_embeddings", None)

    @property
    def device(self) -> torch.device:
        """Device of the first parameter."""
        return next(self.hf.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the first parameter."""
        return next(self.hf.parameters()).dtype

    @property
    def bridge(self) -> Any:
        """The TransformerLens bridge around `hf` (hook names, run_with_hooks, run_with_cache, W_Q ... W_O), None without an adapter.

        Built at first use, because it replaces submodules of `hf` in place and takes a second; runs and statistics are the same with
        and without it. Attention stays fused until `hook_pattern`, `hook_attn_scores`, `hook_rot_q` ... is hooked (for GPT-2 and GPT-NeoX,
        whose projections are joint, also `hook_q`, `hook_k`, `hook_v`); a `run` beside such hooks is refused.
        """
        self._alive()
        if not self._bridge_built:
            from interp.models.bridge import build_bridge  # transformer_lens takes seconds to import

            self._bridge = build_bridge(self.hf, self.tokenizer, self.source.name)
            self._bridge_built = True
            self.hf.set_attn_implementation(IMPLEMENTATION)  # booting a bridge may set eager attention
            self.hf.eval()
            self._sites |= attention_sites(self.hf, encoder_decoder=self.is_encoder_decoder)  # edits hold the dict
        return self._bridge

    def __repr__(self) -> str:
        """Name, class, sizes."""
        return f"HookedModel({self.source.name}: {type(self.hf).__name__}, {self.layers} layers x {self.heads} heads, {self.dtype})"

    # ------------------------------------------------------------------ text
    def encode(self, text: str, bos: bool | None = None) -> list[int]:
        """Token ids, exactly as the model's own tokenizer gives them; `bos` overrides its choice of a first token."""
        return self._tokens.encode(text, bos)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """What each token id says. Untrusted text: escape it where it is shown."""
        return self._tokens.strings(ids)

    # ------------------------------------------------------------------ running
    def run(
        self,
        inputs: TextOrIds,
        *,
        layers: Sequence[int] | None = None,
        collect: Sequence[str] | None = None,
        keep: Keep = "qk",
        logits: Logits = "all",
        bos: bool | None = None,
        spans: Spans | None = None,
        target: TextOrIds | None = None,
    ) -> Run:
        """One forward pass over one text or several, measured.

        Args:
            inputs: a text, token ids, or several of either; for vision and audio models the float tensor their processor makes.
            layers: layers to measure, None for all.
            collect: names of statistics (`interp.stats.names()`), None for all that need no second sweep.
            keep: "qk" keeps queries and keys, O(N), so that `run.attention` works; "none" keeps statistics only.
            logits: "all", "last" (of each text), or "none", which also skips the head of the model.
            bos: None tokenises exactly as the model's tokenizer does; True or False overrides its BOS choice.
            spans: named key sets of `inputs`: name -> (start, stop) token positions, or one pair per text; measured as "span:NAME".
            target: decoder text or ids for encoder-decoders; None: the decoder start token alone.

        Raises:
            InputDataError, ShapeError, OptionError: inputs or options that make no sense; the message says which.
            CaptureError: a layer did not call our attention, or called it twice.
        """
        self._alive()
        names = list(forward_names() if collect is None else collect) + [f"span:{name}" for name in spans or {}]
        statistics = find(names)
        _check_sets(statistics, spans)
        wanted = self._wanted_layers(layers)
        given = prepare(self.hf, self._tokens, inputs, bos=bos, spans=spans, target=target)
        recorder = Recorder(
            sites=self._sites,
            statistics=statistics,
            axes=given.labels(),
            layers=wanted,
            keep=keep,
            backend=self.backend,
        )
        with torch.no_grad(), listening(recorder):
            output = forward(self.hf, given, logits)
        self._check_complete(recorder, wanted)
        captured = {
            kind: {site.layer: r for site, r in recorder.records.items() if site.kind == kind}
            for kind in ("self", "encoder", "cross")
        }
        item = 0 if given.single else None
        sides = {
            "encoder": Capture(captured["encoder"], rows=given.encoder, cols=given.encoder, item=item)
            if captured["encoder"]
            else None,
            "cross": Capture(captured["cross"], rows=given.main, cols=given.encoder, item=item)
            if captured["cross"]
            else None,
        }
        run = Run(
            captured["self"],
            axis=given.main,
            item=item,
            logits=output[0] if output is not None and given.single else output,
            manifest={},
            **sides,
        )
        settings = {
            "layers": list(run.layers),
            "statistics": names,
            "keep": keep,
            "logits": logits,
            "interventions": in_force(self._sites),
            "bos": self.bos_record(bos) if given.from_text else "not ours to choose: no text was given",
        }
        run.manifest.update(self.manifest() | {"settings": settings, "backends": list(run.backends)})
        if given.main is not None:
            run.manifest["token_ids_sha256"] = given.main.digest()
        return run

    @contextmanager
    def edit(self, *interventions: Intervention) -> Iterator[None]:
        """Put interventions in force for everything the model does inside: run, generate, scan, any analysis, any plain forward.

        They act in the order given; those of an outer `edit` act first. Nothing is left behind on exit or on error.

        Raises:
            EditError: an intervention does not fit the model, or (on a clean exit) never acted.
        """
        self._alive()
        for intervention in interventions:
            intervention.check(layers=self.layers, heads=self.heads)
        with editing(interventions, self._sites):
            yield

    def stand(self, interventions: Sequence[Intervention], record: dict[str, Any]) -> None:
        """Put interventions in force until `release`; manifests say `record` under "model". Raises EditError as `edit`, or the second time."""
        self._alive()
        self._standing = (stand(interventions, self._sites, layers=self.layers, heads=self.heads), record)

    def head_outputs(
        self, inputs: TextOrIds, *, layers: Sequence[int] | None = None, bos: bool | None = None
    ) -> dict[int, Tensor]:
        """Head outputs z before W_O, by layer: [batch, head, token, feature], padding on the right for texts of unequal length.

        Runs with gradients if they are enabled where it is called.
        """
        outputs: dict[int, Tensor] = {}
        self.probe(
            inputs, lambda call, attended: outputs.update({call.site.layer: attended.out}), layers=layers, bos=bos
        )
        return outputs

    def probe(
        self,
        inputs: TextOrIds,
        take: Take,
        *,
        collect: Wish = lambda call: None,
        layers: Sequence[int] | None = None,
        bos: bool | None = None,
    ) -> None:
        """One forward pass in which every wanted self-attention call is measured as `collect` says and handed to `take`.

        For analyses that need other measurements than `run` takes; with gradients if they are enabled where it is called.

        Args:
            inputs: as in `run`.
            take: gets (`AttentionCall`, `Attended`) of each layer in order.
            collect: what to collect of a call (`interp.capture.call.Collect`), nothing by default.
            layers: layers wanted, None for all.
            bos: as in `run`.
        """
        self._alive()
        given = prepare(self.hf, self._tokens, inputs, bos=bos, spans=None, target=None)
        wanted = self._wanted_layers(layers)
        with listening(Probe(sites=self._sites, layers=wanted, backend=self.backend, collect=collect, take=take)):
            forward(self.hf, given, "none")

    def generate(self, inputs: TextOrIds, *, bos: bool | None = None, **options: Any) -> Tensor:
        """Generate with Hugging Face's `generate` and its cache, attention through our kernels.

        Args:
            inputs: one text or ids, or several (padded on the left, as generation needs).
            bos: as in `run`.
            options: passed to `hf.generate` (max_new_tokens, do_sample ...).

        Returns:
            Token ids [batch, prompt + new].
        """
        self._alive()
        if "static" in str(options.get("cache_implementation")):
            raise OptionError(
                "cache_implementation: static caches want masks as tensors, which interp does not make; leave it out"
            )
        axis = self._tokens.axis(inputs, bos=bos, spans=None, device=self.device)
        ids, real = (_to_left(x, axis.labels.lengths) for x in axis.padded)
        with torch.no_grad():
            return self.hf.generate(input_ids=ids, attention_mask=real.long(), **options)  # pyright: ignore[reportCallIssue]

    def verify(
        self,
        inputs: TextOrIds = "Interpretability asks what each attention head does.",
        *,
        target: TextOrIds | None = None,
    ) -> float:
        """Check the hook: every layer attends once through us, rows sum to 1, and logits equal the model's own eager attention.

        Returns:
            Largest absolute difference of logits between ours and eager, both in the model's dtype.

        Raises:
            CaptureError: a layer is missing or an attention row does not sum to 1 (less a learned sink's share).
        """
        given = prepare(self.hf, self._tokens, inputs, bos=None, spans=None, target=target)
        run = self.run(inputs, target=target, collect=["entropy", "learned_sink_mass"])
        check_rows(run if given.single else run[0])
        self.hf.set_attn_implementation("eager")
        try:
            with torch.no_grad():
                eager = forward(self.hf, given, "all")
        finally:
            self.hf.set_attn_implementation(IMPLEMENTATION)
        if run.logits is None or eager is None:
            raise CaptureError(f"{type(self.hf).__name__} gives no logits to compare")
        ours = run.logits[None] if given.single else run.logits
        return float((ours - eager).abs().nan_to_num().max())

    def release(self) -> Any:
        """Give the Hugging Face model back as it came (modules, names, config, attention implementation); this object is then spent."""
        if not self._released:
            self._before.restore()
            self._released = True
            self._bridge = self._standing = None
        return self.hf

    def manifest(self) -> dict[str, Any]:
        """What a result must say of the model and of the versions that made it; no machine paths."""
        return {
            "model": {**self.source.record(), "class": type(self.hf).__name__, **(self._standing or (0, {}))[1]},
            "dtype": str(self.dtype).removeprefix("torch."),
            "backend_asked": self.backend,
            "threads": torch.get_num_threads(),
            "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
        }

    def bos_record(self, bos: bool | None) -> str:
        """The choice of a first token in words, for manifests."""
        if bos is not None:
            return "forced on" if bos else "forced off"
        adds = self.tokenizer is not None and self.encode("a") != list(
            self.tokenizer("a", add_special_tokens=False)["input_ids"]
        )
        return "as the tokenizer does: " + ("adds special tokens" if adds else "adds none")

    # ------------------------------------------------------------------ steps of a run
    def _alive(self) -> None:
        if self._released:
            raise CaptureError("this HookedModel was released; hook the model again with interp.wrap(hf, tokenizer)")

    def _wanted_layers(self, layers: Sequence[int] | None) -> frozenset[int] | None:
        if layers is None:
            return None
        bad = [layer for layer in layers if not 0 <= layer < self.layers]
        if bad or not layers:
            raise OptionError(f"layers: wanted numbers from 0 to {self.layers - 1}, got {list(layers)}")
        return frozenset(layers)

    def _check_complete(self, recorder: Recorder, wanted: frozenset[int] | None) -> None:
        if not recorder.called:
            raise UnsupportedModelError(NO_INTERFACE.format(model=type(self.hf).__name__))
        missing = sorted((wanted or set()) - {site.layer for site in recorder.records if site.kind == "self"})
        if missing:
            raise CaptureError(
                f"layers {missing} did not attend through us; layers that did: {sorted({s.layer for s in recorder.called})}"
            )


def _check_sets(statistics: Sequence[Statistic], spans: Spans | None) -> None:
    known = {*KEY_SETS, *(f"span:{name}" for name in spans or {})}
    for s in statistics:
        if missing := sorted(s.needs.sets - known):
            raise OptionError(
                f"statistic {s.name!r} needs the key set {', '.join(missing)}, which nothing names; "
                "name it with spans={'NAME': (start, stop)}"
            )


def _to_left(padded: Tensor, lengths: Tensor) -> Tensor:
    """Move right padding to the left, as generation needs it."""
    n = padded.shape[1]
    return torch.stack([row.roll(int(n - length)) for row, length in zip(padded, lengths, strict=True)])
