"""Activation patching: put one head's z, q, k or v of the other run in place, and see how much of the answer comes (or goes).

For every cell (kind, layer, head, positions) one run over the corrupted prompts with the clean run's values in that cell (denoise: what is
enough to restore the answer), or over the clean prompts with the corrupted run's (noise: what the answer needs); Vig et al. 2020, Meng et
al. 2022, and Heimersheim and Nanda 2024 (arXiv 2404.15255) for the two directions. Exact: every effect is a run of the model. Cost: L x H
sequences for z, of which half the layers are shared (see `interp.circuits.cells`); memory of `batch` sequences. The same numbers as TransformerLens's
`get_act_patch_attn_head_out_all_pos` (denoise, z, "all"); under grouped queries k and v are patched by key head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np

from interp.circuits.cells import BATCH, Held, Kind, cells_of, chunks, kinds_of, recorded, run_cells
from interp.circuits.pairs import Direction, Positions, baselines, check_direction, labels_of, paired
from interp.circuits.tables import cell_table, circuit_result
from interp.errors import OptionError
from interp.interventions.readout import Readout
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import Prompt

Control = Literal["none", "other pair"]
SOURCE = "activation patching; Heimersheim and Nanda 2024 (arXiv 2404.15255)"


def activation_patching(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    sites: Sequence[Kind] = ("z",),
    positions: Positions = "all",
    direction: Direction = "denoise",
    control: Control = "none",
    batch: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Effect of patching each head, in units of the gap between clean and corrupted prompts (see `interp.circuits.pairs`).

    Args:
        model: a decoder.
        prompts: with `corrupt` and `wrong`.
        sites: what is patched: "z", "q", "k", "v".
        positions: "all" together, "each" by itself (prompts of one length), or names of rows and key sets.
        direction: "denoise" or "noise".
        control: "other pair" repeats the sweep with the values of another pair of the same length, which says how much of an effect any
            other prompt's values have; "none" leaves it out.
        batch: most sequences of one pass.
        progress: called with (cells done, cells).

    Returns:
        Result "circuits.activation_patching", one row per cell: site, position, layer, head (key head for k and v), score, spread over
        prompts, control. Arrays: samples [prompt, row], clean and corrupt, the logit differences [prompt].

    Raises:
        OptionError: an unknown option, prompts that lack a corruption or a wrong answer, or no gap between clean and corrupted prompts.
        UnsupportedModelError: the model is no decoder with an unembedding.
    """
    kinds, labels = kinds_of(sites), labels_of(prompts, positions)
    check_direction(direction)
    if control not in get_args(Control):
        raise OptionError(f"control must be one of {', '.join(get_args(Control))}; got {control!r}")
    groups = paired(model, prompts, most=max(1, batch // model.heads))
    readout = Readout(model)
    clean, corrupt, gap = baselines(readout, groups)
    cells = cells_of(model, kinds, labels)
    samples = np.zeros((len(prompts), len(cells)))
    beside = np.full_like(samples, np.nan)
    before = corrupt if direction == "denoise" else clean
    done, total = 0, len(prompts) * len(cells)
    for pairs in groups:
        base, source = pairs.sides(direction)
        held = recorded(readout, source, kinds)
        sets: list[tuple[np.ndarray, Held]] = [(samples, held)]
        if control == "other pair" and len(pairs.numbers) > 1:
            sets.append((beside, {at: x.roll(1, 0) for at, x in held.items()}))
        rows = list(pairs.numbers)
        for some in chunks(cells, pairs, batch):
            for into, values in sets:
                found = run_cells(readout, pairs, base, [cells[n] for n in some], values).double().cpu().numpy()
                into[np.ix_(rows, some)] = (found.T - before[rows, None]) / gap
            done += len(some) * len(rows)
            if progress is not None:
                progress(done, total)
    settings = {
        "sites": kinds,
        "positions": positions if isinstance(positions, str) else list(positions),
        "direction": direction,
        "control": control,
        "prompts": len(prompts),
        "gap": gap,
    }
    table = cell_table(cells, samples, None if control == "none" else beside)
    arrays = {"samples": samples, "clean": clean, "corrupt": corrupt}
    return circuit_result("activation_patching", model, table, arrays, source=SOURCE, settings=settings)
