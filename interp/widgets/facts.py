"""The head of a report in words: what was run on what, read from a scan's manifest; a fact that it lacks is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHORT = 12
"""Characters of a hash or revision that are shown; the manifest below has all of them."""


def title(manifest: Mapping[str, Any]) -> str:
    """The model's name."""
    return str(_at(manifest, "model", "name") or "A model without a name")


def facts(manifest: Mapping[str, Any], *, layers: int, heads: int) -> list[tuple[str, str]]:
    """(name, value) pairs for the head of the page.

    Args:
        manifest: of a scan.
        layers: layers in the table, of which the model may have more.
        heads: heads of each.
    """
    of_all = _at(manifest, "model", "layers")
    deep = f"{layers}" if of_all in (None, layers) else f"{layers} of {of_all}"
    pairs = [
        ("layers × heads", f"{deep} × {heads}"),
        ("tokens", _number(_at(manifest, "tokens", "tokens"))),
        ("distinct tokens", _number(_at(manifest, "tokens", "distinct_tokens"))),
        ("contexts", _contexts(manifest)),
        ("text", _text(_at(manifest, "plan", "text"))),
        ("precision", manifest.get("dtype")),
        ("kernels", ", ".join(map(str, manifest.get("backends") or ()))),
        ("finished", str(manifest.get("finished") or "").replace("T", " ").replace("Z", " UTC")),
        ("weights", str(_at(manifest, "model", "revision") or _at(manifest, "model", "sha256") or "")[:SHORT]),
        ("versions", _versions(manifest.get("versions"))),
    ]
    return [(name, str(value)) for name, value in pairs if value]


def notes(manifest: Mapping[str, Any]) -> list[str]:
    """Sentences that a reader must not miss: text that was left out, and a checkout with changes."""
    said = []
    dropped = _at(manifest, "tokens", "dropped", "tokens")
    if dropped:
        said.append(f"{dropped:,} tokens at the ends of texts were left out: fewer than {_at(manifest, 'tokens', 'dropped', 'shorter_than')} in a row.")
    limit = _at(manifest, "plan", "max_tokens")
    if limit:
        said.append(f"The scan was told to stop at {limit:,} tokens.")
    return said


def _contexts(manifest: Mapping[str, Any]) -> str | None:
    number, size = _at(manifest, "tokens", "contexts"), _at(manifest, "plan", "context")
    return f"{number:,} of up to {size:,} tokens" if number and size else None


def _text(record: Mapping[str, Any] | None) -> str | None:
    if record is None:
        return None
    name = record.get("name")
    return str(record.get("kind")) if name is None else f"{record.get('kind')} {name}"


def _versions(record: Mapping[str, Any] | None) -> str:
    shown = ("interp", "torch", "transformers")
    return ", ".join(f"{name} {record[name]}" for name in shown if record and name in record)


def _number(value: Any) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None


def _at(record: Any, *keys: str) -> Any:
    """The value at a path of keys, None where the path ends early."""
    for key in keys:
        if not isinstance(record, Mapping) or key not in record:
            return None
        record = record[key]
    return record
