"""The head of a report in words: what was run on what, read from a scan's manifest; a fact that it lacks is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHORT = 8
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
        ("tokens", _tokens(manifest)),
        ("distinct tokens", _number(_at(manifest, "tokens", "distinct_tokens"))),
        ("contexts", _contexts(manifest)),
        ("text", _text(_at(manifest, "plan", "text"))),
        ("precision", manifest.get("dtype")),
        ("kernels", ", ".join(map(str, manifest.get("backends") or ()))),
        ("finished", str(manifest.get("finished") or "").partition("T")[0]),
        ("weights", str(_at(manifest, "model", "revision") or _at(manifest, "model", "sha256") or "")[:SHORT]),
        ("versions", _versions(manifest.get("versions"))),
    ]
    return [(name, str(value)) for name, value in pairs if value]


def notes(manifest: Mapping[str, Any]) -> list[str]:
    """Sentences that a reader must not miss: which text was left out."""
    dropped, shorter = (_at(manifest, "tokens", "dropped", key) for key in ("tokens", "shorter_than"))
    return [f"{dropped:,} tokens were left out: ends of texts with fewer than {shorter} tokens."] if dropped else []


def _tokens(manifest: Mapping[str, Any]) -> str | None:
    number, limit = _at(manifest, "tokens", "tokens"), _at(manifest, "plan", "max_tokens")
    return None if number is None else f"{number:,}" + (" (the limit)" if number == limit else "")


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
    return ", ".join(f"{name} {str(record[name]).partition('+')[0]}" for name in shown if record and name in record)


def _number(value: Any) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None


def _at(record: Any, *keys: str) -> Any:
    """The value at a path of keys, None where the path ends early."""
    for key in keys:
        if not isinstance(record, Mapping) or key not in record:
            return None
        record = record[key]
    return record
