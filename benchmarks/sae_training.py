"""An autoencoder from text to file, beside SAELens's own runner: harvest and training together, each in a process of its own, in turn.

    python benchmarks/sae_training.py --saelens FOLDER [--layer 12] [--tokens 65536] [--epochs 1] [--repeat 3] [--out data/results/sae_training]

FOLDER holds SAELens as tests/saes/golden/README.md says; only its processes see it. Every way trains a TopK autoencoder (2,304 features, k 32, batch
1,024) on the same contexts of 128 tokens, on the same Hugging Face weights; loading them is not counted. With --epochs N each context is used N
times: ours goes through its shards again, SAELens's runner through the model. SAELens runs twice:
- on TransformerLens's hook_z, which is the job that is done here (z has no other name there);
- on the output of o_proj of the bare Hugging Face model, which is not z but as wide, and the fastest way that SAELens has.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import recorded

D_IN, D_SAE, K, BATCH, CONTEXT = 576, 2304, 32, 1024, 128
WAYS = ("interp", "SAELens, hook_z", "SAELens, Hugging Face model")


def main() -> None:
    """Measure each way in turn, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layer", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--saelens", type=Path, help="folder in which SAELens is installed")
    parser.add_argument("--out", type=Path, help="also write OUT.csv and OUT.manifest.json")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--inputs", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        run = ours if options.way == "interp" else saelens
        print(json.dumps({"seconds": run(options)}))
        return
    since = recorded.started()
    ways = WAYS if options.saelens else WAYS[:1]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as name:
        prepare(options.model, options.tokens, Path(name))
        for _ in range(options.repeat):
            for way in ways:
                seconds[way].append(in_own_process(way, options, Path(name)))
    rows = []
    for way, took in seconds.items():
        ratios = [a / b for a, b in zip(took, seconds["interp"], strict=True)]
        speed = options.tokens * options.epochs / statistics.median(took)
        each = ", ".join(f"{r:.2f}" for r in ratios)
        print(f"{way:<28} {speed:7.0f} tokens/s; interp is {statistics.median(ratios):.2f} x as fast (each: {each})")
        rows.append({"way": way, "tokens_per_second": speed, "ratio": statistics.median(ratios), "ratios": each})
    if options.out:
        recorded.write(
            options.out,
            rows,
            since,
            model=options.model,
            layer=options.layer,
            tokens=options.tokens,
            epochs=options.epochs,
        )


def prepare(model: str, tokens: int, folder: Path) -> None:
    """Write the contexts, and the model as a Hugging Face folder that both sides load."""
    import interp
    from interp.tasks.haystack import corpus_texts

    loaded = interp.load(model)
    ids: list[int] = []
    for text in corpus_texts("train"):
        ids += loaded.encode(text)
        if len(ids) >= tokens:
            break
    if len(ids) < tokens:
        sys.exit(f"the corpus has {len(ids):,} tokens, {tokens:,} were asked for")
    contexts = [ids[i : i + CONTEXT] for i in range(0, tokens - CONTEXT + 1, CONTEXT)]
    (folder / "contexts.json").write_text(json.dumps(contexts))
    hf = loaded.release()
    hf.set_attn_implementation("sdpa")
    hf.save_pretrained(folder / "model")
    loaded.tokenizer.save_pretrained(folder / "model")


def in_own_process(way: str, options: argparse.Namespace, inputs: Path) -> float:
    """Seconds of one way."""
    command = [sys.executable, __file__, "--way", way, "--inputs", str(inputs), "--layer", str(options.layer)]
    command += ["--epochs", str(options.epochs)]
    paths = {} if way == "interp" else {"PYTHONPATH": str(options.saelens)}
    offline = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **offline, **paths}, check=False)
    if done.returncode:
        sys.exit(f"{way} did not run: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])["seconds"]


def ours(options: argparse.Namespace) -> float:
    """Harvest to shards, train, save."""
    import interp
    from interp.saes import HarvestPlan, Recipe, harvest, train

    model = interp.load(str(options.inputs / "model"))
    contexts = json.loads((options.inputs / "contexts.json").read_text())
    count = len(contexts) * CONTEXT * options.epochs
    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        plan = HarvestPlan(layers=(options.layer,), keep_special=True)
        store = harvest(model, contexts, Path(name) / "z", plan)
        recipe = Recipe(architecture="topk", d_sae=D_SAE, k=K, tokens=count, batch=BATCH)
        train(store, options.layer, recipe, Path(name) / "sae")
        return time.perf_counter() - start


def saelens(options: argparse.Namespace) -> float:
    """SAELens's runner; sees SAELens's own TransformerLens."""
    from datasets import Dataset
    from sae_lens import (
        LanguageModelSAERunnerConfig,
        LanguageModelSAETrainingRunner,
        LoggingConfig,
        TopKTrainingSAEConfig,
    )

    contexts = json.loads((options.inputs / "contexts.json").read_text())
    folder = str(options.inputs / "model")
    common = dict(
        sae=TopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, k=K),
        model_name=folder,
        dataset_path="the contexts of this benchmark",
        is_dataset_tokenized=True,
        prepend_bos=False,
        context_size=CONTEXT,
        training_tokens=len(contexts) * CONTEXT * options.epochs,
        train_batch_size_tokens=BATCH,
        store_batch_size_prompts=16,
        n_batches_in_buffer=16,
        logger=LoggingConfig(log_to_wandb=False),
        device="cpu",
        checkpoint_path=None,
        verbose=False,
    )
    bridge = None
    if options.way == "SAELens, hook_z":
        from transformer_lens.model_bridge import TransformerBridge

        bridge = TransformerBridge.boot_transformers(folder, device="cpu")
        where = {"hook_name": f"blocks.{options.layer}.attn.hook_z"}
    else:
        where = {
            "hook_name": f"model.layers.{options.layer}.self_attn.o_proj",
            "model_class_name": "AutoModelForCausalLM",
        }
    # Once more than is asked for: the runner fills its buffer ahead, and must not run dry at the end.
    dataset = Dataset.from_dict({"tokens": contexts * (options.epochs + 1)})
    with tempfile.TemporaryDirectory() as name:
        config = LanguageModelSAERunnerConfig(**common, **where, output_path=str(Path(name) / "sae"))
        runner = LanguageModelSAETrainingRunner(config, override_dataset=dataset, override_model=bridge)
        start = time.perf_counter()
        runner.run()
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
