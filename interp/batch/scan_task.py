"""A scan as a task: its plan, its shards of contexts, and what is written when they are folded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from interp import display
from interp.batch.clock import now
from interp.batch.contexts import Context, Cutting, Tally, cut
from interp.batch.files import write_file, write_json
from interp.batch.measure import split_name
from interp.batch.parts import Shard, fold, read_ids_sha256, read_shard
from interp.batch.pictures import take_pictures
from interp.batch.places import Place
from interp.batch.plan import SCHEMA, Plan
from interp.batch.provenance import commit, machine, versions
from interp.batch.result import MANIFEST, PARTS, STATS_FILE, ScanResult, open_scan
from interp.batch.scan_runner import ScanRunner, unit_of
from interp.batch.table import write_table
from interp.batch.task import Job, ModelChoice, Recipe, Runner, Unit
from interp.batch.texts import Texts
from interp.errors import OptionError, PlanMismatchError
from interp.maps.thumbnail import thumbnails_to_bytes
from interp.models.hooked import HookedModel
from interp.stats.catalogue import find

MAPS = "maps"


@dataclasses.dataclass(kw_only=True, eq=False)
class ScanTask:
    """A scan.

    Attributes:
        model: with its tokenizer; it cuts the texts, takes the pictures, and measures where no engine does.
        plan: everything that changes the numbers.
        source: of the texts.
        cutting: of the texts into contexts.
        contexts: those of texts that fit into memory, None for streamed ones.
        total: what the contexts came to, None for streamed ones.
        thumbnails: heads whose maps are pictured.
        choice: how workers in other processes load the model, None where they cannot.
    """

    model: HookedModel
    plan: Plan
    source: Texts
    cutting: Cutting
    contexts: Sequence[Context] | None
    total: Tally | None
    thumbnails: int
    choice: ModelChoice | None = None
    first: Context | None = None
    tally: Tally = dataclasses.field(default_factory=Tally)

    kind = "scan"
    manifest_file = MANIFEST
    result_file = STATS_FILE

    def record(self) -> Mapping[str, Any]:
        """The plan's record."""
        return self.plan.record()

    def units(self) -> Iterator[Unit]:
        """The shards in plan order; on the way the first context is kept for the pictures, and everything counted for the manifest."""
        if self.contexts is not None and self.total is not None:
            self.tally = self.total
            contexts: Iterable[Context] = self.contexts
        else:
            self.tally = Tally()
            contexts = cut(self.source, self.model, self.cutting, self.tally)
        for index, group in enumerate(_groups(contexts, self.plan.shard)):
            if index == 0:
                self.first = group[0]
            yield unit_of(index, group)

    def totals(self) -> tuple[int | None, int | None]:
        """(shards, tokens) that there will be; of streamed texts only the limit on tokens is known."""
        if self.total is None:
            return None, self.plan.max_tokens
        return -(-self.total.contexts // self.plan.shard), self.total.tokens

    def check(self, unit: Unit, place: Place) -> None:
        """See that a shard measured the token ids that the unit has now."""
        with place.open(unit.file) as file:
            measured = read_ids_sha256(file, unit.file)
        if measured != unit.work["ids_sha256"]:
            raise PlanMismatchError(
                f"shard {unit.file} measured another text than the one at hand, so the text has changed since; choose another folder"
            )

    def runner(self) -> Runner:
        """A runner with the model at hand."""
        return ScanRunner(model=self.model, plan=self.plan)

    def recipe(self, place: str) -> Recipe:
        """How workers in other processes get the same model."""
        if self.choice is None:
            raise OptionError(
                "workers in other processes load the model by name; give choice=ModelChoice(name=..., threads=...)"
            )
        return Recipe(kind=self.kind, model=self.choice, plan=self.record(), place=place)

    def finished(self, folder: Path) -> ScanResult:
        """The scan that was finished before; its report is written again if it is lost."""
        result = open_scan(folder)
        if not result.report.exists():
            display.write_report(folder)
        return result

    def fold(self, job: Job) -> ScanResult:
        """Fold the shards, and write the table, the pictures, the manifest and the report."""
        facts: dict[str, Any] = {"seconds": 0.0, "backends": {}, "tokens": 0, "splits": {}}
        summaries = fold(self._shards(job, facts))
        if self.first is not None:
            pictures = take_pictures(self.model, self.first, summaries, self.plan.layers, self.thumbnails)
            for ending, content in zip((".safetensors", ".json"), thumbnails_to_bytes(pictures), strict=True):
                path = (job.folder / PARTS / MAPS).with_suffix(ending)
                write_file(path, lambda temporary, content=content: temporary.write_bytes(content))
        statistics = find(summaries)
        scales = {s.name: s.scale for s in statistics}
        write_table(job.folder, summaries, scales=scales, layers=self.plan.layers, plan=self.record(), key=job.key)
        manifest = {
            "kind": "scan",
            "schema": SCHEMA,
            "key": job.key,
            "plan": self.record(),
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
                for s in statistics
            },
            "tokens": self.tally.record(),
            "shards": len(job.done),
            "backends": list(facts["backends"]),
            "dtype": self.plan.dtype,
            "threads": self.plan.threads,
            "versions": {**self.plan.versions, **versions()},
            "commit": commit(),
            "machine": machine(),
            "started": job.started,
            "finished": now(),
            "seconds": round(facts["seconds"], 3),
            "tokens_per_second": round(facts["tokens"] / facts["seconds"], 1),
            **({"splits": facts["splits"]} if facts["splits"] else {}),
        }
        if job.set_aside:
            manifest["set_aside"] = [
                {"shard": unit.index, "tokens": unit.tokens, "error": error} for unit, error in job.set_aside
            ]
            manifest["tokens"]["measured"] = facts["tokens"]
        write_json(job.folder / MANIFEST, manifest)
        display.write_report(job.folder)
        return ScanResult(folder=job.folder, manifest=manifest)

    def _shards(self, job: Job, facts: dict[str, Any]) -> Iterator[Shard]:
        """Read the shards one by one, and add up what the manifest says of them."""
        for unit in job.done:
            with job.place.open(unit.file) as file:
                shard = read_shard(file, unit.file)
            facts["seconds"] += shard.seconds
            facts["tokens"] += shard.tokens
            facts["backends"] |= dict.fromkeys(shard.backends)
            if job.place.has(split_name(unit.index)):
                facts["splits"][str(unit.index)] = list(shard.batches) or "one by one"
            yield shard


def _groups(contexts: Iterable[Context], size: int) -> Iterator[list[Context]]:
    group: list[Context] = []
    for context in contexts:
        group.append(context)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
