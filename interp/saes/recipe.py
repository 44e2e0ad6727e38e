"""`Recipe`: how an autoencoder is trained. Frozen, plain values, so that a file can hold it and a checkpoint can be compared with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from interp.errors import OptionError
from interp.saes.config import BY_BATCH, CHOOSES_K, Architecture

DecoderRule = Literal["unit", "free"]
Start = Literal["random", "active-subspace"]
Bias = Literal["mean", "median", "zero"]
Scale = Literal["unit", "none"]
L0Loss = Literal["step", "tanh", "quadratic"]

AUXK = 1 / 32
"""Weight of the AuxK loss (Gao et al. 2024, appendix A.2)."""
LEARNING_RATE, AT_FEATURES = 2e-4, 2**14
"""Learning rate at so many features; it goes with one over the square root of their number (Gao et al. 2024, figure 3)."""


@dataclass(frozen=True, kw_only=True)
class JumpReLURecipe:
    """What only JumpReLU needs (Rajamanoharan et al. 2024b; Anthropic, January 2025 update; Gemma Scope 2).

    Attributes:
        threshold: of every feature at the start.
        bandwidth: width of the straight-through estimator.
        loss: "step" is the number of active features, "tanh" tanh(steepness · f · ‖W_dec row‖), "quadratic" 2 (L0 - target)² / target.
        steepness: for "tanh".
        target: L0 that "quadratic" aims at.
        dead_loss: weight of ReLU(threshold - pre) of dead features, so that they come back; 0 leaves it out.
    """

    threshold: float = 0.01
    bandwidth: float = 0.05
    loss: L0Loss = "step"
    steepness: float = 4.0
    target: float = 32.0
    dead_loss: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.loss not in get_args(L0Loss):
            raise OptionError(f"loss of jumprelu must be one of {', '.join(get_args(L0Loss))}; got {self.loss!r}")
        if min(self.bandwidth, self.steepness, self.target) <= 0 or min(self.threshold, self.dead_loss) < 0:
            raise OptionError(
                "bandwidth, steepness and target of jumprelu must be above 0, threshold and dead_loss at least 0"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an autoencoder is trained.

    Attributes:
        architecture: one of six.
        d_sae: number of features.
        k: features per token, for the architectures that keep the k largest.
        widths: nested sizes of matryoshka_batchtopk; empty takes a sixteenth, a quarter and all.
        tokens: rows to train on in all; more than were harvested means epochs.
        batch: rows of a step.
        buffer: rows that are mixed.
        learning_rate: None takes `LEARNING_RATE` scaled to d_sae.
        betas: of Adam.
        warmup: steps over which the learning rate rises from 0.
        decay: last share of the steps, over which it falls to 0.
        clip: largest norm of the gradient.
        sparsity: weight of the L1 loss (standard, gated) or of the L0 loss (jumprelu).
        sparsity_warmup: steps over which that weight rises from 0.
        k_anneal: steps over which k falls from d_in to k, 0 for none.
        decoder: "unit" keeps decoder rows at norm 1 (the gradient's part along them is taken off first, rows are normalised after every step);
            "free" lets them be, and counts features in units of their norms.
        scale: "unit" multiplies z by one factor so that its mean norm is √d_in, and folds it into the weights at the end.
        start: "random" directions, or random within the "active-subspace" of z.
        subspace: dimensions of the active subspace; None takes what holds 99 % of the variance.
        bias: b_dec at the start: "mean" or geometric "median" of z, or "zero".
        dead_after: rows without firing after which a feature counts as dead.
        auxk: weight of the loss by which dead features of the k kinds learn the error; 0 for none.
        resample_every: steps between resamplings of dead features of the other kinds, 0 for never.
        resamplings: at most so many.
        jumprelu: what only JumpReLU needs.
        threshold_rows: rows on which the threshold of the batch kinds is set at the end.
        seed: of weights, order and draws.

    Raises:
        OptionError: values that do not go together.
    """

    architecture: Architecture = "topk"
    d_sae: int
    k: int | float | None = None
    widths: tuple[int, ...] = ()
    tokens: int
    batch: int = 1_024
    buffer: int = 131_072
    learning_rate: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: int = 100
    decay: float = 0.2
    clip: float = 1.0
    sparsity: float = 1.0
    sparsity_warmup: int = 500
    k_anneal: int = 0
    decoder: DecoderRule = "unit"
    scale: Scale = "unit"
    start: Start = "active-subspace"
    subspace: int | None = None
    bias: Bias = "mean"
    dead_after: int = 100_000
    auxk: float = AUXK
    resample_every: int = 0
    resamplings: int = 4
    jumprelu: JumpReLURecipe = JumpReLURecipe()
    threshold_rows: int = 8_192
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        for name, value, known in (
            ("architecture", self.architecture, get_args(Architecture)),
            ("decoder", self.decoder, get_args(DecoderRule)),
            ("scale", self.scale, get_args(Scale)),
            ("start", self.start, get_args(Start)),
            ("bias", self.bias, get_args(Bias)),
        ):
            if value not in known:
                raise OptionError(f"{name} must be one of {', '.join(known)}; got {value!r}")
        below = [
            n
            for n in ("d_sae", "tokens", "batch", "buffer", "clip", "dead_after", "threshold_rows")
            if not getattr(self, n) > 0
        ]
        below += [
            n
            for n in ("warmup", "sparsity", "sparsity_warmup", "k_anneal", "auxk", "resample_every", "resamplings")
            if getattr(self, n) < 0
        ]
        if below:
            raise OptionError(f"{', '.join(below)} of a recipe must not be so small")
        if not 0 <= self.decay <= 1:
            raise OptionError(f"decay is a share of the steps, from 0 to 1; got {self.decay}")
        if (self.k is not None) != (self.architecture in CHOOSES_K):
            raise OptionError(f"k is for the architectures {', '.join(CHOOSES_K)} and needed there; got {self.k}")
        if self.tokens < self.batch:
            raise OptionError(f"tokens must be at least one batch of {self.batch}; got {self.tokens}")
        if self.resample_every and self.architecture in CHOOSES_K:
            raise OptionError(
                f"{self.architecture} brings dead features back by auxk; resample_every is for the other architectures"
            )

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.tokens // self.batch

    @property
    def rate(self) -> float:
        """The learning rate at its height."""
        return (
            self.learning_rate if self.learning_rate is not None else LEARNING_RATE * (AT_FEATURES / self.d_sae) ** 0.5
        )

    @property
    def nested(self) -> tuple[int, ...]:
        """The nested sizes of matryoshka_batchtopk, empty for the others."""
        if self.architecture != "matryoshka_batchtopk":
            return ()
        return self.widths or tuple(sorted({max(self.d_sae // 16, 1), max(self.d_sae // 4, 1), self.d_sae}))

    @property
    def by_norm(self) -> bool:
        """Whether the k largest are chosen among features in units of their decoder rows' norms."""
        return self.decoder == "free" and self.architecture in CHOOSES_K

    @property
    def needs_threshold(self) -> bool:
        """Whether a threshold is set at the end."""
        return self.architecture in BY_BATCH

    def learning_rate_at(self, step: int, resampled: tuple[int, ...] = ()) -> float:
        """The learning rate of a step, from 0: warm-up, plateau, decay; a tenth right behind a resampling, back along a cosine in 1,000 steps."""
        from_start = min(1.0, (step + 1) / (self.warmup + 1))
        to_end = min(1.0, (self.steps - step) / max(self.decay * self.steps, 1.0))
        return self.rate * from_start * to_end * after_resampling(step, resampled)

    def sparsity_at(self, step: int) -> float:
        """The weight of the sparsity loss at a step."""
        return self.sparsity * min(1.0, (step + 1) / (self.sparsity_warmup + 1))

    def k_at(self, step: int, d_in: int) -> float:
        """Features per token at a step."""
        k = float(self.k or 0)
        high = float(min(max(d_in, int(k)), self.d_sae))
        left = max(0.0, 1.0 - step / self.k_anneal) if self.k_anneal else 0.0
        return k + (high - k) * left

    def record(self) -> dict[str, Any]:
        """Plain values, as `Recipe.read` takes them."""
        return asdict(self) | {"widths": list(self.widths), "betas": list(self.betas)}

    @staticmethod
    def read(record: Mapping[str, Any]) -> Recipe:
        """The recipe of a record.

        Raises:
            OptionError: an unknown word, or values that do not go together.
        """
        known = {f.name for f in fields(Recipe)}
        if unknown := sorted(set(record) - known):
            raise OptionError(f"a recipe has no {', '.join(unknown)}; it has: {', '.join(sorted(known))}")
        values = dict(record)
        for name in ("widths", "betas"):
            if name in values:
                values[name] = tuple(values[name])
        if isinstance(values.get("jumprelu"), Mapping):
            values["jumprelu"] = JumpReLURecipe(**values["jumprelu"])
        return Recipe(**values)


RAMP, DROP = 1_000, 0.1
"""Steps after a resampling until the learning rate is back, and the share that it falls to (Kissane et al. 2024, released code)."""


def after_resampling(step: int, resampled: tuple[int, ...]) -> float:
    """Factor on the learning rate of a step, given the steps before which features were resampled."""
    last = max((s for s in resampled if s <= step), default=None)
    if last is None or step - last >= RAMP:
        return 1.0
    return DROP + (1.0 - DROP) * 0.5 * (1.0 - math.cos(math.pi * (step - last) / RAMP))
