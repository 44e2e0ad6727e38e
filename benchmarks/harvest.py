"""Speed of harvesting z and of a training step, beside what people use, in one run.

    python benchmarks/harvest.py [--layers 3,12,29] [--tokens 1024] [--repeat 3] [--saelens FOLDER] [--out data/results/harvest]

Harvest: `interp.saes` against a plain forward hook on o_proj of the same Hugging Face model with fused attention; both stop behind the layer,
run the same batches in turn, and round z to bfloat16. No speed is printed unless both give the same z. The last row writes shards as well.
Step: one step of a TopK autoencoder (576 -> 2,304, k 32, batch 1,024) on random rows, against the same losses by dense products, and, with
--saelens, against SAELens' own trainer: FOLDER holds SAELens as tests/saes/golden/README.md says, and only its process sees it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import recorded
import torch

D_IN, D_SAE, K, BATCH = 576, 2304, 32, 1024
CONTEXT = 128
TOLERANCE = 1e-2
"""Largest relative difference of z in bfloat16, whose own rounding is 0.4 %."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layers", default="3,12,29")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--saelens", type=Path, help="folder in which SAELens is installed")
    parser.add_argument("--out", type=Path, help="also write OUT.csv and OUT.manifest.json")
    parser.add_argument("--saelens-step", type=int, metavar="STEPS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.saelens_step:
        print(json.dumps(saelens_step(options.saelens_step)))
        return
    since = recorded.started()
    rows = harvests(options.model, [int(x) for x in options.layers.split(",")], options.tokens, options.repeat)
    rows += steps(options.steps, options.saelens)
    if options.out:
        recorded.write(options.out, rows, since, model=options.model)


class Enough(Exception):
    """The layer was reached."""


def harvests(name: str, layers: list[int], tokens: int, repeat: int) -> list[dict]:
    """Tokens per second of each way to get z of one layer."""
    import interp
    from interp.saes import HarvestPlan, harvest, z_of

    model = interp.load(name)
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.hf.config.vocab_size
    contexts = torch.randint(10, vocabulary, (tokens // CONTEXT, CONTEXT), generator=generator).tolist()
    rows = []
    for layer in layers:

        def ours(layer: int = layer) -> torch.Tensor:
            return z_of(model, contexts, [layer])[layer].bfloat16()

        def hooked(layer: int = layer) -> torch.Tensor:
            return by_hook(model.hf, contexts, layer)

        speeds: dict[str, list[float]] = {"hook on o_proj": [], "interp": []}
        model.hf.set_attn_implementation("sdpa")
        reference = hooked()
        model.hf.set_attn_implementation("interp")
        difference = float((ours().float() - reference.float()).norm() / reference.float().norm())
        if not difference < TOLERANCE:
            sys.exit(f"layer {layer}: z differs by {difference:.2g}; no speeds are printed")
        for _ in range(repeat):
            model.hf.set_attn_implementation("sdpa")
            speeds["hook on o_proj"].append(tokens / timed(hooked))
            model.hf.set_attn_implementation("interp")
            speeds["interp"].append(tokens / timed(ours))
        with tempfile.TemporaryDirectory() as folder:
            plan = HarvestPlan(layers=(layer,), batch_tokens=tokens)
            written = tokens / timed(lambda folder=folder, plan=plan: harvest(model, contexts, folder, plan))
        pairs = [a / b for a, b in zip(speeds["interp"], speeds["hook on o_proj"], strict=True)]
        ratio = statistics.median(pairs)
        for method, found in speeds.items():
            rows.append(
                {"what": "harvest", "layer": layer, "method": method, "tokens_per_second": max(found), "ratio": ratio}
            )
        rows.append(
            {"what": "harvest", "layer": layer, "method": "interp, shards written", "tokens_per_second": written}
        )
        print(
            f"layer {layer:>2}: interp {max(speeds['interp']):7.0f} tokens/s, hook on o_proj {max(speeds['hook on o_proj']):7.0f}, "
            f"ratio {ratio:.2f} (each: {', '.join(f'{p:.2f}' for p in pairs)}); with shards written {written:7.0f}; z differs by {difference:.1e}",
            flush=True,
        )
    return rows


def by_hook(hf: torch.nn.Module, contexts: list[list[int]], layer: int) -> torch.Tensor:
    """z of a layer by a plain hook that ends the pass."""
    seen: list[torch.Tensor] = []

    def take(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        seen.append(given[0])
        raise Enough

    hook = hf.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(take)
    try:
        with torch.no_grad():
            hf.model(torch.tensor(contexts), use_cache=False)
    except Enough:
        pass
    finally:
        hook.remove()
    return seen[0].flatten(0, 1).bfloat16()


def steps(count: int, saelens: Path | None) -> list[dict]:
    """Tokens per second of training steps."""
    from interp.saes import losses

    speeds = {"interp": step_speed(count)}
    with mock.patch.object(losses, "supported", lambda x: False):
        speeds["interp, dense products"] = step_speed(count)
    if saelens is not None:
        command = [sys.executable, __file__, "--saelens-step", str(count)]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(saelens)}, check=False
        )
        if done.returncode:
            print(f"SAELens did not run: {done.stderr.strip().splitlines()[-1]}")
        else:
            speeds["SAELens"] = json.loads(done.stdout.strip().splitlines()[-1])["tokens_per_second"]
    for method, speed in speeds.items():
        print(
            f"step: {method:<24} {speed:7.0f} tokens/s, interp is {speeds['interp'] / speed:.2f} x as fast", flush=True
        )
    return [
        {"what": "step", "method": m, "tokens_per_second": s, "ratio": speeds["interp"] / s} for m, s in speeds.items()
    ]


def step_speed(count: int) -> float:
    """Tokens per second of our steps on random rows, reading batches included; the best step."""
    from interp.saes import Recipe, Store
    from interp.saes.store import tokens_path, write_manifest, write_tensors, z_path
    from interp.saes.training import Trainer

    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name), BATCH * 4
        z = torch.randn(rows, D_IN, generator=torch.Generator().manual_seed(0))
        write_tensors(z_path(folder, 0, 0), {"z": z.bfloat16()})
        write_tensors(
            tokens_path(folder, 0),
            {"ids": torch.zeros(rows), "lengths": torch.tensor([rows]), "rows": torch.arange(rows)},
        )
        shard = {"rows": rows, "contexts": 1, "tokens": rows}
        write_manifest(
            folder,
            {"layers": [0], "d_in": D_IN, "heads": 9, "model": {}, "settings": {}, "text": {}, "shards": [shard]},
        )
        recipe = Recipe(architecture="topk", d_sae=D_SAE, k=K, tokens=BATCH * (count + 1), batch=BATCH)
        trainer = Trainer(Store(folder), 0, recipe)
        trainer.advance()
        return BATCH / min(timed(trainer.advance) for _ in range(count))


def saelens_step(count: int) -> dict[str, float]:
    """The same of SAELens' trainer; runs in a process that sees SAELens."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    x = torch.randn(BATCH, D_IN, generator=torch.Generator().manual_seed(0))
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, k=K))
    config = SAETrainerConfig(total_training_samples=BATCH * (count + 1), train_batch_size_samples=BATCH, lr_end=3e-5)
    trainer = SAETrainer(config, sae, itertools.repeat(x))
    trainer.step(x)
    return {"tokens_per_second": BATCH / min(timed(lambda: trainer.step(x)) for _ in range(count))}


def timed(function: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
