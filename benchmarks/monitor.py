"""What the entropy monitor costs in training: step time with it, measuring every 10th step, over step time without it.

    python benchmarks/monitor.py [--every 10] [--rounds 12] [--out data/results/monitor]

Models: the digits vision transformer and the byte language model of the experiments, and a Llama-like decoder of transformers (sdpa). Each
round times `every` plain steps and `every` watched ones, one after the other in changing order, so that both meet the same machine; the
overhead is the median of the rounds' ratios. The gate is 10 % at every = 10 (issue: part E).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import recorded
import torch
from torch import nn
from torch.nn import functional as F

from interp.entropy.experiments.data import CLASSES, PATCH, VOCABULARY
from interp.entropy.experiments.transformer import Shape, image_model, language_model, token_loss
from interp.entropy.monitor import Monitor

GATE = 0.10
WARM_UP = 3


def digits_vit() -> tuple[nn.Module, Callable[[nn.Module], torch.Tensor]]:
    """The vision transformer of data/tasks/entropy/digits.toml, batch 32."""
    model = image_model(Shape(width=64, layers=4, heads=4, tokens=17, causal=False), patch=PATCH, classes=CLASSES)
    return model, lambda m: F.cross_entropy(m(torch.rand(32, 8, 8)), torch.randint(CLASSES, (32,)))


def byte_model() -> tuple[nn.Module, Callable[[nn.Module], torch.Tensor]]:
    """The language model of data/tasks/entropy/topics.toml, batch 8 x 64."""
    model = language_model(Shape(width=192, layers=4, heads=4, tokens=64, causal=True), VOCABULARY)

    def loss(m: nn.Module) -> torch.Tensor:
        ids = torch.randint(VOCABULARY, (8, 65))
        return token_loss(m(ids[:, :-1]), ids[:, 1:])

    return model, loss


def llama() -> tuple[nn.Module, Callable[[nn.Module], torch.Tensor]]:
    """A Llama-like decoder of transformers, 9 million parameters, batch 8 x 256."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=4096,
    )
    model = LlamaForCausalLM(config)

    def loss(m: nn.Module) -> torch.Tensor:
        ids = torch.randint(4096, (8, 256))
        return m(input_ids=ids, labels=ids, use_cache=False).loss

    return model, loss


MODELS = {"digits_vit": digits_vit, "byte_model": byte_model, "llama_9m": llama}


def overhead(name: str, every: int, rounds: int) -> dict[str, object]:
    """Median over rounds of the ratio of step times, minus 1, and the step times."""
    torch.manual_seed(0)
    model, loss_of = MODELS[name]()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def seconds(steps: int) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            loss = loss_of(model)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return time.perf_counter() - began

    def watched() -> float:
        with Monitor(model, every=every):
            return seconds(every)

    seconds(WARM_UP)
    watched()
    ratios, plain, with_it = [], [], []
    for n in range(rounds):
        first, second = (watched, lambda: seconds(every)) if n % 2 else (lambda: seconds(every), watched)
        times = (first(), second())
        ours, theirs = times if n % 2 else times[::-1]
        ratios.append(ours / theirs)
        with_it.append(ours / every)
        plain.append(theirs / every)
    return {
        "model": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "every": every,
        "step_ms": 1e3 * statistics.median(plain),
        "watched_step_ms": 1e3 * statistics.median(with_it),
        "overhead": statistics.median(ratios) - 1,
        "overhead_low": min(ratios) - 1,
        "overhead_high": max(ratios) - 1,
    }


def main() -> None:
    """Measure each model, print the table, and fail above the gate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--out", type=Path, help="also write OUT.csv and OUT.manifest.json")
    options = parser.parse_args()
    since = recorded.started()
    rows = []
    for name in options.models.split(","):
        rows.append(overhead(name, options.every, options.rounds))
        r = rows[-1]
        print(
            f"{name:12} {r['parameters'] / 1e6:6.2f} M  step {r['step_ms']:7.1f} ms, watched {r['watched_step_ms']:7.1f} ms, "
            f"overhead {r['overhead']:+.1%} ({r['overhead_low']:+.1%} to {r['overhead_high']:+.1%})",
            flush=True,
        )
    if options.out:
        recorded.write(options.out, rows, since, gate=GATE)
    late = [str(r["model"]) for r in rows if options.every == 10 and float(str(r["overhead"])) > GATE]
    if late:
        print(f"above the gate of {GATE:.0%}: {', '.join(late)}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
