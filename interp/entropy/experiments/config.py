"""An experiment as data: a TOML file says what is trained, at which learning rates, with which remedies and seeds.

Every run of the sweep is the product of learning rates, remedies, attentions, weight decays and seeds; its name says which.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from interp.entropy.experiments.transformer import Attention, Norm
from interp.errors import InputDataError, OptionError

Data = Literal["digits", "topics"]
Remedy = Literal["none", "sigma_reparam", "qk_norm"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One run: a point of the sweep.

    Attributes:
        learning_rate: the peak, reached after the warm-up and kept.
        remedy: what is done against collapse.
        attention: softmax, or sigmoid without normalisation.
        weight_decay: decoupled (AdamW).
        seed: of weights and batches.
    """

    learning_rate: float
    remedy: Remedy
    attention: Attention
    weight_decay: float
    seed: int

    @property
    def name(self) -> str:
        """A file name that says which run it is."""
        return f"lr{self.learning_rate:g}-{self.remedy}-{self.attention}-wd{self.weight_decay:g}-seed{self.seed}"


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
        learning_rates, remedies, attentions, weight_decays, seeds: the sweep.
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
        empty = [
            n for n in ("learning_rates", "remedies", "attentions", "weight_decays", "seeds") if not getattr(self, n)
        ]
        if empty:
            raise OptionError(f"{', '.join(empty)}: wanted at least one value each")

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
        return Experiment(**values)

    def variants(self) -> Iterator[Variant]:
        """Every run, seeds outermost: a sweep that is stopped early has whole comparisons."""
        for seed, rate, remedy, attention, decay in itertools.product(
            self.seeds, self.learning_rates, self.remedies, self.attentions, self.weight_decays
        ):
            yield Variant(learning_rate=rate, remedy=remedy, attention=attention, weight_decay=decay, seed=seed)

    def record(self) -> dict[str, Any]:
        """The experiment as JSON can hold it."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def training_key(self) -> str:
        """Hash of everything that decides what one run computes: runs under the same key and name are the same."""
        swept = {"name", "learning_rates", "remedies", "attentions", "weight_decays", "seeds"}
        settings = {k: v for k, v in self.record().items() if k not in swept}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
