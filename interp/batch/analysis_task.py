"""Analyses of a model's heads as tasks: the report of heads, sinks, entropy. A shard is one part of the analysis.

A part leaves a small tree of files (results as `interp.results` saves them); its shard is a zip archive of that tree, stored as it is. Folding
unpacks the archives and has the analysis make its table of them. Which settings, model, software and threads are the plan's is what a worker checks.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from interp.batch.files import make_folder, write_file
from interp.batch.places import Place
from interp.batch.plan import SCHEMA, plan_key, refuse_other_plan
from interp.batch.result import MANIFEST
from interp.batch.scan_runner import model_facts
from interp.batch.task import After, Job, ModelChoice, Recipe, Runner, Unit
from interp.entropy.report import report as entropy_report
from interp.errors import CorruptFileError, OptionError, PlanMismatchError
from interp.heads.report import NOT_MEASURED, REPORT, RESULTS
from interp.heads.report import report as heads_report
from interp.heads.report_parts import PARTS as HEAD_PARTS
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.sinks.report import report as sinks_report

Say = Callable[[str, int, int], None]
Settings = Mapping[str, Any]
WHOLE: Final = "all"
"""Name of the part of an analysis that has no parts."""
UNPACKED: Final = ".unpacked"
"""Where trees go that are not kept."""
DATE: Final = (1980, 1, 1, 0, 0, 0)
"""The date of every file in an archive, so that equal results are equal bytes."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """How an analysis is cut into parts and put together.

    Attributes:
        parts: settings -> names of the parts, in order.
        measure: (model, settings, part, folder, say): measures one part and leaves its files in an empty folder.
        finish: (model, settings, choices, folder): makes the result of the files in `unpacked` of the job's folder; `choices` do not change
            what is measured.
        unpacked: where in the job's folder the trees go.
        result: where in the job's folder the finished result is.
    """

    parts: Callable[[Settings], Sequence[str]]
    measure: Callable[[HookedModel, Settings, str, Path, Say], None]
    finish: Callable[[HookedModel, Settings, Settings, Path], Result]
    unpacked: str
    result: str


def _head_parts(settings: Settings) -> Sequence[str]:
    known = [part.name for part in HEAD_PARTS]
    wanted = settings["parts"] or known
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise OptionError(f"parts must be among {', '.join(known)}; got {', '.join(unknown)}")
    return [name for name in known if name in wanted]


def _measure_heads(model: HookedModel, settings: Settings, part: str, folder: Path, say: Say) -> None:
    own = {name: settings[name] for name in ("tokens", "samples", "seed")}
    heads_report(model, folder=folder / "report", parts=[part], progress=say, **own)
    for path in (folder / "report" / RESULTS).iterdir():
        path.rename(folder / path.name)


def _finish_heads(model: HookedModel, settings: Settings, choices: Settings, folder: Path) -> Result:
    """The wide table; every part is there already, and used."""
    own = {name: settings[name] for name in ("tokens", "samples", "seed")}
    return heads_report(model, folder=folder, parts=_head_parts(settings), rules=choices.get("rules"), **own)


def whole(run: Callable[..., Result], names: Mapping[str, str]) -> Analysis:
    """An analysis of one part.

    Args:
        run: (model, progress=..., and its arguments by name) -> the result; `progress` is called with (steps done, steps).
        names: those arguments -> names of settings.
    """

    def measure(model: HookedModel, settings: Settings, part: str, folder: Path, say: Say) -> None:
        given = {argument: settings[name] for argument, name in names.items()}
        run(model, progress=lambda done, total: say(part, done, total), **given).save(folder / "result")

    return _undivided(measure)


def alone(run: Callable[[HookedModel, Say], Result], result: str = "") -> Analysis:
    """An analysis of one part that only this process knows.

    Args:
        run: (model, say) -> the result; `say` is called with (what is counted, steps done, steps).
        result: where in the job's folder the finished result is.
    """

    def measure(model: HookedModel, settings: Settings, part: str, folder: Path, say: Say) -> None:
        run(model, say).save(folder / "result")

    return _undivided(measure, result)


def _undivided(measure: Callable[[HookedModel, Settings, str, Path, Say], None], result: str = "") -> Analysis:
    """An analysis of one part, which leaves its result in `result` of the part's folder."""
    return Analysis(
        parts=lambda settings: [WHOLE],
        measure=measure,
        finish=lambda model, settings, choices, folder: Result.load(folder / UNPACKED / "result"),
        unpacked=UNPACKED,
        result=result,
    )


ANALYSES: Final[Mapping[str, Analysis]] = {
    "heads.report": Analysis(
        parts=_head_parts, measure=_measure_heads, finish=_finish_heads, unpacked=RESULTS, result=REPORT
    ),
    "sinks": whole(
        sinks_report,
        {"tokens": "tokens", "count": "sequences", "long_tokens": "long_tokens", "form": "form", "seed": "seed"},
    ),
    "entropy": whole(entropy_report, {"tokens": "tokens", "count": "sequences", "seed": "seed"}),
}
"""Kind of a result -> how it is made, by any process. Other analyses bring their `Analysis`, and run in one process."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AnalysisRunner:
    """A loaded model that measures parts of an analysis."""

    model: HookedModel
    analysis: Analysis
    plan: Mapping[str, Any]
    say: Say | None = None

    def run(self, unit: Unit, place: Place, after: After) -> bytes:
        """Measure a part, and return the archive of its files."""
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            # Steps are signs of life, for those who wait for a worker.
            say = self.say or (lambda _part, _done, _total: after(0, 0.0))
            self.analysis.measure(self.model, self.plan["settings"], unit.work["part"], folder, say)
            after(0, time.perf_counter() - began)
            return _archive(folder, plan_key(self.plan))


def analysis_runner(model: HookedModel, record: Mapping[str, Any]) -> AnalysisRunner:
    """A runner for the plan of this record.

    Raises:
        PlanMismatchError: the model, its dtype, the threads or the versions here are not those of the plan.
    """
    here = model_facts(model)
    refuse_other_plan({name: record[name] for name in here}, here, "the job")
    return AnalysisRunner(model=model, analysis=ANALYSES[record["analysis"]], plan=record)


@dataclass(frozen=True, kw_only=True, eq=False)
class AnalysisTask:
    """An analysis of one model.

    Attributes:
        model: what it is of.
        analysis: its kind, one of `ANALYSES` unless `made` says how it is made.
        settings: all that its numbers depend on beside the model, plain values.
        choices: what only the last step looks at, such as the rules of labels.
        choice: how workers in other processes load the model, None where they cannot.
        say: called with (part, steps done, steps) while a part is measured in this process.
        made: how it is made, for an analysis that only this process knows; None takes that of `ANALYSES`.
    """

    model: HookedModel
    analysis: str
    settings: Settings
    choices: Settings = field(default_factory=dict)
    choice: ModelChoice | None = None
    say: Say | None = None
    made: Analysis | None = None

    def __post_init__(self) -> None:
        if self.made is None and self.analysis not in ANALYSES:
            raise OptionError(f"an analysis must be one of {', '.join(ANALYSES)}; got {self.analysis!r}")

    @property
    def how(self) -> Analysis:
        """How it is made."""
        return self.made or ANALYSES[self.analysis]

    @property
    def kind(self) -> str:
        """The analysis."""
        return self.analysis

    @property
    def manifest_file(self) -> str:
        """The manifest of the result."""
        return str(Path(self.how.result) / MANIFEST)

    @property
    def result_file(self) -> str:
        """The table of the result."""
        return str(Path(self.how.result) / "table.parquet")

    def record(self) -> Mapping[str, Any]:
        """The plan."""
        return {"schema": SCHEMA, "analysis": self.analysis, "settings": dict(self.settings), **model_facts(self.model)}

    def units(self) -> Iterator[Unit]:
        """One unit for each part."""
        for index, part in enumerate(self.how.parts(self.settings)):
            yield Unit(index=index, file=f"{index:06d}.zip", work={"part": part})

    def totals(self) -> tuple[int | None, int | None]:
        """Parts, and no tokens: their length says little of how long a part takes."""
        return len(self.how.parts(self.settings)), None

    def check(self, unit: Unit, place: Place) -> None:
        """See that a part was measured by this plan."""
        with place.open(unit.file) as file, _reading(file, unit.file) as archive:
            key = archive.comment.decode("ascii", "replace")
        if key != plan_key(self.record()):
            raise PlanMismatchError(
                f"{unit.file} was measured by another plan; delete that file, or choose another folder"
            )

    def runner(self) -> Runner:
        """A runner with the model at hand."""
        return AnalysisRunner(model=self.model, analysis=self.how, plan=self.record(), say=self.say)

    def recipe(self, place: str) -> Recipe:
        """How workers in other processes get the same model."""
        if self.made is not None:
            raise OptionError(f"{self.analysis} runs in one process; leave out the engine (--workers)")
        if self.choice is None:
            raise OptionError(
                "workers in other processes load the model by name; give choice=ModelChoice(name=..., threads=...)"
            )
        return Recipe(kind=self.kind, model=self.choice, plan=self.record(), place=place)

    def finished(self, folder: Path) -> Result:
        """The result that was made before; the report of heads labels anew, because its rules are no part of the plan."""
        analysis = self.how
        if analysis.unpacked == UNPACKED:
            return Result.load(folder / analysis.result)
        manifest = json.loads((folder / self.manifest_file).read_text(encoding="utf-8"))
        result = analysis.finish(self.model, self.settings, self.choices, folder)
        return _save(result, folder / analysis.result, {"job": manifest["job"]})

    def fold(self, job: Job) -> Result:
        """Unpack the parts and make the result of them."""
        analysis = self.how
        for unit in job.done:
            with job.place.open(unit.file) as file, _reading(file, unit.file) as archive:
                _unpack(archive, job.folder / analysis.unpacked)
        parts = analysis.parts(self.settings)
        there = {**self.settings, "parts": [parts[unit.index] for unit in job.done]}
        result = analysis.finish(self.model, there, self.choices, job.folder)
        record: dict[str, Any] = {"key": job.key, "started": job.started, "shards": len(job.done)}
        if job.set_aside:
            record["set_aside"] = [{"part": parts[unit.index], "error": error} for unit, error in job.set_aside]
        saved = _save(result, job.folder / analysis.result, {"job": record, **_measured(result)})
        if analysis.unpacked == UNPACKED:
            shutil.rmtree(job.folder / UNPACKED)
        return saved


def _measured(result: Result) -> dict[str, Any]:
    """What the manifest says of parts: this job measured them, though the report found them there."""
    parts = result.manifest.get("parts")
    if not isinstance(parts, Mapping):
        return {}
    again = {"used again": "measured"}
    return {"parts": {name: {**x, "outcome": again.get(x["outcome"], x["outcome"])} for name, x in parts.items()}}


def _save(result: Result, folder: Path, more: Mapping[str, Any]) -> Result:
    """Write a result with more in its manifest, each file whole, the manifest last."""
    noted = Result(kind=result.kind, table=result.table, manifest={**result.manifest, **more}, arrays=result.arrays)
    make_folder(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as name:
        beside = noted.save(Path(name) / "result")
        for path in sorted(beside.iterdir(), key=lambda path: (path.name == MANIFEST, path.name)):
            os.replace(path, folder / path.name)
    return noted


def _archive(folder: Path, key: str) -> bytes:
    """The files under a folder in a zip archive, not compressed, with the plan's key as its comment."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = key.encode("ascii")
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
            archive.writestr(zipfile.ZipInfo(path.relative_to(folder).as_posix(), DATE), path.read_bytes())
    return buffer.getvalue()


@contextmanager
def _reading(file: BinaryIO, name: str) -> Iterator[zipfile.ZipFile]:
    """Open an archive; what is wrong with it is said in one sentence."""
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, OSError, KeyError) as error:
        raise CorruptFileError(
            f"shard {name} is damaged ({error}); delete that file and run the same command again: only it is measured anew"
        ) from error


def _unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    """Write the files of an archive under a folder; notes of what could not be measured are joined."""
    for name in archive.namelist():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise CorruptFileError(f"an archive of a part names {name!r}, outside its folder; delete it and run again")
        content, target = archive.read(name), folder / path
        if path.name == NOT_MEASURED and target.exists():
            content = json.dumps({**json.loads(target.read_text(encoding="utf-8")), **json.loads(content)}).encode()
        make_folder(target.parent)
        write_file(target, lambda temporary, content=content: temporary.write_bytes(content))
