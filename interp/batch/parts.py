"""Shards on disk: the mergeable summaries of some contexts, one Parquet file each, exact to the last bit."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from interp.batch.files import write_file
from interp.errors import CorruptFileError
from interp.stats.summary import BINS, Summary

SCHEMA = pa.schema(
    [
        ("layer", pa.int32()),
        ("head", pa.int32()),
        ("statistic", pa.string()),
        ("count", pa.int64()),
        ("mean", pa.float64()),
        ("m2", pa.float64()),
        ("minimum", pa.float64()),
        ("maximum", pa.float64()),
        ("histogram", pa.list_(pa.int64(), BINS)),
    ]
)
"""One row per (statistic, layer, head), in that order; `m2` is the sum of squared deviations from the mean."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shard:
    """The measurements of some consecutive contexts.

    Attributes:
        index: place in the plan, from 0.
        key: key of the plan.
        ids_sha256: hash of the token ids that were measured.
        tokens: how many there were.
        seconds: what measuring took.
        backends: kernel backends that ran.
        layers: the model's own numbers of the layers, labels of the layer axis of every summary.
        summaries: statistic name -> summaries [layer, head].
        batches: how many contexts went through the model together, each time; empty where it was always one.
    """

    index: int
    key: str
    ids_sha256: str
    tokens: int
    seconds: float
    backends: tuple[str, ...]
    layers: tuple[int, ...]
    summaries: Mapping[str, Summary]
    batches: tuple[int, ...] = ()


def shard_name(index: int) -> str:
    """The name of a shard's file."""
    return f"{index:06d}.parquet"


def shard_path(folder: Path, index: int) -> Path:
    """Where a shard lies in a folder of parts."""
    return folder / shard_name(index)


def write_shard(path: Path, shard: Shard) -> None:
    """Write a shard, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    content = shard_bytes(shard)
    write_file(path, lambda temporary: temporary.write_bytes(content))


def shard_bytes(shard: Shard) -> bytes:
    """The content of a shard's file."""
    names = list(shard.summaries)
    fields = {name: [getattr(s, name).reshape(-1) for s in shard.summaries.values()] for name in SCHEMA.names[3:8]}
    layers, heads = next(iter(shard.summaries.values())).count.shape
    histogram = np.concatenate([s.histogram.reshape(-1) for s in shard.summaries.values()])
    columns = [
        np.tile(np.repeat(np.array(shard.layers, dtype=np.int32), heads), len(names)),
        np.tile(np.arange(heads, dtype=np.int32), layers * len(names)),
        pa.array(np.repeat(np.array(names, dtype=object), layers * heads), pa.string()),
        *(np.concatenate(parts) for parts in fields.values()),
        pa.FixedSizeListArray.from_arrays(pa.array(histogram, pa.int64()), BINS),
    ]
    metadata = {
        "interp.key": shard.key,
        "interp.index": str(shard.index),
        "interp.ids_sha256": shard.ids_sha256,
        "interp.tokens": str(shard.tokens),
        "interp.seconds": f"{shard.seconds:.3f}",
        "interp.backends": ",".join(shard.backends),
        **({"interp.batches": ",".join(map(str, shard.batches))} if shard.batches else {}),
    }
    table = pa.Table.from_arrays([pa.array(c) for c in columns], schema=SCHEMA.with_metadata(metadata))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def read_shard(source: Path | BinaryIO, name: str | None = None) -> Shard:
    """Read a shard back, bit for bit.

    Args:
        source: the file, or what opening it gave.
        name: of the file, for errors; a path has its own.

    Raises:
        CorruptFileError: the file is damaged or no shard.
    """
    try:
        table = pq.read_table(source)
        facts = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        if table.schema.names != SCHEMA.names:
            raise ValueError(f"it has the columns {', '.join(table.schema.names)}")
        layers = tuple(dict.fromkeys(table["layer"].to_pylist()))
        names = tuple(dict.fromkeys(table["statistic"].to_pylist()))
        shape = (len(names), len(layers), table.num_rows // (len(names) * len(layers)))
        flat = {name: table[name].to_numpy().reshape(shape) for name in SCHEMA.names[3:8]}
        histogram = table["histogram"].combine_chunks().flatten().to_numpy().reshape(*shape, BINS)
        return Shard(
            index=int(facts["interp.index"]),
            key=facts["interp.key"],
            ids_sha256=facts["interp.ids_sha256"],
            tokens=int(facts["interp.tokens"]),
            seconds=float(facts["interp.seconds"]),
            backends=tuple(filter(None, facts["interp.backends"].split(","))),
            layers=layers,
            summaries={name: _summary(flat, histogram, i) for i, name in enumerate(names)},
            batches=tuple(map(int, filter(None, facts.get("interp.batches", "").split(",")))),
        )
    except (OSError, ValueError, KeyError, ArithmeticError, pa.ArrowException) as error:
        raise _damaged(source, name, error) from error


def read_ids_sha256(source: Path | BinaryIO, name: str | None = None) -> str:
    """The hash of the token ids that a shard measured, from the file's metadata alone; arguments and errors as `read_shard`."""
    try:
        return (pq.read_schema(source).metadata or {})[b"interp.ids_sha256"].decode()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise _damaged(source, name, error) from error


def fold(shards: Iterable[Shard]) -> dict[str, Summary]:
    """Merge shards in the order given, which must be the plan's: the same shards then give the same bits."""
    total: dict[str, Summary] = {}
    for shard in shards:
        for name, summary in shard.summaries.items():
            total[name] = total[name].merge(summary) if name in total else summary
    return total


def _damaged(source: Path | BinaryIO, name: str | None, error: Exception) -> CorruptFileError:
    said = source.name if isinstance(source, Path) else name
    return CorruptFileError(
        f"shard {said} is damaged ({error}); delete that file and run the same command again: only it is measured anew"
    )


def _summary(flat: Mapping[str, NDArray[Any]], histogram: NDArray[np.int64], i: int) -> Summary:
    return Summary(
        count=flat["count"][i],
        mean=flat["mean"][i],
        m2=flat["m2"][i],
        minimum=flat["minimum"][i],
        maximum=flat["maximum"][i],
        histogram=histogram[i],
    )
