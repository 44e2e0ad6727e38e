"""An experiment as data: a TOML file says what is trained, at which learning rates, with which remedies and seeds.

The runs of the sweep are the product of learning rates, remedies, attentions, weight decays, conditions and seeds; a run's name says which.
A condition changes how the training starts or steps (`[[conditions]]` in the file), one thing at a time where its effect is to be told.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from interp.entropy.experiments.transformer import Attention, Norm
from interp.errors import InputDataError, OptionError

Data = Literal["digits", "topics"]
Remedy = Literal["none", "sigma_reparam", "qk_norm"]
PLAIN: Final = "plain"
SWEPT: Final = ("learning_rates", "remedies", "attentions", "weight_decays", "conditions", "seeds")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What may bring collapse about, apart from the learning rate.

    Attributes:
        name: letters, digits and underscores.
        warm_up: steps over which the learning rate rises linearly from 0; None takes the experiment's.
        beta2: of AdamW, the memory of squared gradients; torch's default is 0.999.
        gain: factor on the initial weights of queries and keys.
    """

    name: str = PLAIN
    warm_up: int | None = None
    beta2: float = 0.999
    gain: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained or named."""
        if not re.fullmatch(r"\w+", self.name):
            raise OptionError(
                f"a condition's name becomes part of a file's name; wanted letters, digits and _, got {self.name!r}"
            )
        if (self.warm_up or 0) < 0 or not 0 <= self.beta2 < 1 or self.gain <= 0:
            raise OptionError(
                f"condition {self.name}: wanted warm_up >= 0, 0 <= beta2 < 1 and gain > 0; "
                f"got {self.warm_up}, {self.beta2}, {self.gain}"
            )


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One run: a point of the sweep.

    Attributes:
        learning_rate: the peak, reached after the warm-up and kept.
        remedy: what is done against collapse.
        attention: softmax, or sigmoid without normalisation.
        weight_decay: decoupled (AdamW).
        seed: of weights and batches.
        condition: name of one of the experiment's.
    """

    learning_rate: float
    remedy: Remedy
    attention: Attention
    weight_decay: float
    seed: int
    condition: str = PLAIN

    @property
    def name(self) -> str:
        """A file name that says which run it is."""
        told = (f"lr{self.learning_rate:g}", self.remedy, self.attention, f"wd{self.weight_decay:g}", self.condition)
        return "-".join((*told, f"seed{self.seed}"))


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A sweep of trainings.

    Attributes:
        name: of the experiment.
        data: "digits" (scikit-learn's 8 x 8 images) or "topics" (bytes of the documentation topics of Python).
        steps, batch: of each training.
        warm_up: steps over which the learning rate rises linearly from 0; after that it stays.
        width, layers, heads: of the transformer.
        tokens: of each text; digits have 17, 16 patches and the class token.
        norm: where layer norms stand.
        every: steps between two readings of the monitor.
        sinks_every: steps between two measurements of Sink_1 on held-out text (0: none).
        learning_rates, remedies, attentions, weight_decays, conditions, seeds: the sweep.
    """

    name: str
    data: Data
    steps: int
    batch: int
    warm_up: int
    width: int
    layers: int
    heads: int
    tokens: int = 128
    norm: Norm = "pre"
    every: int = 5
    sinks_every: int = 0
    learning_rates: tuple[float, ...]
    remedies: tuple[Remedy, ...] = ("none",)
    attentions: tuple[Attention, ...] = ("softmax",)
    weight_decays: tuple[float, ...] = (0.0,)
    conditions: tuple[Condition, ...] = (Condition(),)
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        for name, known in (("data", get_args(Data)), ("norm", get_args(Norm))):
            if getattr(self, name) not in known:
                raise OptionError(f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}")
        for name, known in (("remedies", get_args(Remedy)), ("attentions", get_args(Attention))):
            if not set(getattr(self, name)) <= set(known):
                raise OptionError(f"{name} must be among {', '.join(known)}; got {list(getattr(self, name))}")
        sizes = ("steps", "batch", "width", "layers", "heads", "tokens", "every")
        wrong = [f"{name} = {getattr(self, name)}" for name in sizes if getattr(self, name) < 1]
        if wrong or self.warm_up < 0 or self.sinks_every < 0 or self.width % self.heads:
            raise OptionError(
                f"wanted positive sizes ({', '.join(wrong) or 'all are'}), warm_up and sinks_every >= 0 and a width that heads divides"
            )
        empty = [name for name in SWEPT if not getattr(self, name)]
        if empty:
            raise OptionError(f"{', '.join(empty)}: wanted at least one value each")
        if len({condition.name for condition in self.conditions}) < len(self.conditions):
            raise OptionError("conditions: wanted a name of its own for each")

    @staticmethod
    def read(path: str | Path) -> Experiment:
        """Read a TOML file whose keys are the attributes.

        Raises:
            InputDataError: no such file, or no TOML.
            OptionError: a key or a value that is none of the possible ones.
        """
        path = Path(path)
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputDataError(f"cannot read the experiment {path.name}: {error}") from error
        return Experiment.of(given)

    @staticmethod
    def of(given: Mapping[str, Any]) -> Experiment:
        """Build one from the keys and values of a file or a manifest."""
        known = {f.name: f for f in fields(Experiment)}
        needed = {"name", "data", "steps", "batch", "warm_up", "width", "layers", "heads", "learning_rates"}
        unknown, missing = sorted(set(given) - set(known)), sorted(needed - set(given))
        if unknown or missing:
            raise OptionError(
                f"an experiment has no keys {', '.join(unknown) or 'that are unknown'}, and needs {', '.join(missing) or 'no others'}; "
                f"its keys are: {', '.join(known)}"
            )
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        if "conditions" in values:
            values["conditions"] = tuple(_condition(c) for c in values["conditions"])
        return Experiment(**values)

    def variants(self) -> Iterator[Variant]:
        """Every run, seeds outermost: a sweep that is stopped early has whole comparisons."""
        for seed, rate, remedy, attention, decay, condition in itertools.product(
            self.seeds, self.learning_rates, self.remedies, self.attentions, self.weight_decays, self.conditions
        ):
            yield Variant(
                learning_rate=rate, remedy=remedy, attention=attention, weight_decay=decay, seed=seed,
                condition=condition.name,
            )  # fmt: skip

    def condition(self, variant: Variant) -> Condition:
        """What a run's condition changes, its warm-up filled in."""
        found = next(c for c in self.conditions if c.name == variant.condition)
        return found if found.warm_up is not None else replace(found, warm_up=self.warm_up)

    def record(self) -> dict[str, Any]:
        """The experiment as JSON can hold it."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def training_key(self, variant: Variant | None = None) -> str:
        """Hash of what decides what one run computes, or of what all runs share: a run under the same key and name is the same."""
        settings: dict[str, Any] = {k: v for k, v in self.record().items() if k not in ("name", "warm_up", *SWEPT)}
        if variant is not None:
            settings["condition"] = asdict(self.condition(variant))
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _condition(given: Mapping[str, Any]) -> Condition:
    known = [f.name for f in fields(Condition)]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise OptionError(f"a condition has no keys {', '.join(unknown)}; its keys are: {', '.join(known)}")
    return Condition(**given)
