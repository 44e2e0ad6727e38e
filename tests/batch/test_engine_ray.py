"""Ray: a real cluster of two node processes on this machine; what it measures is what one process measures, whoever dies on the way."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.batch.engine_ray import RayEngine
from interp.batch.events import Event
from interp.batch.scan import scan
from interp.batch.task import ModelChoice, Pending
from interp.errors import OptionError, PlanMismatchError
from interp.models.load import load

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'interp[ray]'")

MODEL = "tiny/llama"
TEXT = "It was a bright cold day in April, and the clocks were striking thirteen, thirteen, thirteen. " * 9
SETTINGS: dict[str, Any] = {"context": 64, "shard": 1, "thumbnails": 0}


def ports() -> dict[str, int]:
    """Free ports for the helpers of a node: without them a node waits half a minute for each helper to choose one."""
    names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    with ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in names]
        for s in free:
            s.bind(("127.0.0.1", 0))
        return {name: s.getsockname()[1] for name, s in zip(names, free, strict=True)}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    node = {"num_cpus": torch.get_num_threads(), "object_store_memory": 100 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={**node, **ports(), "include_dashboard": False})
    made.second = made.add_node(**node, **ports())
    try:
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def choice(name: str = MODEL) -> ModelChoice:
    return ModelChoice(name=name, threads=torch.get_num_threads())


@pytest.mark.medium
def test_a_worker_with_another_model_refuses(tmp_path: Path, cluster: Any) -> None:
    with pytest.raises(PlanMismatchError, match="two plans must not mix"):
        scan(load(MODEL), TEXT, out=tmp_path, engine=RayEngine(workers=1), choice=choice("tiny/gpt2"), **SETTINGS)


@pytest.mark.medium
def test_a_node_is_killed(tmp_path: Path, cluster: Any) -> None:
    model = load(MODEL)
    scan(model, TEXT, out=tmp_path / "reference", **SETTINGS)
    events: list[Event] = []

    def watch(event: Event) -> None:
        events.append(event)
        if event.kind == "shard" and event.workers == 2 and cluster.second is not None:
            node, cluster.second = cluster.second, None
            cluster.remove_node(node, allow_graceful=False)

    done = scan(
        model, TEXT, out=tmp_path / "ray", engine=RayEngine(workers=2), choice=choice(), progress=watch, **SETTINGS
    )
    kinds = [event.kind for event in events]
    shards = done.manifest["shards"]
    assert cluster.second is None, "the node was not killed: one actor did all the work"
    assert kinds.index("shard") < kinds.index("failed") < kinds.index("done")
    assert shards >= 12 and kinds.count("shard") == shards
    assert events[-1].tokens == done.manifest["tokens"]["tokens"]
    assert (tmp_path / "ray/stats.parquet").read_bytes() == (tmp_path / "reference/stats.parquet").read_bytes()
    failures = [json.loads(line) for line in (tmp_path / "ray/parts/failures.jsonl").read_text().splitlines()]
    assert failures and not any(failure["set_aside"] for failure in failures)


def test_nothing_pending_starts_no_cluster() -> None:
    def no_recipe() -> Any:
        raise AssertionError("nobody needs a recipe")

    RayEngine(workers=1).run(no_recipe, Pending(units=iter(())), lambda report: None)


def test_no_worker() -> None:
    with pytest.raises(OptionError, match="workers must be at least 1; got 0"):
        RayEngine(workers=0)
