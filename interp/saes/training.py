"""Training an autoencoder on harvested z: `train` runs a recipe, writes checkpoints, and goes on from them to the same weights.

The state is weights, Adam's moments, and counts; batches, learning rate and draws follow from the number of the step. So a training that
was stopped and gone on with ends with the very weights of one that was not (on the same machine, with the same number of threads).
A finished folder is one of SAELens (`cfg.json`, `sae_weights.safetensors`, `sparsity.safetensors`) with `log.parquet` beside it.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from interp.errors import OptionError
from interp.saes.batches import Batches
from interp.saes.checkpoint import State, read_checkpoint, write_checkpoint
from interp.saes.core import SAE
from interp.saes.files import save
from interp.saes.finish import finish
from interp.saes.initial import initial
from interp.saes.log import Report, Reporting, TrainingLog
from interp.saes.losses import Outcome, Stage, outcome
from interp.saes.recipe import Recipe
from interp.saes.resampling import resample
from interp.saes.store import Store

SAMPLE = 16_384
"""Rows from which scale, b_dec and the active subspace are taken."""


def train(
    store: Store,
    layer: int,
    recipe: Recipe,
    folder: str | Path,
    *,
    held_out: Store | None = None,
    reporting: Reporting | None = None,
) -> SAE:
    """Train an autoencoder on one layer of a harvest. Stopped, the same call goes on.

    Args:
        store: the harvest.
        layer: which of its layers.
        recipe: how.
        folder: for checkpoints, the log and the finished autoencoder.
        held_out: a harvest of other text, on which the threshold of the batch kinds and the densities are measured; None takes the training's.
        reporting: how often to log and to write checkpoints, and who hears of it.

    Returns:
        The finished autoencoder, for z as it is (the scale folded in, the batch kinds as JumpReLU).

    Raises:
        OptionError: a harvest that is too small, or another layer than was harvested.
        PlanMismatchError: the folder holds a training of another recipe or harvest.
        CorruptFileError, OutputError: a file that cannot be read or written.
    """
    folder, reporting = Path(folder), reporting or Reporting()
    if held_out is not None and layer not in held_out.layers:
        raise OptionError(f"the held-out harvest has no layer {layer}; it holds {held_out.layers}")
    trainer = Trainer(store, layer, recipe)
    source = {"layer": layer, "model": store.manifest["model"], "text": store.manifest["text"], "rows": store.rows}
    found = read_checkpoint(folder, recipe, source)
    if found is not None:
        trainer.restore(found)
    log = TrainingLog(folder, upto=trainer.step)
    began, first = time.perf_counter(), trainer.step
    while trainer.step < recipe.steps:
        done = trainer.advance()
        at, last = trainer.step, trainer.step == recipe.steps
        if at % reporting.log_every == 0 or last:
            speed = (at - first) * recipe.batch / (time.perf_counter() - began)
            report = trainer.report(done, speed)
            if reporting.evaluate is not None and (
                last or (reporting.evaluate_every and at % reporting.evaluate_every == 0)
            ):
                report = report.evaluated(reporting.evaluate(trainer.finished()))
            log.add(report)
            reporting.tell(report)
        if (reporting.checkpoint_every and at % reporting.checkpoint_every == 0) or last:
            log.write()
            write_checkpoint(folder, trainer.state(), recipe, source)
    rows = (held_out or store).sample(layer, recipe.threshold_rows)
    sae = finish(trainer.sae, recipe, trainer.scale, rows * trainer.scale, origin=_origin(store, layer, recipe))
    with torch.no_grad():
        fired = torch.stack([(sae.encode(part) > 0).sum(0) for part in rows.split(1024)]).sum(0)
    save(sae, folder, density=fired / len(rows))
    return sae


class Trainer:
    """The steps of a training, one at a time.

    Args:
        store, layer, recipe: as `train` takes them.

    Attributes:
        sae: the autoencoder as it is trained: for inputs times `scale`, batch kinds as such.
        scale: factor on z.
        sample: rows of z times the scale, float32 [row, d_in].
        step: steps done.
        since_fired: rows since each feature fired, int64 [d_sae].
        window: how often each feature fired since the last resampling, int64 [d_sae].
        resampled: steps before which features were resampled.
    """

    def __init__(self, store: Store, layer: int, recipe: Recipe) -> None:
        self.recipe = recipe
        self.batches = Batches(store, layer, size=recipe.batch, buffer=recipe.buffer, seed=recipe.seed)
        sample = store.sample(layer, SAMPLE)
        self.scale = float(sample.shape[-1] ** 0.5 / sample.norm(dim=-1).mean()) if recipe.scale == "unit" else 1.0
        self.sample = sample * self.scale
        self.sae = initial(recipe, self.sample)
        self.adam = torch.optim.Adam(self.sae.parameters(), lr=recipe.rate, betas=recipe.betas, fused=True)
        self.step = 0
        self.since_fired = torch.zeros(recipe.d_sae, dtype=torch.int64)
        self.window = torch.zeros(recipe.d_sae, dtype=torch.int64)
        self.resampled: tuple[int, ...] = ()

    def batch(self, number: int) -> Tensor:
        """Batch `number` as the training reads it: times the scale."""
        return self.batches[number] * self.scale

    @property
    def dead(self) -> Tensor:
        """Which features count as dead, bool [d_sae]."""
        return self.since_fired > self.recipe.dead_after

    def advance(self) -> Outcome:
        """One step."""
        recipe, step = self.recipe, self.step
        if (
            recipe.resample_every
            and step
            and step % recipe.resample_every == 0
            and len(self.resampled) < recipe.resamplings
        ):
            self._resample()
        stage = Stage(
            recipe=recipe, sparsity=recipe.sparsity_at(step), k=recipe.k_at(step, self.sae.config.d_in), dead=self.dead
        )
        done = outcome(self.sae, self.batch(step), stage)
        self.adam.zero_grad()
        done.loss.backward()
        if recipe.decoder == "unit":
            self._project()
        torch.nn.utils.clip_grad_norm_(self.sae.parameters(), recipe.clip)
        for group in self.adam.param_groups:
            group["lr"] = recipe.learning_rate_at(step, self.resampled)
        self.adam.step()
        self._constrain()
        fired = done.fired
        self.since_fired = torch.where(fired > 0, 0, self.since_fired + recipe.batch)
        self.window = self.window + fired
        self.step += 1
        return done

    def finished(self) -> SAE:
        """The autoencoder as it would be kept now, a threshold set on the sample."""
        rows = self.sample[:: max(len(self.sample) // self.recipe.threshold_rows, 1)]
        return finish(self.sae, self.recipe, self.scale, rows)

    def report(self, done: Outcome, speed: float) -> Report:
        """Where the training stands, from its last batch."""
        x = self.batch(self.step - 1)
        variance = float((x - x.mean(0)).square().sum())
        return Report(
            step=self.step,
            steps=self.recipe.steps,
            rows=self.step * self.recipe.batch,
            loss=float(done.loss.detach()),
            parts={name: float(part) for name, part in done.parts.items()},
            l0=float(done.fired.sum()) / self.recipe.batch,
            ev=1.0 - float(done.error.square().sum()) / variance if variance else float("nan"),
            dead=float(self.dead.double().mean()),
            learning_rate=self.recipe.learning_rate_at(self.step - 1, self.resampled),
            speed=speed,
        )

    # ------------------------------------------------------------------ checkpoints
    def state(self) -> State:
        """Everything that the next step depends on."""
        moments = {name: self.adam.state[w] for name, w in self.sae.named_parameters()}
        return State(
            step=self.step,
            resampled=self.resampled,
            weights={name: w.detach() for name, w in self.sae.named_parameters()},
            first={name: m["exp_avg"] for name, m in moments.items()},
            second={name: m["exp_avg_sq"] for name, m in moments.items()},
            since_fired=self.since_fired,
            window=self.window,
        )

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Go back to a state."""
        self.step, self.resampled = state.step, state.resampled
        self.since_fired, self.window = state.since_fired, state.window
        for name, w in self.sae.named_parameters():
            w.copy_(state.weights[name])
            self.adam.state[w] = {
                "step": torch.tensor(float(state.step)),
                "exp_avg": state.first[name].clone(),
                "exp_avg_sq": state.second[name].clone(),
            }

    # ------------------------------------------------------------------ parts of a step
    @torch.no_grad()
    def _project(self) -> None:
        """Take off the part of each decoder row's gradient that would change its norm."""
        rows, grad = self.sae.W_dec, self.sae.W_dec.grad
        if grad is not None:
            grad -= (grad * rows).sum(-1, keepdim=True) * rows

    @torch.no_grad()
    def _constrain(self) -> None:
        """Decoder rows back to norm 1; thresholds not below 0, where the gate would let negative numbers through."""
        if self.recipe.decoder == "unit":
            self.sae.W_dec.div_(self.sae.W_dec.norm(dim=-1, keepdim=True).clamp(min=1e-8))
        if "threshold" in self.sae.weights:
            self.sae.weights["threshold"].clamp_(min=0.0)

    @torch.no_grad()
    def _resample(self) -> None:
        forget = resample(self.sae, self.window == 0, self.batch, self.step, self.recipe)
        for name, w in self.sae.named_parameters():
            for moment in ("exp_avg", "exp_avg_sq"):
                self.adam.state[w][moment].masked_fill_(forget[name], 0.0)
        self.window = torch.zeros_like(self.window)
        self.resampled = (*self.resampled, self.step)


def _origin(store: Store, layer: int, recipe: Recipe) -> dict[str, object]:
    """What the file says of where the autoencoder comes from: SAELens' words first, ours in one place."""
    manifest = store.manifest
    return {
        "model_name": manifest["model"]["name"],
        "hook_name": f"blocks.{layer}.attn.hook_z",
        "hook_head_index": None,
        "context_size": manifest["text"].get("context"),
        "prepend_bos": manifest["text"].get("bos"),
        "dataset_path": manifest["text"].get("name"),
        "exclude_special_tokens": not manifest["settings"]["keep_special"],
        "training_architecture": recipe.architecture,
        "interp": {
            "layer": layer,
            "heads": manifest["heads"],
            "model": manifest["model"],
            "text": manifest["text"],
            "rows": store.rows,
            "trained_on": recipe.steps * recipe.batch,
            "recipe": recipe.record(),
            "versions": manifest["versions"],
        },
    }
