"""A worker's side of a scan: units of contexts as plain values, and the runner that measures them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from interp.batch.contexts import Context, encode_plain, ids_sha256
from interp.batch.measure import measure_shard
from interp.batch.parts import shard_bytes, shard_name
from interp.batch.places import Place
from interp.batch.plan import Plan, refuse_other_plan
from interp.batch.provenance import model_record
from interp.batch.task import After, Unit
from interp.models.hooked import HookedModel

PROBE = "Which kernels serve this model is seen by running it on a sentence."


@dataclass(frozen=True, kw_only=True, eq=False)
class ScanRunner:
    """A loaded model that measures shards of a scan."""

    model: HookedModel
    plan: Plan

    def run(self, unit: Unit, place: Place, after: After) -> bytes:
        """Measure the contexts of a unit, and return the content of their shard's file."""
        contexts = contexts_of(unit)
        return shard_bytes(
            measure_shard(self.model, contexts, plan=self.plan, index=unit.index, place=place, after=after)
        )


def scan_runner(model: HookedModel, record: Mapping[str, Any]) -> ScanRunner:
    """A runner for the plan of this record.

    Raises:
        PlanMismatchError: the model, its dtype, the kernels, the threads or the versions here are not those of the plan.
    """
    plan = Plan.of(record)
    here = facts(model, plan.statistics, plan.layers)
    refuse_other_plan({name: record[name] for name in here}, here, "the job")
    return ScanRunner(model=model, plan=plan)


def model_facts(model: HookedModel) -> dict[str, Any]:
    """What every plan says of the model and the software, as it goes into the plan's record."""
    manifest = model.manifest()
    return {
        "model": model_record(model),
        "dtype": manifest["dtype"],
        "device": model.device.type,
        "threads": torch.get_num_threads(),
        "backend": model.backend,
        "versions": manifest["versions"],
    }


def facts(model: HookedModel, statistics: Sequence[str], layers: Sequence[int]) -> dict[str, Any]:
    """What the plan of a scan says of them: also which backends serve the model here, since "auto" may mean others elsewhere."""
    probe = model.run(encode_plain(model, PROBE), layers=layers, collect=statistics, keep="none", logits="none")
    return {**model_facts(model), "backends": list(probe.backends)}


def unit_of(index: int, contexts: Sequence[Context]) -> Unit:
    """The unit of some contexts."""
    work = {
        "ids_sha256": ids_sha256([c.ids for c in contexts]),
        "contexts": [{"document": c.document, "start": c.start, "ids": c.ids.tolist()} for c in contexts],
    }
    return Unit(index=index, file=shard_name(index), work=work, tokens=sum(len(c.ids) for c in contexts))


def contexts_of(unit: Unit) -> list[Context]:
    """The contexts of a unit."""
    return [Context(**{**c, "ids": np.array(c["ids"], dtype=np.int64)}) for c in unit.work["contexts"]]
