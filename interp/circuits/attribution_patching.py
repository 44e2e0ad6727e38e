"""Attribution patching: the first-order estimate of activation patching of every head, from one backward pass.

    effect of a cell  ~  sum over its positions and features of (source - base) . dLD/dx at the base run

for x = z, q, k, v of every head at once (Nanda 2023; Syed et al. 2023, arXiv 2310.10348); base is the corrupted run for "denoise", the clean run
for "noise", as in `activation_patching`, whose units it shares. First order: a saturated softmax hides effects (for q and k above all). With
`steps` the gradient is the mean over runs whose input embeddings lie between base and source, at (k - 1/2) / steps of the way (integrated
gradients on inputs, Hanna et al. 2024, arXiv 2403.17806, who take the ends of the intervals). Cost: two runs and one backward (or `steps`
of them) for all cells; memory of one backward pass over `batch` prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from interp.circuits.blocks import leaving
from interp.circuits.cells import Held, Kind, Tap, cells_of, kinds_of, recorded
from interp.circuits.pairs import (
    Direction,
    Pairs,
    Positions,
    baselines,
    check_direction,
    difference,
    labels_of,
    marked,
    paired,
)
from interp.circuits.tables import cell_table, circuit_result
from interp.errors import OptionError
from interp.interventions.readout import Readout
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import Prompt

SOURCE = "attribution patching; Nanda 2023, Syed et al. 2023 (arXiv 2310.10348)"
PROMPTS = 8


def attribution_patching(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    sites: Sequence[Kind] = ("z",),
    positions: Positions = "all",
    direction: Direction = "denoise",
    steps: int | None = None,
    batch: int = PROMPTS,
) -> Result:
    """First-order effect of patching each head, in the units and signs of `activation_patching`.

    Args:
        model, prompts, sites, positions, direction: as `activation_patching`.
        steps: None takes the gradient at the base run; a number, the mean over as many runs on the way to the source.
        batch: most prompts of one pass.

    Returns:
        Result "circuits.attribution_patching", as `activation_patching`; control is NaN.

    Raises:
        OptionError, UnsupportedModelError: as `activation_patching`; steps below 1.
    """
    kinds, labels = kinds_of(sites), labels_of(prompts, positions)
    check_direction(direction)
    if steps is not None and steps < 1:
        raise OptionError(f"steps must be at least 1, or None for the gradient at the base run; got {steps}")
    groups = paired(model, prompts, most=batch)
    readout = Readout(model)
    clean, corrupt, gap = baselines(readout, groups)
    cells = cells_of(model, kinds, labels)
    samples = np.zeros((len(prompts), len(cells)))
    shares = [0.0] if steps is None else [(k + 0.5) / steps for k in range(steps)]
    for pairs in groups:
        base, source = pairs.sides(direction)
        # [P, H, N] by kind and layer
        effects = _effects(readout, pairs, base, source, kinds, shares)
        spots = {label: marked(pairs, label) for label in labels}
        for n, cell in enumerate(cells):
            effect = effects[cell.kind, cell.layer][:, cell.head]
            samples[list(pairs.numbers), n] = (effect * spots[cell.label]).sum(-1).numpy() / gap
    settings = {
        "sites": kinds,
        "positions": positions if isinstance(positions, str) else list(positions),
        "direction": direction,
        "steps": steps,
        "prompts": len(prompts),
        "gap": gap,
    }
    arrays = {"samples": samples, "clean": clean, "corrupt": corrupt}
    return circuit_result(
        "attribution_patching", model, cell_table(cells, samples), arrays, source=SOURCE, settings=settings
    )


def _effects(
    readout: Readout, pairs: Pairs, base: Tensor, source: Tensor, kinds: Sequence[Kind], shares: Sequence[float]
) -> Held:
    """(source - base) . gradient, summed over features: float64 [P, H, N] by kind and layer, on the cpu."""
    model = readout.model
    here, there = recorded(readout, base, kinds), recorded(readout, source, kinds)
    embed = model.hf.get_input_embeddings()
    with torch.no_grad():
        ends = embed(base), embed(source)
    slopes: Held = {}
    for share in shares:
        tap = Tap(kinds=frozenset(kinds))
        with torch.enable_grad(), model.edit(tap), _embedded(embed, torch.lerp(*ends, share)):
            metric = difference(readout, readout.states(base), pairs.right, pairs.wrong).sum()
        at = list(tap.held)
        for key, slope in zip(at, torch.autograd.grad(metric, [tap.held[key] for key in at]), strict=True):
            slopes[key] = slopes[key] + slope if key in slopes else slope
    return {
        key: ((there[key] - here[key]).double() * (slopes[key] / len(shares)).double()).sum(-1).cpu() for key in here
    }


@contextmanager
def _embedded(embed: torch.nn.Module, values: Tensor) -> Iterator[None]:
    """Give these input embeddings instead, and begin the graph of autograd there."""
    with leaving({embed: lambda _: values.detach().requires_grad_()}):
        yield
