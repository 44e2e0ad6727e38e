"""Files in which heads are published, read and written, so that results move to and from the stacks that use them.

    Retrieval_Head   JSON {"layer-head": [score of every sample]}                       (Wu et al., arXiv 2404.15574)
    DuoAttention     `full_attention_heads.tsv`, gates layers x key-value heads, and `config.json` beside it   (arXiv 2410.10819)
    MInference       JSON, a list over layers of {"head": [pattern, vertical, slash, score]}                  (arXiv 2407.02490)

Each comes as a plain array or table (`read_...`, `write_...`) and as a `Result` (`..._result`), which the other tools take. Gates are kept as
published, a little below 0 or above 1 as they may be; DuoAttention itself clips them to [0, 1] when it loads them, and so does the score here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.errors import CorruptFileError, OptionError, OutputError, ShapeError
from interp.heads.tables import head_table
from interp.results import Result

GATES_FILE: Final = "full_attention_heads.tsv"
CONFIG_FILE: Final = "config.json"
CONFIG_KEYS: Final = ("sink_size", "recent_size")
"""What DuoAttention reads of the config, in tokens."""
PATTERN_COLUMNS: Final = ("layer", "head", "pattern", "vertical", "slash", "score")
"""Columns of a table of patterns: class, number of columns and of diagonals (or sink and window), and the score of the search."""


def read_scores(path: str | Path) -> NDArray[np.float64]:
    """Read a Retrieval_Head file: scores [sample, layer, head].

    Raises:
        CorruptFileError: not such a file, heads missing, or heads with different numbers of samples (their code appends to old files).
    """
    path = Path(path)
    given = _json(path)
    if not isinstance(given, dict) or not given:
        raise CorruptFileError(f'{path.name} is no Retrieval_Head file: wanted an object {{"layer-head": [scores]}}')
    try:
        places = {_place(name): np.asarray(values, dtype=np.float64) for name, values in given.items()}
    except (TypeError, ValueError) as error:
        raise CorruptFileError(f'{path.name}: wanted "layer-head": [numbers] throughout ({error})') from error
    sizes = sorted({values.shape for values in places.values()})
    if len(sizes) > 1 or len(sizes[0]) != 1:
        raise CorruptFileError(
            f"{path.name}: wanted one list of the same length for every head, got {sizes}; runs were mixed"
        )
    layers, heads = (1 + max(place[axis] for place in places) for axis in (0, 1))
    if len(places) != layers * heads:
        raise CorruptFileError(f"{path.name}: wanted {layers} x {heads} heads, got {len(places)}")
    scores = np.empty((sizes[0][0], layers, heads))
    for (layer, head), values in places.items():
        scores[:, layer, head] = values
    return scores


def write_scores(path: str | Path, scores: NDArray[np.floating]) -> Path:
    """Write scores [sample, layer, head] (`Result.arrays["score"]` of `interp.heads.retrieval`) as Retrieval_Head does. Returns the path.

    Raises:
        ShapeError: not three axes, or values that are not finite.
        OutputError: the file cannot be written.
    """
    if scores.ndim != 3 or not np.isfinite(scores).all():
        raise ShapeError(f"scores: wanted finite [sample, layer, head], got shape {scores.shape}")
    _, layers, heads = scores.shape
    table = {f"{a}-{b}": scores[:, a, b].astype(np.float64).tolist() for a in range(layers) for b in range(heads)}
    return _write(path, json.dumps(table))


def scores_result(scores: NDArray[np.floating], *, name: str) -> Result:
    """Scores [sample, layer, head] from a file as "heads.retrieval": score, spread, `active` (share of samples above 0); no control.

    Args:
        scores: from `read_scores`.
        name: where they came from, for the manifest.
    """
    if scores.ndim != 3 or len(scores) < 2:
        raise ShapeError(f"scores: wanted [sample, layer, head] with at least two samples, got shape {scores.shape}")
    table = head_table(scores, control=np.full(scores.shape[1:], np.nan), extra={"active": (scores > 0).mean(0)})
    manifest = _manifest(name, "Wu et al. 2024 (arXiv 2404.15574), Retrieval_Head", {"samples": len(scores)})
    return Result(kind="heads.retrieval", table=table, manifest=manifest, arrays={"score": scores})


def read_gates(path: str | Path) -> NDArray[np.float64]:
    """Read DuoAttention gates as published, [layer, key-value head], from the file or from the folder that holds it.

    Raises:
        CorruptFileError: not a table of finite numbers.
    """
    path = Path(path)
    path = path / GATES_FILE if path.is_dir() else path
    try:
        gates = np.loadtxt(path, dtype=np.float64, delimiter="\t", ndmin=2)
    except (OSError, ValueError) as error:
        raise CorruptFileError(f"{path.name}: wanted tab-separated gates, one layer a line ({error})") from error
    if not gates.size or not np.isfinite(gates).all():
        raise CorruptFileError(f"{path.name}: wanted finite gates, one layer a line, got shape {gates.shape}")
    return gates


def read_gates_config(path: str | Path) -> dict[str, Any]:
    """Read the `config.json` beside DuoAttention gates, from the file or its folder; "sink_size" and "recent_size" count tokens.

    Raises:
        CorruptFileError: not an object with these two.
    """
    path = Path(path)
    path = path / CONFIG_FILE if path.is_dir() else path
    config = _json(path)
    if not isinstance(config, dict) or not _sized(config):
        raise CorruptFileError(
            f"{path.name} is no DuoAttention config: wanted whole numbers {' and '.join(CONFIG_KEYS)}"
        )
    return config


def write_gates(folder: str | Path, gates: NDArray[np.floating], config: Mapping[str, Any]) -> Path:
    """Write gates [layer, key-value head] and their config into a folder, as DuoAttention loads them. Returns the folder.

    Raises:
        ShapeError: not two axes, or values that are not finite.
        OptionError: a config without "sink_size" and "recent_size".
        OutputError: the files cannot be written.
    """
    if gates.ndim != 2 or not gates.size or not np.isfinite(gates).all():
        raise ShapeError(f"gates: wanted finite [layer, key-value head], got shape {gates.shape}")
    if not _sized(config):
        raise OptionError(f"config: wanted whole numbers {' and '.join(CONFIG_KEYS)} (tokens), got {dict(config)}")
    lines = ["\t".join(f"{gate:.18e}" for gate in layer) for layer in gates.astype(np.float64)]
    _write(Path(folder) / GATES_FILE, "\n".join(lines) + "\n")
    _write(Path(folder) / CONFIG_FILE, json.dumps(dict(config)))
    return Path(folder)


def gates_result(
    gates: NDArray[np.floating], config: Mapping[str, Any], *, name: str, queries_per_group: int = 1
) -> Result:
    """Gates from a file as "heads.streaming": the score is the gate clipped to [0, 1], 1 for a retrieval head; no spread, no control.

    Args:
        gates: from `read_gates`, [layer, key-value head].
        config: from `read_gates_config`, kept in the manifest.
        name: where they came from, for the manifest.
        queries_per_group: query heads that share a key-value head; each gets its gate in a row of its own.
    """
    if queries_per_group < 1:
        raise OptionError(f"queries_per_group must be at least 1, got {queries_per_group}")
    shared = np.repeat(np.clip(gates, 0.0, 1.0), queries_per_group, axis=1)
    table = _grid(shared.shape) | {"score": shared.reshape(-1), "spread": np.nan, "control": np.nan}
    manifest = _manifest(name, "DuoAttention (arXiv 2410.10819)", {"config": dict(config)})
    return Result(kind="heads.streaming", table=pd.DataFrame(table), manifest=manifest, arrays={"gates": gates})


def full_share(gates: NDArray[np.floating], threshold: float = 0.5) -> float:
    """Share of gates at or above a threshold: heads that keep full attention. DuoAttention deploys at a quantile, not at 0.5."""
    return float((gates >= threshold).mean())


def read_patterns(path: str | Path) -> pd.DataFrame:
    """Read an MInference pattern file: one row per head, `PATTERN_COLUMNS`.

    Raises:
        CorruptFileError: not such a file.
    """
    path = Path(path)
    given = _json(path)
    try:
        rows = [
            (layer, int(head), str(pattern), int(vertical), int(slash), float(score))
            for layer, heads in enumerate(given)
            for head, (pattern, vertical, slash, score) in heads.items()
        ]
    except (AttributeError, TypeError, ValueError) as error:
        raise CorruptFileError(
            f'{path.name} is no MInference file: wanted a list over layers of {{"head": [pattern, vertical, slash, score]}} ({error})'
        ) from error
    if not rows:
        raise CorruptFileError(f"{path.name} holds no head")
    return pd.DataFrame(rows, columns=list(PATTERN_COLUMNS))


def write_patterns(path: str | Path, patterns: pd.DataFrame) -> Path:
    """Write a table with `PATTERN_COLUMNS` as MInference loads it. Returns the path.

    Raises:
        OptionError: a column or a layer is missing, or a head stands there twice.
        OutputError: the file cannot be written.
    """
    missing = [name for name in PATTERN_COLUMNS if name not in patterns.columns]
    if missing or patterns.empty:
        raise OptionError(
            f"patterns need rows, and the columns {', '.join(PATTERN_COLUMNS)}; missing: {missing or 'rows'}"
        )
    layers = sorted(set(patterns["layer"]))
    if layers != list(range(len(layers))) or patterns.duplicated(["layer", "head"]).any():
        raise OptionError(f"patterns: wanted every layer from 0 on, and each head once, got layers {layers}")
    table: list[dict[str, list[Any]]] = [{} for _ in layers]
    ordered = patterns.sort_values(["layer", "head"])
    for layer, head, *choice in zip(*(ordered[name].tolist() for name in PATTERN_COLUMNS), strict=True):
        table[layer][str(head)] = choice
    return _write(path, json.dumps(table))


def patterns_result(patterns: pd.DataFrame, *, name: str) -> Result:
    """Patterns from a file as "heads.patterns": their columns, where the score is that of MInference's search; no spread, no control."""
    table = patterns.assign(spread=np.nan, control=np.nan)
    return Result(kind="heads.patterns", table=table, manifest=_manifest(name, "MInference (arXiv 2407.02490)", {}))


def _place(name: str) -> tuple[int, int]:
    """(3, 14) of "3-14"."""
    layer, head = name.split("-")
    return int(layer), int(head)


def _sized(config: Mapping[str, Any]) -> bool:
    return all(isinstance(config.get(name), int) for name in CONFIG_KEYS)


def _grid(shape: tuple[int, ...]) -> dict[str, Any]:
    layers, heads = shape
    return {"layer": np.repeat(np.arange(layers), heads), "head": np.tile(np.arange(heads), layers)}


def _manifest(name: str, source: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"method": "published", "source": source, "model": {"name": name}, "settings": dict(settings)}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptFileError(f"{path.name} cannot be read as JSON ({error})") from error


def _write(path: str | Path, text: str) -> Path:
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path.name}: {error.strerror or error}; choose another place") from error
    return path
