"""The edits that the intervention panel offers: what a reader chooses, the interventions it makes, and the Python that makes the same ones.

Interventions and code come from one call, a class with its arguments, so that they cannot differ.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from interp.capture.edits import Intervention
from interp.errors import InputDataError, OptionError
from interp.interventions.saved import KINDS, from_json
from interp.interventions.where import Head
from interp.models.hooked import HookedModel
from interp.widgets.views.task_choices import TASKS, task_code

MEAN_NAME: Final = "means"
"""What the copied code calls the mean outputs of heads."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """One thing to set.

    Attributes:
        name: of the argument.
        label: what the reader is told.
        default: what it begins with.
        choices: the words to choose from; () for a number.
        low, high: bounds of a number.
        whole: whether the number is a whole one.
    """

    name: str
    label: str
    default: str | float | int
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = math.inf
    whole: bool = False

    def read(self, value: object) -> str | float | int:
        """The value of a request, checked. Raises OptionError with what was wanted."""
        if self.choices:
            if value not in self.choices:
                raise OptionError(f"{self.label} must be one of {', '.join(self.choices)}; got {value!r}")
            return str(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            end = "or more" if math.isinf(self.high) else f"to {self.high:g}"
            raise OptionError(f"{self.label} must be a number of {self.low:g} {end}; got {value!r}")
        if self.whole and value != int(value):
            raise OptionError(f"{self.label} must be a whole number; got {value!r}")
        return int(value) if self.whole else float(value)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One edit: its class and what can be set."""

    title: str
    kind: str
    fields: tuple[Field, ...]


CHOICES: Final[Mapping[str, Choice]] = MappingProxyType(
    {
        "ablate": Choice(
            title="ablate",
            kind="AblateHeads",
            fields=(Field(name="kind", label="how", default="zero", choices=("zero", "mean", "uniform")),),
        ),
        "temperature": Choice(
            title="temperature",
            kind="Temperature",
            fields=(Field(name="tau", label="factor on the logits", default=0.5),),
        ),
        "act": Choice(
            title="calibrate (ACT)",
            kind="ACT",
            fields=(Field(name="beta", label="share that a sink keeps", default=0.4, high=1.0),),
        ),
        "streaming": Choice(
            title="streaming",
            kind="Streaming",
            fields=(
                Field(name="sinks", label="first keys", default=4, whole=True),
                Field(name="window", label="last keys", default=256, low=1.0, whole=True),
            ),
        ),
    }
)
"""Name -> edit of chosen heads."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What a reader chose.

    Attributes:
        edit: name of a choice, or of a calibration file.
        heads: (layer, head) pairs; () for a calibration file, which names its own.
        values: what was set, by name.
        task: on whose prompts it is tried; None for the reader's texts.
    """

    edit: str
    heads: tuple[Head, ...]
    values: Mapping[str, str | float | int]
    task: str | None = None

    @property
    def needs_means(self) -> bool:
        """Whether it puts the heads' mean outputs in their place."""
        return self.values.get("kind") == "mean"


def read_choice(message: Mapping[str, Any], files: Mapping[str, Path], *, layers: int, heads: int) -> Chosen:
    """A request's choice, checked. Raises OptionError with what was wanted."""
    name, given, task = message.get("edit"), message.get("heads"), message.get("task")
    if task is not None and task not in TASKS:
        raise OptionError(f"task must be one of {', '.join(TASKS)}, or null for the texts; got {task!r}")
    if name in files:
        return Chosen(edit=str(name), heads=(), values={}, task=task)
    if name not in CHOICES:
        raise OptionError(f"edit must be one of {', '.join([*CHOICES, *files])}; got {name!r}")
    values = message.get("values")
    if not isinstance(values, Mapping):
        raise OptionError(f"values must be given by name; got {values!r}")
    chosen = CHOICES[str(name)]
    return Chosen(
        edit=str(name),
        heads=_heads(given, layers, heads),
        values={f.name: f.read(values.get(f.name)) for f in chosen.fields},
        task=task,
    )


def interventions(
    chosen: Chosen, files: Mapping[str, Path], model: HookedModel, ids: Sequence[int]
) -> list[Intervention]:
    """The interventions of a choice.

    Args:
        chosen: what was chosen.
        files: calibration files by name.
        model: whose heads they are; runs once, for a mean ablation.
        ids: token ids over which means are taken.

    Raises:
        EditError, CorruptFileError, InputDataError: a choice or file that makes no interventions.
    """
    if chosen.edit in files:
        try:
            saved = json.loads(files[chosen.edit].read_text(encoding="utf-8"))["edits"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputDataError(
                f"cannot read the calibration {chosen.edit!r}: {error}; give a file of save_calibration"
            ) from error
        return from_json(json.dumps(saved))
    extra = {}
    if chosen.needs_means:
        outputs = model.head_outputs(list(ids), layers=_layers(chosen))
        extra["replacement"] = {layer: z.mean((0, 2)) for layer, z in outputs.items()}
    return [KINDS[CHOICES[chosen.edit].kind](heads=chosen.heads, **chosen.values, **extra)]


def code(
    chosen: Chosen,
    files: Mapping[str, Path],
    *,
    model: HookedModel,
    texts: Sequence[Sequence[int]],
    prompts: int,
    draws: int,
    seed: int,
) -> str:
    """Python that makes the same model, texts or prompts, and interventions, and measures the same.

    Where the model cannot be named, `model` must be there.
    """
    kind = None if chosen.edit in files else CHOICES[chosen.edit].kind
    effects, on, first = "text_effects", "texts", "texts[0]"
    more, made = [], [f"texts = {[list(ids) for ids in texts]!r}"]
    if chosen.task is not None:
        effects, on, first = "answer_effects", "prompts", "list(prompts[0].ids)"
        needed, made = task_code(chosen.task, count=prompts, seed=seed)
        more = [needed]
    names = sorted(["from_json" if kind is None else kind, effects], key=str.lower)
    lines = ["import json", "from pathlib import Path", ""] if kind is None else []
    load = _load(model)
    lines += ["import interp"] if load else []
    lines += [
        f"from interp.interventions import {', '.join(names)}",
        *more,
        "from interp.widgets.views import CompareView",
        "",
    ]
    lines += [
        load or "# model: the hooked model that the panel was opened with",
        *made,
    ]
    if chosen.needs_means:
        lines += [
            f"outputs = model.head_outputs({first}, layers={_layers(chosen)!r})",
            f"{MEAN_NAME} = {{layer: z.mean((0, 2)) for layer, z in outputs.items()}}",
        ]
    if kind is None:
        lines += [
            f'saved = json.loads(Path({str(files[chosen.edit])!r}).read_text(encoding="utf-8"))',
            'edits = from_json(json.dumps(saved["edits"]))',
        ]
    else:
        arguments = [f"heads={chosen.heads!r}", *(f"{name}={value!r}" for name, value in chosen.values.items())]
        arguments += [f"replacement={MEAN_NAME}"] if chosen.needs_means else []
        lines += [f"edits = [{kind}({', '.join(arguments)})]"]
    lines += [
        "",
        f"effect = {effects}(model, edits, {on}, draws={draws}, seed={seed})",
        f'before = model.run({first}, logits="none", keep="none")',
        "with model.edit(*edits):",
        f'    after = model.run({first}, logits="none", keep="none")',
        "effect.view()  # metrics beside random heads",
        "CompareView(before, after)  # what changed in every head",
    ]
    return "\n".join(lines) + "\n"


def _heads(given: object, layers: int, heads: int) -> tuple[Head, ...]:
    pairs = given if isinstance(given, list | tuple) else []
    sound = [p for p in pairs if isinstance(p, list | tuple) and len(p) == 2 and all(type(x) is int for x in p)]
    if not sound or len(sound) != len(pairs):
        raise OptionError("no heads chosen: pick some in the grid, or write them as 3.1, 5.2 (layer.head)")
    out = [f"{a}.{b}" for a, b in sound if not (0 <= a < layers and 0 <= b < heads)]
    if out:
        raise OptionError(f"heads {', '.join(out)} do not exist; layers are 0 to {layers - 1}, heads 0 to {heads - 1}")
    return tuple(dict.fromkeys((a, b) for a, b in sound))


def _layers(chosen: Chosen) -> list[int]:
    return sorted({layer for layer, _ in chosen.heads})


def _load(model: HookedModel) -> str | None:
    """The line that loads the same model, None where its source does not say how."""
    source = model.source
    if source.kind == "hub":
        return f"model = interp.load({source.name!r}, revision={source.revision!r})"
    if source.kind == "embedded":
        return f"model = interp.load({source.name!r})"
    if source.kind == "toy" and source.name.startswith("tiny/"):
        family, _, seed = source.name.removeprefix("tiny/").rpartition("-")
        return f"model = interp.tiny({family!r}, seed={int(seed)})"
    return None
