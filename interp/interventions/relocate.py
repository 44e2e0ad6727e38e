"""`relocated`: the same intervention on other heads, for controls that differ from it in nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final

from interp.capture.edits import Intervention
from interp.errors import OptionError
from interp.interventions.gate import GateHeads
from interp.interventions.schedule import Schedule
from interp.interventions.sinks import InjectSink
from interp.interventions.where import Head

TENSORS_BY_HEAD: Final[Mapping[type, tuple[str, ...]]] = {GateHeads: ("tokens",), InjectSink: ("keys", "values")}
"""Fields that hold tensors made for one head each, which mean nothing on another head."""


def relocated(edit: Intervention, heads: Sequence[Head]) -> Intervention:
    """The same edit on other heads of the same layers, for a matched control. Numbers by head go along in order of the heads.

    Args:
        edit: names heads.
        heads: (layer, head) pairs, as many of each layer as `edit` names there; replacements by layer stay, so a mean ablation puts the other
            head's own mean in its place.

    Raises:
        OptionError: the edit names no heads, or the heads do not match it layer by layer.
    """
    mine = edited_heads([edit])
    pairs = list(zip(sorted(mine), sorted(heads), strict=False))
    if not mine or len(mine) != len(heads) or any(a[0] != b[0] for a, b in pairs):
        raise OptionError(
            f"{edit.name}: wanted as many other heads of the same layers as it names ({sorted(mine)}), got {sorted(heads)}"
        )
    return moved(edit, dict(pairs))


def edited_heads(edits: Sequence[Intervention]) -> list[Head]:
    """The heads that edits name, each once, in order of first mention."""
    named = [edit.edit if isinstance(edit, Schedule) else edit for edit in edits]
    return list(dict.fromkeys(head for edit in named for head in getattr(edit, "heads", None) or ()))


def moved(edit: Intervention, places: Mapping[Head, Head]) -> Intervention:
    """The edit with its heads exchanged by a table (head -> head); unchanged if it names none.

    Raises:
        OptionError: it holds tensors that were made for its heads.
    """
    if isinstance(edit, Schedule):
        return replace(edit, edit=moved(edit.edit, places))
    if not edited_heads([edit]) or not is_dataclass(edit):
        return edit
    held = [name for name in TENSORS_BY_HEAD.get(type(edit), ()) if getattr(edit, name) is not None]
    if held:
        raise OptionError(
            f"{edit.name}: {held[0]} was made for these heads and means nothing on others; give controls= of your own"
        )
    changed: dict[str, Any] = {"heads": tuple(places[head] for head in edited_heads([edit]))}
    for field in fields(edit):
        value = getattr(edit, field.name)
        if isinstance(value, Mapping) and all(isinstance(key, tuple) for key in value):
            changed[field.name] = {places[head]: number for head, number in value.items()}
    return replace(edit, **changed)
