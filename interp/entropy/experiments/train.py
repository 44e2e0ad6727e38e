"""One training of an experiment, watched by the monitor from its first step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interp.entropy.detector import Alarm
from interp.entropy.experiments.config import Experiment, Variant
from interp.entropy.experiments.data import CLASSES, PATCH, VOCABULARY, Images, digits, topics
from interp.entropy.experiments.sinks import first_key_shares, sink_1
from interp.entropy.experiments.transformer import Shape, Transformer, image_model, language_model, token_loss
from interp.entropy.monitor import Monitor
from interp.entropy.sigma_reparam import convert

HELD_OUT_TEXTS = 64
BETA1 = 0.9


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """What one training left.

    Attributes:
        losses: of every step; shorter than planned where a loss was not finite, which ends the training.
        readings: the monitor's frame.
        alarms: of the monitor.
        sinks: columns step, sink_1_EPS ..., alpha_1; empty where not wanted.
        held_out_loss, held_out_accuracy: at the end, NaN after a loss that is not finite; accuracy of classes or next bytes.
    """

    losses: list[float]
    readings: pd.DataFrame
    alarms: list[Alarm]
    sinks: pd.DataFrame
    held_out_loss: float
    held_out_accuracy: float


def untrained_loss(experiment: Experiment) -> float:
    """Loss of a model that knows nothing, nats: log of the number of classes or bytes."""
    return math.log(CLASSES if experiment.data == "digits" else VOCABULARY)


def train(experiment: Experiment, variant: Variant, *, progress: Callable[[int, int], None] | None = None) -> Training:
    """Train one variant from its seed: AdamW, no clipping; the rate rises linearly over the warm-up and stays.

    Args:
        experiment, variant: what to train.
        progress: called with (steps done, steps in all).
    """
    torch.manual_seed(variant.seed)
    draws = torch.Generator().manual_seed(variant.seed)
    data = digits() if experiment.data == "digits" else topics()
    model, condition = _model(experiment, variant), experiment.condition(variant)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=variant.learning_rate, betas=(BETA1, condition.beta2), weight_decay=variant.weight_decay
    )
    losses: list[float] = []
    sinks: list[dict[str, float]] = []
    with Monitor(model, every=experiment.every, spectral=4) as monitor:
        if variant.attention != "softmax":  # weights that are not normalised have no entropy
            monitor.close()
        for step in range(experiment.steps):
            for group in optimiser.param_groups:
                group["lr"] = variant.learning_rate * min(1.0, (step + 1) / max(condition.warm_up or 0, 1))
            if isinstance(data, Images):
                images, classes = data.batch(experiment.batch, draws)
                loss = F.cross_entropy(model(images), classes)
            else:
                if experiment.sinks_every and step % experiment.sinks_every == 0:
                    sinks.append({"step": step, **sink_1(first_key_shares(model, data))})
                ids, targets = data.batch(experiment.batch, experiment.tokens, draws)
                loss = token_loss(model(ids), targets)
            losses.append(float(loss.detach()))
            monitor.note(losses[-1])
            if progress is not None:
                progress(step + 1, experiment.steps)
            if not math.isfinite(losses[-1]):
                break
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    finite = math.isfinite(losses[-1])
    if finite and not isinstance(data, Images) and experiment.sinks_every:
        sinks.append({"step": experiment.steps, **sink_1(first_key_shares(model, data))})
    held_out = _held_out(model, experiment) if finite else (math.nan, math.nan)
    return Training(
        losses=losses,
        readings=monitor.frame,
        alarms=monitor.alarms,
        sinks=pd.DataFrame(sinks),
        held_out_loss=held_out[0],
        held_out_accuracy=held_out[1],
    )


def _model(experiment: Experiment, variant: Variant) -> Transformer:
    images = experiment.data == "digits"
    shape = Shape(
        width=experiment.width,
        layers=experiment.layers,
        heads=experiment.heads,
        tokens=(8 // PATCH) ** 2 + 1 if images else experiment.tokens,
        causal=not images,
        attention=variant.attention,
        norm=experiment.norm,
        qk_norm=variant.remedy == "qk_norm",
        qk_gain=experiment.condition(variant).gain,
    )
    model = image_model(shape, patch=PATCH, classes=CLASSES) if images else language_model(shape, VOCABULARY)
    if variant.remedy == "sigma_reparam":
        convert(model, where=_linear)
    return model


def _linear(name: str, module: nn.Module) -> bool:
    """Every linear layer, the embedding of bytes left alone, as in the paper."""
    return isinstance(module, nn.Linear)


@torch.no_grad()
def _held_out(model: Transformer, experiment: Experiment) -> tuple[float, float]:
    """Loss and accuracy on held-out data."""
    model.eval()
    if experiment.data == "digits":
        inputs, targets = digits().held_out_images, digits().held_out_classes
    else:
        inputs, targets = topics().held_out_batch(HELD_OUT_TEXTS, experiment.tokens)
    logits: Tensor = model(inputs).flatten(0, -2)
    targets = targets.flatten()
    return float(F.cross_entropy(logits, targets)), float((logits.argmax(-1) == targets).float().mean())
