"""`Plan`: everything that changes the numbers of a scan, and the key by which a folder knows which plan it holds part of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interp.errors import CorruptFileError, OptionError, PlanMismatchError
from interp.stats.catalogue import find

SCHEMA = 1
"""Version of the files that a scan writes."""

KEY_LENGTH = 16


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A scan before it runs. Two plans with the same key give the same numbers, to the last bit on one machine.

    Attributes:
        model: the model's record (name, kind, revision, hash, class), free of machine paths.
        text: the source of the text, with a hash or revision; for sources that are not streamed also the hash of all token ids.
        statistics: names of what is measured, in the catalogue's order.
        layers: the model's own numbers of the layers.
        context: tokens per context at most, as used (never more than the model's own limit).
        shard: contexts per shard.
        max_tokens: limit, None for all.
        join: whether texts are joined before cutting.
        special: special token ids before and behind every context.
        bos: the choice of a first token, in words.
        dtype: of the weights.
        device: kind of device that computes.
        threads: torch's threads; sums are split by them.
        backend: the kernel backend asked for.
        runs: the kernel backends that this choice comes to on this machine.
        versions: of interp, torch and the other packages that compute.
        batch: contexts of equal length that go through the model together.
        pack: whether contexts of other texts share a row of the model, as many as have room in `context` tokens, each seeing only itself.
        bucket: contexts that are put in order of length at a time, 0 for none.
    """

    model: Mapping[str, Any]
    text: Mapping[str, str | None]
    statistics: tuple[str, ...]
    layers: tuple[int, ...]
    context: int
    shard: int
    max_tokens: int | None
    join: bool
    special: tuple[tuple[int, ...], tuple[int, ...]]
    bos: str
    dtype: str
    device: str
    threads: int
    backend: str
    runs: tuple[str, ...]
    versions: Mapping[str, str]
    batch: int = 1
    pack: bool = False
    bucket: int = 0

    def __post_init__(self) -> None:
        if self.shard < 1:
            raise OptionError(f"shard must be at least 1 context; got {self.shard}")
        if self.batch < 1:
            raise OptionError(f"batch must be at least 1 context; got {self.batch}")
        if self.pack and (self.join or self.batch > 1):
            raise OptionError("pack fills rows with texts that stay apart; leave out join and batch with it")
        if not self.statistics:
            raise OptionError("collect names no statistic; name at least one, or leave it out for all")

    def record(self) -> dict[str, Any]:
        """Plain values, as they go into `plan.json`, the manifest and the key."""
        return {
            "schema": SCHEMA,
            "model": dict(self.model),
            "text": dict(self.text),
            "statistics": list(self.statistics),
            "definitions_sha256": _definitions_sha256(self.statistics),
            "layers": list(self.layers),
            "context": self.context,
            "shard": self.shard,
            "max_tokens": self.max_tokens,
            "join": self.join,
            "special_tokens": {"before": list(self.special[0]), "after": list(self.special[1])},
            "bos": self.bos,
            "dtype": self.dtype,
            "device": self.device,
            "threads": self.threads,
            "backend": self.backend,
            "backends": list(self.runs),
            "versions": dict(self.versions),
            # Left out where they are not used, so that folders from before there were such settings can be gone on with.
            **({} if self.batch == 1 else {"batch": self.batch}),
            **({"pack": True} if self.pack else {}),
            **({"bucket": self.bucket} if self.bucket else {}),
        }

    @staticmethod
    def of(record: Mapping[str, Any]) -> Plan:
        """The plan of a record, for workers in other processes.

        Raises:
            CorruptFileError: it is no record of a scan's plan.
            PlanMismatchError: a statistic is defined otherwise here.
        """
        special = record.get("special_tokens", {})
        same = ("model", "text", "context", "shard", "max_tokens", "join", "bos", "dtype", "device", "threads")
        try:
            plan = Plan(
                **{name: record[name] for name in (*same, "backend", "versions")},
                statistics=tuple(record["statistics"]),
                layers=tuple(record["layers"]),
                special=(tuple(special["before"]), tuple(special["after"])),
                runs=tuple(record["backends"]),
                batch=record.get("batch", 1),
                pack=record.get("pack", False),
                bucket=record.get("bucket", 0),
            )
        except (KeyError, TypeError) as error:
            raise CorruptFileError(f"this is no plan of a scan ({error}); start the scan again") from error
        refuse_other_plan(record, plan.record(), "the job")
        return plan

    @property
    def key(self) -> str:
        """Hash of the record."""
        return plan_key(self.record())


def plan_key(record: Mapping[str, Any]) -> str:
    """The key of a plan's record."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def refuse_other_plan(there: Mapping[str, Any], wanted: Mapping[str, Any], folder: str) -> None:
    """Compare the plan in a folder with the one at hand.

    Raises:
        PlanMismatchError: they differ; the message names every difference.
    """
    differences = list(_differences(there, wanted))
    if differences:
        raise PlanMismatchError(
            f"{folder} holds a job with another plan, and two plans must not mix. There / now: {'; '.join(differences)}. "
            "Choose another folder, or give the settings that it was begun with"
        )


def _differences(there: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(there, Mapping) and isinstance(now, Mapping):
        keys = [*there, *(key for key in now if key not in there)]
        return [d for k in keys for d in _differences(there.get(k), now.get(k), f"{name}.{k}" if name else k)]
    return [] if there == now else [f"{name}: {_short(there)} / {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _definitions_sha256(names: tuple[str, ...]) -> str:
    """Changes when a statistic's definition does, so that old shards of another definition are not taken."""
    parts = [f"{s.name}|{s.formula}|{s.axis}|{s.undefined}|{s.scale}" for s in find(names)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
