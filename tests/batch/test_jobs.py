"""Jobs: shards that fail are tried again and then set aside, whatever was finished is kept, and the result does not know of any of it.

The job is `support/toy_job.py`: its result is a sum of floats in plan order, worked out here by hand.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from interp.batch.endings import IncompleteJobError, JobFailedError
from interp.batch.engine_local import LocalEngine
from interp.batch.events import Event
from interp.batch.failures import FAILURES, Failure, log_failure, read_failures
from interp.batch.interrupt import ScanInterruptedError
from interp.batch.job import run_job
from interp.batch.lock import holder, locked
from interp.batch.status import job_status
from interp.errors import OptionError, OutputError, PlanMismatchError

SCRIPT = Path(__file__).parent / "support" / "toy_job.py"
COUNT = 13


def load_toy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("toy_job", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_job"] = module
    spec.loader.exec_module(module)
    return module


toy = load_toy()
WHOLE = toy.total([toy.content(i) for i in range(COUNT)])


def local(workers: int = 2, **more: Any) -> LocalEngine:
    return LocalEngine(workers=workers, command=(sys.executable, str(SCRIPT)), **more)


def test_the_order_of_the_sum_shows() -> None:
    assert toy.total([toy.content(i) for i in reversed(range(COUNT))]) != WHOLE


def test_a_job_in_this_process(tmp_path: Path) -> None:
    events: list[Event] = []
    task = toy.ToyTask(count=COUNT)
    assert run_job(task, tmp_path, watch=events.append) == WHOLE
    assert [e.kind for e in events] == ["plan", *["context", "context", "shard"] * COUNT, "done"]
    assert events[-1].tokens == events[-1].tokens_total == 10 * COUNT
    assert all(e.worker is None for e in events)
    assert run_job(task, tmp_path) == WHOLE
    assert task.ran == list(range(COUNT))
    status = job_status(tmp_path)
    assert (status.kind, status.state, status.shards, status.shards_total) == ("toy", "finished", COUNT, COUNT)
    assert status.failures == ()


def test_workers_give_the_same_bits(tmp_path: Path) -> None:
    events: list[Event] = []
    assert run_job(toy.ToyTask(count=COUNT), tmp_path, engine=local(3), watch=events.append) == WHOLE
    assert [e.kind for e in events].count("shard") == COUNT
    assert {e.worker for e in events} == {None, 0, 1, 2}
    assert events[-1].workers == 3
    assert events[-1].measured == 10 * COUNT
    # 0.2 s for 10 tokens on each of three workers
    assert events[-1].tokens_per_second == pytest.approx(150)


def test_no_more_workers_than_shards(tmp_path: Path) -> None:
    events: list[Event] = []
    run_job(toy.ToyTask(count=2), tmp_path, engine=local(5), watch=events.append)
    assert {e.worker for e in events if e.worker is not None} <= {0, 1}


def test_failures_are_tried_again(tmp_path: Path) -> None:
    events: list[Event] = []
    task = toy.ToyTask(count=COUNT, fails={4: 2, 11: 1})
    assert run_job(task, tmp_path, watch=events.append) == WHOLE
    assert [e.kind for e in events].count("failed") == 3
    assert events[-1].tokens == events[-1].measured == 10 * COUNT, "tokens of failed attempts are not counted"
    logged = [(f.shard, f.attempt, f.set_aside, f.error) for f in read_failures(tmp_path / "parts")]
    poison = "ValueError: shard {} is poison"
    assert logged == [
        (4, 1, False, poison.format(4)),
        (4, 2, False, poison.format(4)),
        (11, 1, False, poison.format(11)),
    ]


def test_a_shard_is_set_aside_after_three_attempts_and_the_next_session_tries_it_anew(tmp_path: Path) -> None:
    task = toy.ToyTask(count=COUNT, fails={4: 4})
    with pytest.raises(IncompleteJobError, match=r"1 of 13 shards are missing \(4; shard 4: ValueError") as caught:
        run_job(task, tmp_path)
    assert caught.value.result == toy.total([toy.content(i) for i in range(COUNT) if i != 4])
    assert json.loads((tmp_path / "manifest.json").read_text())["set_aside"] == [4]
    assert job_status(tmp_path).state == "incomplete"
    assert [f.set_aside for f in job_status(tmp_path).failures] == [False, False, True]
    assert task.ran.count(4) == 3
    # one failure is left, so the second session tries twice
    assert run_job(task, tmp_path) == WHOLE
    assert task.ran == [*range(4), 4, 4, 4, *range(5, COUNT), 4, 4]
    assert job_status(tmp_path).state == "finished"


def test_a_job_that_cannot_work_ends_early(tmp_path: Path) -> None:
    task = toy.ToyTask(count=1000, fails=dict.fromkeys(range(1000), 99))
    with pytest.raises(JobFailedError, match="shard 0: ValueError: shard 0 is poison"):
        run_job(task, tmp_path)
    assert len(task.ran) == 9
    with pytest.raises(JobFailedError, match="shard 0"):
        run_job(toy.ToyTask(count=1, fails={0: 3}), tmp_path / "one")


def test_errors_raised_on_purpose_end_the_job_at_once(tmp_path: Path) -> None:
    class Refusing(toy.ToyTask):  # type: ignore[name-defined, misc]
        def run(self, unit: Any, place: Any, after: Any) -> bytes:
            if unit.index == 3:
                raise OptionError("no such statistic")
            return super().run(unit, place, after)

    task = Refusing(count=COUNT)
    with pytest.raises(OptionError, match="no such statistic"):
        run_job(task, tmp_path)
    assert task.ran == [0, 1, 2]
    assert job_status(tmp_path).state == "stopped"


def test_merging_measures_nothing(tmp_path: Path) -> None:
    task = toy.ToyTask(count=COUNT)
    run_job(task, tmp_path)
    for index in (0, 7):
        (tmp_path / "parts" / f"{index:06d}.parquet").unlink()
    (tmp_path / "manifest.json").unlink()
    before = list(task.ran)
    with pytest.raises(
        IncompleteJobError, match=r"2 of 13 shards are missing \(0, 7; shard 0: not measured\)"
    ) as caught:
        run_job(task, tmp_path, measure=False)
    assert task.ran == before
    assert caught.value.result == toy.total([toy.content(i) for i in range(COUNT) if i not in (0, 7)])
    assert run_job(task, tmp_path) == WHOLE
    assert task.ran == [*before, 0, 7]


def test_another_plan_is_refused_once_a_shard_is_there(tmp_path: Path) -> None:
    with pytest.raises(JobFailedError):
        run_job(toy.ToyTask(count=3, plan={"x": 1}, fails={0: 9, 1: 9, 2: 9}), tmp_path)
    # nothing was measured, so there is nothing to mix
    run_job(toy.ToyTask(count=3, plan={"x": 2}), tmp_path)
    with pytest.raises(PlanMismatchError, match="x: 2 / 3"):
        run_job(toy.ToyTask(count=3, plan={"x": 3}), tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(PlanMismatchError, match="x: 2 / 3"):
        run_job(toy.ToyTask(count=3, plan={"x": 3}), tmp_path)


def test_where_shards_lie_is_kept_beside_the_plan(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/job/parts"
    task = toy.ToyTask(count=COUNT, fails={3: 9})
    with pytest.raises(IncompleteJobError):
        run_job(task, tmp_path, shards=url)
    assert json.loads((tmp_path / "parts/plan.json").read_text())["shards_at"] == url
    assert (job_status(tmp_path).state, job_status(tmp_path).shards) == ("incomplete", COUNT - 1)
    with pytest.raises(OutputError, match=rf"lie in {url}, and .*here was asked for"):
        run_job(task, tmp_path, shards=str(tmp_path / "here"))
    task.fails.clear()
    before = len(task.ran)
    assert run_job(task, tmp_path) == WHOLE, "nothing is said: they are where they were"
    assert task.ran[before:] == [3]
    assert job_status(tmp_path).shards == COUNT
    assert not list(tmp_path.rglob("*.parquet"))
    with pytest.raises(OptionError, match="must hold no password") as caught:
        run_job(task, tmp_path / "other", shards="sftp://me:secret@host/place")
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "other").exists()


def test_a_place_may_change_while_there_are_no_shards(tmp_path: Path) -> None:
    hopeless = dict.fromkeys(range(3), 9)
    with pytest.raises(JobFailedError):
        run_job(toy.ToyTask(count=3, fails=hopeless), tmp_path / "out", shards=str(tmp_path / "a"))
    run_job(toy.ToyTask(count=3), tmp_path / "out", shards=str(tmp_path / "b"))
    assert json.loads((tmp_path / "out/parts/plan.json").read_text())["shards_at"] == "../b"
    with pytest.raises(JobFailedError):
        run_job(toy.ToyTask(count=3, fails=hopeless), tmp_path / "new", shards=str(tmp_path / "a"))
    run_job(toy.ToyTask(count=3), tmp_path / "new", shards=str(tmp_path / "new/parts"))
    assert "shards_at" not in json.loads((tmp_path / "new/parts/plan.json").read_text())


def test_shards_can_lie_elsewhere(tmp_path: Path) -> None:
    there = tmp_path / "shards"
    there.mkdir()
    assert run_job(toy.ToyTask(count=COUNT), tmp_path / "out", engine=local(), shards=str(there)) == WHOLE
    assert len(list(there.glob("*.parquet"))) == COUNT
    assert not list((tmp_path / "out" / "parts").glob("*.parquet"))


def test_ctrl_c_lets_workers_finish_their_shards(tmp_path: Path) -> None:
    events: list[Event] = []

    def press(event: Event) -> None:
        events.append(event)
        if [e.kind for e in events].count("shard") == 3 and event.kind == "shard":
            signal.raise_signal(signal.SIGINT)

    task = toy.ToyTask(count=COUNT, plan={"seconds": 0.05})
    with pytest.raises(ScanInterruptedError):
        run_job(task, tmp_path, engine=local(), watch=press)
    # the other worker had a shard, which it finished; the one that was free got no other
    finished = [e.kind for e in events].count("shard")
    assert finished in (3, 4)
    assert len(list((tmp_path / "parts").glob("*.parquet"))) == finished
    assert [e.kind for e in events][-1] == "interrupted"
    assert run_job(task, tmp_path, engine=local()) == WHOLE


# ---------------------------------------------------------------- workers that die
def test_a_worker_that_is_killed_costs_one_attempt(tmp_path: Path) -> None:
    events: list[Event] = []
    task = toy.ToyTask(count=COUNT, plan={"die": {"0": 1, "5": 2, "12": 1}, "fail": {"7": 1}})
    assert run_job(task, tmp_path, engine=local(), watch=events.append) == WHOLE
    failures = read_failures(tmp_path / "parts")
    assert sorted((f.shard, f.attempt) for f in failures) == [(0, 1), (5, 1), (5, 2), (7, 1), (12, 1)]
    assert all("SIGKILL" in f.error for f in failures if f.shard != 7)
    assert events[-1].tokens == 10 * COUNT


def test_a_shard_that_kills_every_worker_is_set_aside(tmp_path: Path) -> None:
    task = toy.ToyTask(count=COUNT, plan={"die": {"5": 99}})
    with pytest.raises(IncompleteJobError, match=r"1 of 13 .*shard 5: the worker was killed by SIGKILL"):
        run_job(task, tmp_path, engine=local())
    assert len(read_failures(tmp_path / "parts")) == 3


def test_a_worker_that_hangs_is_killed(tmp_path: Path) -> None:
    """Patience is counted from what a worker said last: neither loading nor a slow shard that speaks now and then costs an attempt."""
    task = toy.ToyTask(count=COUNT, plan={"hang": {"2": 1, "9": 2}, "loading": 1.0, "seconds": 0.1})
    began = time.monotonic()
    assert run_job(task, tmp_path, engine=local(patience=0.8)) == WHOLE
    assert time.monotonic() - began < 60
    failures = read_failures(tmp_path / "parts")
    assert sorted((f.shard, f.attempt) for f in failures) == [(2, 1), (9, 1), (9, 2)]
    assert {f.error for f in failures} == {"the worker said nothing for 0.8 s, and was killed"}


def test_a_shard_on_which_every_worker_hangs_is_set_aside(tmp_path: Path) -> None:
    task = toy.ToyTask(count=3, plan={"hang": {"1": 99}})
    with pytest.raises(IncompleteJobError, match=r"1 of 3 .*said nothing for 0\.5 s"):
        run_job(task, tmp_path, engine=local(patience=0.5))
    assert holder(tmp_path / "parts") is None, "no worker is left"
    with pytest.raises(OptionError, match="patience must be a number of seconds above 0; got 0"):
        local(patience=0.0)


def test_workers_that_refuse_end_the_job(tmp_path: Path) -> None:
    with pytest.raises(PlanMismatchError, match="another model"):
        run_job(toy.ToyTask(count=3, plan={"refuse": True}), tmp_path, engine=local())


def test_workers_that_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"worker \d cannot start: the worker ended with 1: OSError: no model here"):
        run_job(toy.ToyTask(count=3, plan={"no_start": True}), tmp_path, engine=local())
    with pytest.raises(OutputError, match="a worker cannot be started"):
        run_job(toy.ToyTask(count=3), tmp_path / "b", engine=LocalEngine(workers=1, command=("/no/such/python",)))
    with pytest.raises(OptionError, match="at least 1"):
        local(0)


def test_no_worker_outlives_the_job(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if event.kind == "shard":
            raise RuntimeError("the watcher stops it")

    with pytest.raises(RuntimeError, match="the watcher"):
        run_job(toy.ToyTask(count=COUNT, plan={"seconds": 0.2}), tmp_path, engine=local(3), watch=stop)
    # were one alive, it would hold the lock that it inherited
    assert holder(tmp_path / "parts") is None


# ---------------------------------------------------------------- kill -9 at random moments
def attack(folder: Path, seeds: range) -> list[dict[str, Any]]:
    script = SCRIPT.with_name("kill_jobs.py")
    words = [sys.executable, str(script), str(folder), str(seeds.start), str(seeds.stop), str(COUNT)]
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.medium
def test_twenty_jobs_under_fire_end_with_the_same_bits(tmp_path: Path) -> None:
    told = attack(tmp_path, range(20))
    assert len(told) == 20
    for line in told:
        assert line["status"] == 0, line
        out = tmp_path / str(line["seed"])
        assert (out / "result.txt").read_text() == WHOLE
        assert sorted(p.name for p in (out / "parts").glob("*.parquet")) == [f"{i:06d}.parquet" for i in range(COUNT)]
        assert not list(out.rglob("*.tmp"))
    assert sum(line["job_kills"] for line in told) >= 10
    assert sum(line["worker_kills"] for line in told) >= 5
    assert sum(0 < n < COUNT for line in told for n in line["shards_at_kills"]) >= 5, "few kills came in the middle"


def test_orphans_of_a_killed_job_are_waited_for(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    code = (
        "import os, subprocess, sys, time\nfrom pathlib import Path\nfrom interp.batch.lock import locked\n"
        f"with locked(Path({str(parts)!r})):\n"
        "    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1.5)'], close_fds=False)\n"
        "    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=f"number {job.pid}"), locked(parts):
            pass
        assert holder(parts) == job.pid
        job.send_signal(signal.SIGKILL)
        job.wait()
        begun = time.monotonic()
        with locked(parts):
            assert time.monotonic() - begun > 0.2, "the orphan held the lock, and was waited for"


# ---------------------------------------------------------------- disks and logs
def test_a_full_disk_ends_the_job_and_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.replace

    def full(source: Any, target: Any) -> None:
        if str(target).endswith("000005.parquet"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    task = toy.ToyTask(count=COUNT)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OutputError, match=r"cannot write 000005\.parquet: the disk is full"):
            run_job(task, tmp_path)
    assert len(list((tmp_path / "parts").glob("*.parquet"))) == 5
    assert not list(tmp_path.rglob("*.tmp"))
    assert run_job(task, tmp_path) == WHOLE


def test_a_log_that_was_cut_short(tmp_path: Path) -> None:
    failure = Failure(shard=3, attempt=1, set_aside=False, worker=-1, error='"é"')
    log_failure(tmp_path, failure)
    log_failure(tmp_path, failure)
    path = tmp_path / FAILURES
    path.write_bytes(path.read_bytes()[:-20])
    (found,) = read_failures(tmp_path)
    assert (found.shard, found.error) == (3, '"é"')
    assert read_failures(tmp_path / "nowhere") == []


def test_status_of_a_folder_without_a_job(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no job"):
        job_status(tmp_path)
