"""`scan`: exact statistics of every head over a text of any length, written to a folder that can be resumed at any moment.

The folder holds `stats.parquet` (one row per layer, head and statistic), `manifest.json`, `report.html`, and `parts/`: the plan, one file
per shard, and the pictured maps. Shards are whole or absent and are folded in plan order from the files, so the numbers after any number
of interruptions are those of an uninterrupted run, to the last bit. Memory: one context at a time, and the summaries of two shards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from interp import display
from interp.batch.contexts import Context, Cutting, Tally, cut, encode_plain, ids_sha256, special_tokens
from interp.batch.events import Event, Kind, Watcher
from interp.batch.files import write_file, write_json
from interp.batch.folder import Resume, ScanFolder, claim, prepare
from interp.batch.interrupt import Interrupts, ScanInterruptedError, two_step_interrupts
from interp.batch.lock import locked
from interp.batch.measure import measure_shard
from interp.batch.parts import Shard, fold, read_ids_sha256, read_shard, shard_path, write_shard
from interp.batch.pictures import take_pictures
from interp.batch.plan import SCHEMA, Plan
from interp.batch.provenance import commit, machine, model_record, now, versions
from interp.batch.result import MANIFEST, ScanResult, open_scan
from interp.batch.table import write_table
from interp.batch.texts import Texts, as_texts
from interp.errors import OptionError, PlanMismatchError, UnsupportedModelError
from interp.maps.thumbnail import thumbnails_to_bytes
from interp.models.hooked import HookedModel
from interp.stats.catalogue import find, names
from interp.tasks.corpus import Document

MAPS = "maps"
PROBE = "Which kernels serve this model is seen by running it on a sentence."


def scan(
    model: HookedModel,
    texts: Texts | str | Sequence[str | Document],
    *,
    out: str | Path,
    collect: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    context: int = 2048,
    max_tokens: int | None = None,
    shard: int = 4,
    bos: bool | None = None,
    join: bool = False,
    resume: Resume = "auto",
    progress: Watcher | None = None,
    thumbnails: int = 6,
) -> ScanResult:
    """Measure every head of a model over texts, and write the statistics, a manifest and a report.

    Args:
        model: a decoder-only or encoder-only text model with its tokenizer.
        texts: a text, a list of texts, or a source (`interp.batch.texts`: from_file, from_dataset, from_corpus).
        out: folder of the results. Part of the same plan in it is gone on with; a finished one is returned as it is.
        collect: names of statistics, None for all (`interp.stats.names()`), those that sweep over keys included.
        layers: the model's own numbers, None for all.
        context: tokens per model input at most, or the model's own lower limit. Longer texts are cut; rests under 16 are dropped.
        max_tokens: stop after so many tokens, None for all.
        shard: contexts per shard, the unit of what an interruption may cost.
        bos: None leaves the special tokens of each context to the tokenizer; True or False overrides its BOS choice.
        join: join the texts by blank lines before cutting, so that no context is short; otherwise no context holds two texts.
        resume: "auto", "require" (there must be something to go on with) or "never" (there must not).
        progress: called with every `Event`.
        thumbnails: heads whose maps are pictured, 0 for none.

    Returns:
        The finished scan.

    Raises:
        InputDataError: the texts cannot be read or are too short.
        OptionError: an argument has an impossible value.
        PlanMismatchError: the folder holds another plan, or its shards another text.
        OutputError: the folder cannot be written, or another process is working on it. Finished shards are kept.
        ScanInterruptedError: Ctrl-C came; the shard at hand was finished first. A second Ctrl-C raises KeyboardInterrupt at once.
    """
    source = as_texts(texts)
    cutting, plan = _plan(model, source, collect, layers, context, max_tokens, shard, bos, join)
    tally = Tally()
    contexts: Iterable[Context] = cut(source, model, cutting, tally)
    if not source.streamed:
        # The tokens of texts that fit in memory do too; their hash makes the plan's key that of the text itself.
        contexts = list(contexts)
        plan = dataclasses.replace(plan, text={**plan.text, "ids_sha256": tally.digest.hexdigest()})
    job = _Job(model=model, plan=plan, watch=progress or _ignore, total=tally if isinstance(contexts, list) else None)
    folder = Path(out)
    with locked(prepare(folder)), two_step_interrupts(job.notice_interrupt) as interrupts:
        place = claim(folder, plan, resume)
        if place.finished:
            return job.already_done(place)
        first = job.measure(contexts, place, interrupts)
        return job.finish(place, first, tally, thumbnails)


@dataclasses.dataclass(kw_only=True, eq=False)
class _Job:
    """One session of a scan: what it has done so far, and the steps of doing the rest."""

    model: HookedModel
    plan: Plan
    watch: Watcher
    total: Tally | None
    shards: int = 0
    tokens: int = 0
    measured: int = 0
    seconds: float = 0.0

    def tell(self, kind: Kind, message: str = "") -> Event:
        """Send an event to the watcher."""
        counted = self.total is not None and self.total.contexts
        event = Event(
            kind=kind,
            key=self.plan.key,
            shards=self.shards,
            shards_total=-(-self.total.contexts // self.plan.shard) if self.total is not None and counted else None,
            tokens=self.tokens,
            tokens_total=self.total.tokens if self.total is not None else self.plan.max_tokens,
            measured=self.measured,
            seconds=self.seconds,
            message=message,
        )
        self.watch(event)
        return event

    def notice_interrupt(self) -> None:
        """Tell the person what Ctrl-C did."""
        self.tell("notice", "finishing this shard; press Ctrl-C again to stop at once")

    def already_done(self, place: ScanFolder) -> ScanResult:
        """The finished scan of the same plan."""
        result = open_scan(place.folder)
        self.shards, self.tokens = result.manifest["shards"], result.manifest["tokens"]["tokens"]
        if not result.report.exists():
            display.write_report(place.folder)
        self.tell("done", "already done")
        return result

    def measure(self, contexts: Iterable[Context], place: ScanFolder, interrupts: Interrupts) -> Context:
        """Measure the shards that are not there yet, and return the first context of all."""
        first: Context | None = None
        there = sum(1 for _ in place.parts.glob("[0-9]*.parquet"))
        self.tell("plan", f"{there} shards are there already" if there else "")
        for index, group in enumerate(_groups(contexts, self.plan.shard)):
            first = first or group[0]
            path = shard_path(place.parts, index)
            if path.exists():
                _check_same_text(path, group)
                self.tokens += sum(len(c.ids) for c in group)
            else:
                if interrupts.asked:
                    break
                write_shard(path, measure_shard(self.model, group, plan=self.plan, index=index, after=self._count))
            self.shards += 1
            self.tell("shard")
        if interrupts.asked or first is None:
            raise ScanInterruptedError(self.tell("interrupted", "run the same command again to go on"))
        return first

    def finish(self, place: ScanFolder, first: Context, tally: Tally, thumbnails: int) -> ScanResult:
        """Fold the shards, and write everything that a finished scan has."""
        facts: dict[str, Any] = {"seconds": 0.0, "backends": {}}
        summaries = fold(_noting(map(read_shard, (shard_path(place.parts, i) for i in range(self.shards))), facts))
        statistics = {s.name: s for s in find(summaries)}
        pictures = take_pictures(self.model, first, summaries, self.plan.layers, thumbnails)
        for ending, content in zip((".safetensors", ".json"), thumbnails_to_bytes(pictures), strict=True):
            write_file(
                (place.parts / MAPS).with_suffix(ending), lambda path, content=content: path.write_bytes(content)
            )
        scales = {name: s.scale for name, s in statistics.items()}
        record = self.plan.record()
        write_table(place.folder, summaries, scales=scales, layers=self.plan.layers, plan=record, key=self.plan.key)
        manifest = {
            "kind": "scan",
            "schema": SCHEMA,
            "key": self.plan.key,
            "plan": record,
            "model": {**self.plan.model, "layers": self.model.layers, "heads": self.model.heads},
            "statistics": {
                s.name: {
                    "title": s.title,
                    "formula": s.formula,
                    "axis": s.axis,
                    "unit": s.unit,
                    "scale": dataclasses.asdict(s.scale),
                    "undefined": s.undefined,
                    "merge": s.merge,
                    "cost": s.cost,
                    "citation": s.citation,
                }
                for s in statistics.values()
            },
            "tokens": tally.record(),
            "shards": self.shards,
            "backends": list(facts["backends"]),
            "dtype": self.plan.dtype,
            "threads": self.plan.threads,
            "versions": {**self.plan.versions, **versions()},
            "commit": commit(),
            "machine": machine(),
            "started": place.started,
            "finished": now(),
            "seconds": round(facts["seconds"], 3),
            "tokens_per_second": round(tally.tokens / facts["seconds"], 1),
        }
        write_json(place.folder / MANIFEST, manifest)
        display.write_report(place.folder)
        self.tell("done")
        return ScanResult(folder=place.folder, manifest=manifest)

    def _count(self, tokens: int, seconds: float) -> None:
        self.tokens += tokens
        self.measured += tokens
        self.seconds += seconds
        self.tell("context")


def _plan(
    model: HookedModel,
    source: Texts,
    collect: Sequence[str] | None,
    layers: Sequence[int] | None,
    context: int,
    max_tokens: int | None,
    shard: int,
    bos: bool | None,
    join: bool,
) -> tuple[Cutting, Plan]:
    """Check the arguments and make a plan of them."""
    if model.is_encoder_decoder or model.hf.main_input_name != "input_ids":
        raise UnsupportedModelError(
            f"{type(model.hf).__name__} does not read one text as its input; scan takes decoder-only and encoder-only text models. "
            "Use model.run for others"
        )
    wanted = list(names() if collect is None else dict.fromkeys(collect))
    spans = [name for name in wanted if name.startswith("span:")]
    if spans:
        raise OptionError(
            f"collect names {', '.join(spans)}: spans belong to one text and cannot be scanned; use model.run(spans=...)"
        )
    find(wanted)
    numbers = tuple(range(model.layers)) if layers is None else tuple(sorted(set(layers)))
    bad = [n for n in numbers if not 0 <= n < model.layers]
    if bad or not numbers:
        raise OptionError(f"layers must be numbers from 0 to {model.layers - 1}; got {list(layers or ())}")
    size = min(context, model.context_length or context)
    before, after = special_tokens(model, bos)
    cutting = Cutting(size=size, before=before, after=after, max_tokens=max_tokens, join=join)
    facts = model.manifest()
    return cutting, Plan(
        model=model_record(model),
        text=source.record,
        statistics=tuple(wanted),
        layers=numbers,
        context=size,
        shard=shard,
        max_tokens=max_tokens,
        join=join,
        special=(before, after),
        bos=model.bos_record(bos),
        dtype=facts["dtype"],
        device=model.device.type,
        threads=torch.get_num_threads(),
        backend=model.backend,
        runs=_backends(model, wanted, numbers),
        versions=facts["versions"],
    )


def _backends(model: HookedModel, collect: Sequence[str], layers: Sequence[int]) -> tuple[str, ...]:
    """Which kernel backends serve this model here: "auto" may mean another one tomorrow, with other last bits."""
    probe = encode_plain(model, PROBE)
    return model.run(probe, layers=layers, collect=collect, keep="none", logits="none").backends


def _groups(contexts: Iterable[Context], size: int) -> Iterator[list[Context]]:
    group: list[Context] = []
    for context in contexts:
        group.append(context)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _check_same_text(path: Path, group: Sequence[Context]) -> None:
    if read_ids_sha256(path) != ids_sha256([context.ids for context in group]):
        raise PlanMismatchError(
            f"shard {path.name} measured another text than the one at hand, so the text has changed since; choose another folder"
        )


def _noting(shards: Iterable[Shard], facts: dict[str, Any]) -> Iterator[Shard]:
    """Pass shards through and add up what the manifest says of them."""
    for shard in shards:
        facts["seconds"] += shard.seconds
        facts["backends"] |= dict.fromkeys(shard.backends)
        yield shard


def _ignore(_event: Event) -> None:
    """Watch nothing."""
