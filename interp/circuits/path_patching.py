"""Path patching: what a head's change does along the paths that lead directly to some receivers, everything else held as it was.

Wang et al. 2022 (arXiv 2211.00593, section 3.1): with x_orig the base prompt and x_new the other one,

    1. note every head's z on x_orig, and the sender's z on x_new;
    2. run x_orig with the sender's z from x_new and every other head's z held as on x_orig; note the receivers' inputs;
    3. run x_orig with those inputs in the receivers only, and read the logit difference.

The paths from sender to receivers run through the stream and, as in the paper, through MLPs, which are recomputed in step 2; `freeze_mlps` holds
them too, which leaves the direct path sender -> receiver alone. Receivers are q, k or v of heads (key heads for k and v under grouped
queries), or "logits": then step 2's own logits are read. Cost: two passes per sender (one for "logits"), senders behind each other in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from interp.circuits.blocks import leaving, mlps_of
from interp.circuits.cells import BATCH, Cell, Held, Kind, Patch, Tap, chunks, copied, patches, recorded, width
from interp.circuits.pairs import Direction, Pairs, baselines, check_direction, difference, labels_of, paired
from interp.circuits.tables import cell_table, circuit_result
from interp.errors import OptionError
from interp.interventions.readout import Readout
from interp.interventions.where import Head
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import Prompt

Receiver = tuple[int, int, Literal["q", "k", "v"]]
"""(layer, head, input): a query head for q, a key head for k and v."""
Receivers = Literal["logits"] | Sequence[Receiver]
SOURCE = "path patching; Wang et al. 2022 (arXiv 2211.00593), section 3.1"


def path_patching(
    model: HookedModel,
    prompts: Sequence[Prompt],
    senders: Sequence[Head] | None = None,
    receivers: Receivers = "logits",
    *,
    freeze_mlps: bool = False,
    direction: Direction = "noise",
    position: str = "all",
    batch: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Effect of each sender along its paths to the receivers (all of them together), in units of the gap (see `interp.circuits.pairs`).

    Args:
        model: a decoder.
        prompts: with `corrupt` and `wrong`.
        senders: heads, None for all.
        receivers: "logits", or inputs of heads.
        freeze_mlps: hold the MLPs as well, not only the heads.
        direction: "noise", as in the paper, or "denoise".
        position: "all", or the name of a row or key set at which the senders are patched.
        batch: most sequences of one pass.
        progress: called with (senders done, senders), over all prompts.

    Returns:
        Result "circuits.path_patching", one row per sender: as `activation_patching`. A sender with no receiver behind it has effect 0.

    Raises:
        OptionError, UnsupportedModelError: as `activation_patching`; heads that do not exist.
    """
    check_direction(direction)
    labels_of(prompts, "all" if position == "all" else [position])
    wanted = [(a, b) for a in range(model.layers) for b in range(model.heads)] if senders is None else list(senders)
    inputs = _checked(model, wanted, receivers)
    groups = paired(model, prompts, most=max(1, batch // model.heads))
    readout = Readout(model)
    clean, corrupt, gap = baselines(readout, groups)
    cells = [Cell(layer=layer, head=head, label=position) for layer, head in wanted]
    reach = model.layers if inputs is None else max(layer for layer, _, _ in inputs)
    samples = np.zeros((len(prompts), len(cells)))
    before = clean if direction == "noise" else corrupt
    live = [n for n, cell in enumerate(cells) if cell.layer < reach]
    done, total = 0, len(prompts) * len(live)
    for pairs in groups:
        path = _Path(readout, pairs, direction, inputs, freeze_mlps)
        rows = list(pairs.numbers)
        for some in chunks([cells[n] for n in live], pairs, batch):
            columns = [live[n] for n in some]
            found = path.run([cells[n] for n in columns]).double().cpu().numpy()
            samples[np.ix_(rows, columns)] = (found.T - before[rows, None]) / gap
            done += len(some) * len(rows)
            if progress is not None:
                progress(done, total)
    settings = {
        "receivers": "logits" if inputs is None else [f"{a}.{b}.{kind}" for a, b, kind in inputs],
        "freeze_mlps": freeze_mlps,
        "direction": direction,
        "position": position,
        "prompts": len(prompts),
        "gap": gap,
    }
    arrays = {"samples": samples, "clean": clean, "corrupt": corrupt}
    return circuit_result("path_patching", model, cell_table(cells, samples), arrays, source=SOURCE, settings=settings)


class _Path:
    """What is held of one group of prompts, and the two runs of a batch of senders."""

    def __init__(
        self,
        readout: Readout,
        pairs: Pairs,
        direction: Direction,
        receivers: Sequence[Receiver] | None,
        freeze_mlps: bool,
    ) -> None:
        self.readout, self.pairs, self.receivers = readout, pairs, receivers
        self.base, other = pairs.sides(direction)
        self.mlps: dict[int, tuple[torch.nn.Module, Tensor]] = {}
        with ExitStack() as stack:
            if freeze_mlps:
                modules = mlps_of(readout.model)
                stack.enter_context(leaving({module: self._noting(n, module) for n, module in enumerate(modules)}))
            self.orig = recorded(readout, self.base, ("z",))
        self.new = recorded(readout, other, ("z",))

    @torch.no_grad()
    def run(self, senders: Sequence[Cell]) -> Tensor:
        """LD [sender, P]."""
        readout, pairs, count = self.readout, self.pairs, len(senders)
        model = readout.model
        entrance = min(cell.layer for cell in senders)
        behind = range(entrance, model.layers)
        everything = torch.ones(1, 1, 1, 1, dtype=torch.bool)
        hold = Patch(
            where={("z", n): everything for n in behind},
            values={("z", n): self.orig["z", n][None] for n in behind},
            layers=tuple(behind),
        )
        tap = Tap(kinds=frozenset(("q", "k", "v") if self.receivers else ()))
        held = {
            m: (lambda _, x=x: x.repeat(count, *[1] * (x.ndim - 1))) for n, (m, x) in self.mlps.items() if n >= entrance
        }
        with (
            model.edit(hold, patches(senders, self.new, pairs), tap),
            copied(model, entrance, count),
            leaving(held),
        ):
            states = readout.states(self.base)
        if self.receivers is None:
            return difference(readout, states, pairs.right, pairs.wrong).view(count, -1)
        return self._received(tap.held, count)

    def _received(self, noted: Held, count: int) -> Tensor:
        """Step 3: the receivers' inputs in place, everything else as it comes."""
        model = self.readout.model
        where: Held = {}
        values: Held = {}
        for layer, head, kind in self.receivers or ():
            x = noted[kind, layer]
            # Below the senders' entrance there are no copies, and nothing has changed.
            if x.shape[0] != count * len(self.base):
                continue
            values[kind, layer] = x.view(count, -1, *x.shape[1:])
            where.setdefault((kind, layer), torch.zeros(1, 1, x.shape[1], 1, dtype=torch.bool))[0, 0, head] = True
        layers = tuple(sorted({layer for _, layer in where}))
        with model.edit(Patch(where=where, values=values, layers=layers)), copied(model, layers[0], count):
            states = self.readout.states(self.base)
        return difference(self.readout, states, self.pairs.right, self.pairs.wrong).view(count, -1)

    def _noting(self, layer: int, module: torch.nn.Module) -> Callable[[Tensor], Tensor]:
        def note(x: Tensor) -> Tensor:
            self.mlps[layer] = (module, x)
            return x

        return note


def _checked(model: HookedModel, senders: Sequence[Head], receivers: Receivers) -> list[Receiver] | None:
    """The receivers, None for the logits. Raises OptionError for heads that do not exist."""
    if bad := [head for head in senders if not (0 <= head[0] < model.layers and 0 <= head[1] < model.heads)]:
        raise OptionError(
            f"senders {bad} do not exist; the model has layers 0 to {model.layers - 1} with heads 0 to {model.heads - 1}"
        )
    if not senders:
        raise OptionError("no senders given; None takes every head")
    if isinstance(receivers, str):
        if receivers != "logits":
            raise OptionError(
                f"receivers must be 'logits' or (layer, head, 'q' | 'k' | 'v') triples; got {receivers!r}"
            )
        return None
    known: dict[str, Kind] = {"q": "q", "k": "k", "v": "v"}
    for layer, head, kind in receivers:
        if kind not in known or not (0 <= layer < model.layers and 0 <= head < width(model, known[kind])):
            raise OptionError(
                f"receiver {(layer, head, kind)} does not exist; wanted a layer up to {model.layers - 1}, an input of q, k, v, and one of "
                f"{width(model, 'q')} query heads for q or of {width(model, 'k')} key heads for k and v"
            )
    if not receivers:
        raise OptionError("no receivers given; 'logits' takes the model's output")
    return list(receivers)
