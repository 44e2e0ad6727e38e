"""Gates trained as in DuoAttention (Xiao et al. 2024, arXiv 2410.10819, section 2.2): how much each key-value head needs full attention.

One gate a in [0, 1] per (layer, key-value head), 1 at first, mixes full and streaming outputs (`interp.heads.duo_mixing`). Training wants the
final hidden states as they were, with as little full attention as possible:

    loss = mean over labelled positions of mean_d (H_full - H_mixed)^2 + penalty * mean |a|

Labelled are all tokens of the passkey questions and answers. AdamW without weight decay; the learning rate is lr times
min(1, max((t + 1) / r, 0.1), max((steps - t) / r, 0.1)) at step t, with r = steps // 5; gates are clamped to [0, 1] after each step (the
release clamps before the next, so that its published gates lie a little outside). What the "full" term is differs:

    code     the attention output of the unpruned model's own pass, without gradient: two passes side by side   (the release; default)
    paper    full attention over the mixed model's states: one model, with gradient                             (the paper's formula)

With all gates 1 both give the model itself, with all 0 both stream everywhere. Sizes are scaled to a small machine by default (one prompt of
1,024 tokens a step with ten passkeys of 8 words, 100 steps, 16 sinks + window 64, exact keys); `PAPER` has the release's, whose kernel cuts in
blocks of 128. The release's resumption skips one step too many, ours continues bit by bit where it was on the same machine.

A gate says what its group of query heads needs together: mixed groups are hidden (DuoAttention issue 15), and how far the gates fall depends
on penalty and steps, so deploy by quantile (`interp.heads.streaming.streaming_heads`), not at 0.5. A layer whose own sliding window is
shorter than the text has nothing to mix; the penalty alone moves its gates, down.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import OptionError, OutputError, ShapeError
from interp.heads.duo_data import check_prompts, passkeys, shuffled
from interp.heads.duo_mixing import GateMix, check_sizes, frozen, key_heads, student_states, teacher_states
from interp.heads.duo_state import GateState, begin, read_state, write_state
from interp.heads.published import gates_result, write_gates
from interp.heads.tables import named
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import Prompt, generator

Full = Literal["code", "paper"]
Context = Literal["passkey", "shuffled"]
Memory = Literal["keep", "recompute"]
Resume = Literal["auto", "never"]
SOURCE: Final = "DuoAttention, Xiao et al. 2024 (arXiv 2410.10819), section 2.2 and released code"
STATE: Final = "gates.safetensors"
"""The checkpoint in the training's folder."""
SAVE_SECONDS = 10.0
"""Least time between checkpoints; there is always one behind the last step."""
LABELS: Final = "labels"
"""The rows of a prompt whose final states are compared."""


@dataclass(frozen=True, kw_only=True)
class GateTraining:
    """Settings of a training.

    Attributes:
        steps: optimizer steps, one prompt each.
        lengths: tokens of a prompt, one of these at random in each step.
        passkeys: how many are hidden in each prompt; `size` words each.
        size: see `passkeys`.
        sinks: first keys that streaming sees.
        window: last keys that streaming sees, the row's own included.
        lr: learning rate at its height.
        penalty: lambda, weight of the mean gate.
        full: see the module.
        context: "shuffled" puts the tokens ahead of the first label in random order: the control.
        memory: "keep" keeps all activations of a step, "recompute" those between blocks (for long prompts and large models).
        seed: of the prompts.

    Raises:
        OptionError: a setting out of range.
    """

    steps: int = 100
    lengths: tuple[int, ...] = (1024,)
    passkeys: int = 10
    size: int = 8
    sinks: int = 16
    window: int = 64
    lr: float = 0.02
    penalty: float = 0.05
    full: Full = "code"
    context: Context = "passkey"
    memory: Memory = "keep"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check ranges and names."""
        named("full", self.full, get_args(Full))
        named("context", self.context, get_args(Context))
        named("memory", self.memory, get_args(Memory))
        check_sizes(self.sinks, self.window)
        if self.steps < 1 or not self.lengths or self.lr <= 0 or self.penalty < 0:
            raise OptionError(
                f"wanted steps >= 1, some lengths, lr > 0 and penalty >= 0; got {self.steps}, {self.lengths}, {self.lr}, {self.penalty}"
            )

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        ramp = max(1, self.steps // 5)
        return self.lr * min(1.0, max((step + 1) / ramp, 0.1), max((self.steps - step) / ramp, 0.1))


PAPER: Final = GateTraining(
    steps=2000,
    lengths=tuple(int(n) for n in np.linspace(2700, 31700, 50)),
    passkeys=10,
    size=32,
    sinks=128,
    window=256,
    memory="recompute",
)
"""The release's sizes. Its 50 lengths from 1,000 to 32,000 count the haystack alone; ours count the whole prompt."""


def train_gates(
    model: HookedModel,
    folder: str | Path,
    training: GateTraining | None = None,
    *,
    prompts: Callable[[int], Prompt] | None = None,
    control: Result | None = None,
    resume: Resume = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Train gates, or go on with a training that was interrupted: "heads.streaming", the score is the gate, 1 for full attention.

    Args:
        model: a causal decoder; its parameters stay as they are.
        folder: for the checkpoint and, at the end, `full_attention_heads.tsv` and `config.json` as DuoAttention loads them.
        training: settings; None takes `GateTraining()`.
        prompts: prompt of each step, with rows "labels"; None makes passkeys from the training part of the corpus.
        control: gates trained with context="shuffled", which fill the column control; NaN without.
        resume: "auto" goes on where the folder holds the same training, "never" insists that it holds none.
        progress: called with (steps done, steps).

    Returns:
        A row per query head with the gate of its group (`kv_head`). Spread: standard deviation of the gate over the last fifth of the
        steps, in which the learning rate falls: how settled it is (NaN below ten steps). Arrays: "gates" [layer, key-value head]; "path" [step,
        layer, key-value head]; "loss" [step], the distillation loss.

    Raises:
        PlanMismatchError: the folder holds another training; the message names what differs.
        OutputError: it holds one although it must not, or cannot be written.
        OptionError, InputDataError, UnsupportedModelError: prompts or a model that do not fit.
    """
    training = training or GateTraining()
    named("resume", resume, get_args(Resume))
    folder = Path(folder)

    def prompt_of(step: int) -> Prompt:
        made = (
            passkeys(
                model, step, lengths=training.lengths, count=training.passkeys, size=training.size, seed=training.seed
            )
            if prompts is None
            else prompts(step)
        )
        check_prompts(model, [made], LABELS, training.sinks + training.window)
        if training.context == "shuffled":
            made = shuffled(made, made.rows[LABELS][0], generator(training.seed, training.steps + step))
        return made

    plan = _plan(model, training, prompt_of(0))
    shape = (model.layers, key_heads(model))
    there = (folder / STATE).exists()
    if there and resume == "never":
        raise OutputError(f"{folder.name} holds a training, and resume='never' was asked for; choose another folder")
    state = read_state(folder / STATE, plan, shape, model.device) if there else begin(shape, model.device)
    saved = time.monotonic()
    for step in range(state.step, training.steps):
        _advance(model, state, training, prompt_of(step))
        if time.monotonic() - saved >= SAVE_SECONDS or step + 1 == training.steps:
            write_state(folder / STATE, plan, state)
            saved = time.monotonic()
        if progress is not None:
            progress(step + 1, training.steps)
    gates = state.path[-1].cpu().numpy().astype(np.float64)
    write_gates(folder, gates, {"sink_size": training.sinks, "recent_size": training.window, **asdict(training)})
    return _result(model, training, state, control)


def gate_loss(
    model: HookedModel,
    gates: Tensor,
    prompt: Prompt,
    *,
    sinks: int,
    window: int,
    full: Full = "code",
    memory: Memory = "keep",
) -> Tensor:
    """Distillation loss of one prompt, a float32 scalar; call it, and take its gradient to the gates, inside `frozen(model.hf)`."""
    ids, rows = prompt.whole, torch.tensor(prompt.rows[LABELS], device=model.device)
    wanted, outputs = teacher_states(model, ids)
    mix = GateMix(
        gates=gates, sinks=sinks, window=window, full=outputs if full == "code" else None, backend=model.backend
    )
    got = student_states(model, ids, mix, recompute=memory == "recompute")
    return (wanted[rows].float() - got[rows].float()).square().mean(-1).mean()


def _advance(model: HookedModel, state: GateState, training: GateTraining, prompt: Prompt) -> None:
    """One step of the optimizer."""
    gates = state.gates
    with frozen(model.hf), torch.enable_grad():
        distilled = gate_loss(
            model,
            gates,
            prompt,
            sinks=training.sinks,
            window=training.window,
            full=training.full,
            memory=training.memory,
        )
        loss = distilled + training.penalty * gates.abs().mean()
        (gates.grad,) = torch.autograd.grad(loss, gates)
    optimizer = torch.optim.AdamW([gates], lr=training.rate(state.step), weight_decay=0.0)
    first, second = state.moments
    optimizer.state[gates] = {"step": torch.tensor(float(state.step)), "exp_avg": first, "exp_avg_sq": second}
    optimizer.step()
    gates.grad = None
    with torch.no_grad():
        gates.clamp_(0.0, 1.0)
    state.path.append(gates.detach().clone())
    state.loss.append(float(distilled.detach()))


def _plan(model: HookedModel, training: GateTraining, first: Prompt) -> dict[str, Any]:
    """What the gates depend on; a folder belongs to one of these. The first prompt stands for the text, which may differ by Python."""
    digest = hashlib.sha256(repr((first.whole, first.rows[LABELS])).encode()).hexdigest()
    facts = model.manifest()
    record = {"model": facts["model"], "dtype": facts["dtype"], "first_prompt_sha256": digest}
    settings = {name: value for name, value in asdict(training).items() if name != "memory"}
    return json.loads(json.dumps(record | settings))


def _result(model: HookedModel, training: GateTraining, state: GateState, control: Result | None) -> Result:
    path = torch.stack(state.path).cpu().numpy().astype(np.float64)
    gates: NDArray[np.float64] = path[-1]
    last = path[-max(1, training.steps // 5) :]
    spread = last.std(0, ddof=1) if len(last) > 1 else np.full(gates.shape, np.nan)
    other = np.full(gates.shape, np.nan) if control is None else control.arrays.get("gates")
    if other is None or other.shape != gates.shape:
        raise ShapeError(
            f"control: wanted gates of shape {gates.shape}; train them on the same model, with context='shuffled'"
        )
    group = model.heads // gates.shape[1]
    config = {"sink_size": training.sinks, "recent_size": training.window}
    table = gates_result(gates, config, name=model.source.name, queries_per_group=group).frame
    for name, values in (("spread", spread), ("control", other), ("kv_head", np.indices(gates.shape)[1])):
        table[name] = np.repeat(values, group, axis=1).reshape(-1)
    manifest = model.manifest() | {
        "method": "streaming",
        "source": SOURCE,
        "settings": {"form": "gates", "group": "one gate per key-value head", **config, **asdict(training)},
        "seed": training.seed,
    }
    arrays = {"gates": gates, "path": path, "loss": np.asarray(state.loss)}
    return Result(kind="heads.streaming", table=table, manifest=manifest, arrays=arrays)
