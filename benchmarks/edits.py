"""What edits cost: a whole edited forward beside the same instrumented forward without edits, and masks by the share of the map they keep.

    python benchmarks/edits.py [--tokens 4096] [--repeat 5] [--out data/results/edits]

Model part (SmolLM2, every default statistic of every head, no logits): plain, a temperature with a bias on key 0, and both with a streaming
mask, interleaved; a ratio is that of one round, the figure the median over rounds.
Kernel part (one layer's shapes, the statistics of the model part): streaming masks of ever smaller windows and block masks that keep
a random share of the blocks, each beside the causal map in the same round. `kept` is the share of the causal map's entries that are left.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import capture
import recorded
import torch

import interp
from interp.capture.call import Attended, AttentionCall, Collect
from interp.interventions import Streaming, Temperature, zero_tuning
from interp.models.hooked import HookedModel
from interp_kernels import Mask, attention, visible_count

BLOCK = 128
SHARES = (0.75, 0.5, 0.25, 0.1)
WINDOWS = (2, 4, 8, 16, 32)
"""Windows, as parts of the text."""
COLLECT = Collect(entropy=True, row_max=True, logit_moments=True, prob_square=True, distance=True)


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write OUT.csv and OUT.manifest.json")
    options = parser.parse_args()
    since = recorded.started()
    model = interp.load("smollm2-135m")
    ids = model.encode(capture.whole_text()[: options.tokens * 12])[: options.tokens]
    rows = [*of_model(model, ids, options.repeat), *of_masks(model, ids, options.repeat)]
    if options.out:
        recorded.write(options.out, rows, since, model="smollm2-135m", text=capture.text_facts())


def of_model(model: HookedModel, ids: list[int], repeat: int) -> list[dict]:
    """The whole forward, edited and not."""
    both = (Temperature(tau=1.1), zero_tuning(0.5))
    edits = {"temperature + bias": both, "temperature + bias + streaming": (*both, Streaming(sinks=4, window=256))}

    def run() -> None:
        model.run(ids, logits="none")

    def edited(name: str) -> None:
        with model.edit(*edits[name]):
            run()

    return table("model", {"no edit": run, **{name: lambda name=name: edited(name) for name in edits}}, repeat, {})


def of_masks(model: HookedModel, ids: list[int], repeat: int) -> list[dict]:
    """One attention call of the model's middle layer under masks that keep less and less."""
    held: list[AttentionCall] = []

    def take(call: AttentionCall, attended: Attended) -> None:
        held.append(call)

    with torch.no_grad():
        model.probe(ids, take, layers=[model.layers // 2])
    call, n = held[0], len(ids)
    masks = {"causal": Mask.causal()}
    for part in WINDOWS:
        masks[f"streaming 4 + {n // part}"] = Mask.causal().sink_window(
            torch.full((call.heads,), 4), torch.full((call.heads,), n // part)
        )
    draw = torch.Generator().manual_seed(0)
    side = -(-n // BLOCK)
    for share in SHARES:
        keep = torch.rand(1, side, side, generator=draw) < share
        keep |= torch.eye(side, dtype=torch.bool)
        masks[f"blocks {share:g}"] = Mask.causal().blocks(keep, BLOCK)
    whole = n * (n + 1) / 2
    kept = {
        name: float(visible_count(mask, 1, call.heads, n, n, call.q.device)[0, 0].double().sum()) / whole
        for name, mask in masks.items()
    }
    calls = {
        name: lambda mask=mask: attention(call.q, call.k, call.v, mask=mask, scale=call.scale, collect=COLLECT)
        for name, mask in masks.items()
    }
    with torch.no_grad():
        return table("one call", calls, repeat, kept)


def table(
    part: str, functions: Mapping[str, Callable[[], object]], repeat: int, kept: Mapping[str, float]
) -> list[dict]:
    """Time the functions in turn, `repeat` rounds after one that is not counted; ratios are to the first, by round."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeat + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    first = next(iter(functions))
    rows = []
    for name, taken in seconds.items():
        ratios = [own / base for own, base in zip(taken, seconds[first], strict=True)]
        row = {"part": part, "what": name, "kept": kept.get(name), "seconds": statistics.median(taken)}
        row |= {"ratio": statistics.median(ratios), "ratios": " ".join(f"{r:.3f}" for r in ratios)}
        rows.append(row)
        share = "" if row["kept"] is None else f"   keeps {row['kept']:6.1%}"
        print(f"{part:<9} {name:<32} {row['seconds']:8.3f} s   {row['ratio']:.3f} x {first}{share}", flush=True)
    return rows


if __name__ == "__main__":
    main()
