"""Direct logit attribution: what each head writes towards the right answer by itself, past everything that comes behind it.

The last state is a sum: embeddings + what every head writes + what every MLP writes + biases. With the division of every norm on the way held at
the value it has (the convention of the literature; "frozen LayerNorm"), the difference of logits is a linear function of that sum, so

    LD = sum over heads of z_h . dLD/dz_h  +  embeddings  +  MLPs  +  biases

and the parts are read off one backward pass whose graph is cut behind every z and every MLP (Elhage et al. 2021, "A Mathematical Framework for
Transformer Circuits"; Wang et al. 2022, arXiv 2211.00593). Norms behind an attention (Gemma 2) are held likewise. LD here is before a soft
cap or scale of logits, which is not linear. Nothing is folded or centred: the weights are the model's own. The sum is checked against the
model's own LD on every prompt. One forward and one backward pass, and one forward pass for the biases (all parts zero).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interp.capture.call import AttentionCall
from interp.capture.sites import unwrapped
from interp.circuits.blocks import entering, leaving, mlps_of
from interp.circuits.cells import Cell
from interp.circuits.pairs import Pairs, paired
from interp.circuits.tables import cell_table, circuit_result
from interp.errors import UnsupportedModelError
from interp.interventions.readout import Readout
from interp.interventions.where import HeadEdit
from interp.models.blocks import decoder_blocks
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import Prompt

PROMPTS = 16
TOLERANCE, HALF_TOLERANCE = 1e-3, 5e-2
"""Largest error of the sum, relative to the largest of its parts; the second for bfloat16 and float16."""
SOURCE = "direct logit attribution; Elhage et al. 2021, Wang et al. 2022 (arXiv 2211.00593)"


def direct_logit_attribution(model: HookedModel, prompts: Sequence[Prompt], *, batch: int = PROMPTS) -> Result:
    """Direct effect of every head on the difference of logits at the last token, in logits.

    Args:
        model: a decoder.
        prompts: with `wrong`.
        batch: most prompts of one pass.

    Returns:
        Result "circuits.direct_logit_attribution": one row per head: score (mean over prompts, logits), spread (standard deviation over
        prompts), control (the same head's attribution to the next prompt's answers). Arrays: samples [prompt, head], mlps [prompt, layer],
        embedding, biases, logit_difference [prompt], the model's own. manifest["parts"]: the mean of each part, their sum, the mean logit
        difference, and the largest error of a prompt's sum.

    Raises:
        OptionError: no prompts, or one without a wrong answer.
        UnsupportedModelError: the parts of this model do not add up to its logit difference.
    """
    groups = paired(model, prompts, most=batch, corrupt=False)
    readout = Readout(model)
    cut = _CutModel(readout)
    heads = [Cell(layer=a, head=b, label="end") for a in range(model.layers) for b in range(model.heads)]
    count = len(prompts)
    parts: dict[str, NDArray[np.float64]] = {
        "samples": np.zeros((count, len(heads))),
        "control": np.full((count, len(heads)), np.nan),
        "mlps": np.zeros((count, model.layers)),
        "embedding": np.zeros(count),
        "biases": np.zeros(count),
        "logit_difference": np.zeros(count),
    }
    for pairs in groups:
        following = [prompts[(n + 1) % count] for n in pairs.numbers]
        other = cut.direction([p.answer[0] for p in following], [p.wrong[0] if p.wrong else 0 for p in following])
        found = cut.parts(pairs, other if count > 1 else None)
        for name, values in found.items():
            parts[name][list(pairs.numbers)] = values.cpu().numpy()
    total = parts["samples"].sum(1) + parts["mlps"].sum(1) + parts["embedding"] + parts["biases"]
    error = np.abs(total - parts["logit_difference"]).max()
    largest = max(
        float(np.abs(parts[name]).max()) for name in ("samples", "mlps", "embedding", "biases", "logit_difference")
    )
    allowed = TOLERANCE if model.dtype in (torch.float32, torch.float64) else HALF_TOLERANCE
    if not error <= allowed * largest:
        raise UnsupportedModelError(
            f"{type(model.hf).__name__}: heads, MLPs, embeddings and biases do not add up to its logit difference (off by {error:.2g}); "
            "something else writes to its stream, or one of its norms is of an unknown kind"
        )
    said = {
        "heads": float(parts["samples"].sum(1).mean()),
        "mlps": float(parts["mlps"].sum(1).mean()),
        "embedding": float(parts["embedding"].mean()),
        "biases": float(parts["biases"].mean()),
        "sum": float(total.mean()),
        "logit difference": float(parts["logit_difference"].mean()),
        "largest error": float(error),
    }
    control = parts.pop("control")
    table = cell_table(heads, parts["samples"], None if count == 1 else control)
    result = circuit_result(
        "direct_logit_attribution", model, table, parts, source=SOURCE, settings={"prompts": count}
    )  # fmt: skip
    return replace(result, manifest={**result.manifest, "parts": said})


@dataclass(frozen=True, kw_only=True, eq=False)
class _Leaves(HeadEdit):
    """Cuts the graph of autograd at every z: what is behind sees a leaf (or zeros), what is before is left out."""

    held: dict[int, Tensor] = field(default_factory=dict)
    zero: bool = False
    selective: ClassVar[bool] = False

    def before(self, call: AttentionCall) -> AttentionCall:
        """No gradient of patterns."""
        return replace(call, q=call.q.detach(), k=call.k.detach(), v=call.v.detach())

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """A leaf."""
        self.held[call.site.layer] = _leaf(out, self.zero)
        return self.held[call.site.layer]


class _CutModel:
    """The model as a linear function of its parts, for one group of prompts at a time."""

    def __init__(self, readout: Readout) -> None:
        model = readout.model
        self.readout, self.model = readout, model
        self.first, self.mlps = decoder_blocks(model)[0], mlps_of(model)
        self.norms = [m for m in model.hf.modules() if _is_norm(unwrapped(m))]
        self.weight: Tensor = readout.head.weight
        self.bias: Tensor | None = getattr(readout.head, "bias", None)

    def direction(self, right: Sequence[int] | Tensor, wrong: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the unembedding and of its bias, right less wrong: [P, d] and [P], float64."""
        right, wrong = torch.as_tensor(right).to(self.weight.device), torch.as_tensor(wrong).to(self.weight.device)
        rows = (self.weight[right].double() - self.weight[wrong].double()).detach()
        if self.bias is None:
            return rows, torch.zeros(len(right), dtype=torch.float64, device=rows.device)
        return rows, (self.bias[right].double() - self.bias[wrong].double()).detach()

    def parts(self, pairs: Pairs, other: tuple[Tensor, Tensor] | None) -> dict[str, Tensor]:
        """Every part of LD by prompt, [P, ...] float64; "control" with the head parts of another direction."""
        mine = self.direction(pairs.right, pairs.wrong)
        with torch.no_grad():
            own = _difference(self.readout.states(pairs.clean), mine)
        ratios: dict[nn.Module, Tensor] = {}
        zs, written, embedded, states = self._run(pairs.clean, ratios, zero=False)
        _, _, _, silent = self._run(pairs.clean, ratios, zero=True)
        leaves = [*zs, *written, embedded]
        slopes = torch.autograd.grad(_difference(states, mine).sum(), leaves, retain_graph=other is not None)
        count = len(pairs.numbers)
        found = [(x.detach().double() * slope.double()) for x, slope in zip(leaves, slopes, strict=True)]
        heads = torch.cat([x.sum((2, 3)) for x in found[: len(zs)]], 1)
        mlps = torch.stack([x.reshape(count, -1).sum(1) for x in found[len(zs) : -1]], 1)
        parts = {
            "samples": heads,
            "mlps": mlps,
            "embedding": found[-1].reshape(count, -1).sum(1),
            "biases": _difference(silent, mine).detach(),
            "logit_difference": own,
        }
        if other is not None:
            slopes = torch.autograd.grad(_difference(states, other).sum(), zs)
            beside = [(z.detach().double() * slope.double()).sum((2, 3)) for z, slope in zip(zs, slopes, strict=True)]
            parts["control"] = torch.cat(beside, 1)
        return parts

    def _run(
        self, ids: Tensor, ratios: dict[nn.Module, Tensor], *, zero: bool
    ) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
        """z of each layer, what each MLP writes, the embeddings (leaves all), and the last states. `zero` silences every part."""
        leaves = _Leaves(zero=zero)
        written: dict[int, Tensor] = {}
        stream: dict[str, Tensor] = {}

        def keep(into: dict[Any, Tensor], key: object) -> Any:
            def change(x: Tensor) -> Tensor:
                into[key] = _leaf(x, zero)
                return into[key]

            return change

        mlps: Mapping[nn.Module, Any] = {m: keep(written, n) for n, m in enumerate(self.mlps)}
        with (
            torch.enable_grad(),
            self.model.edit(leaves),
            entering(self.first, keep(stream, "embedding")),
            leaving(mlps),
            _held_norms(self.norms, ratios),
        ):
            states = self.readout.states(ids)
        layers = range(self.model.layers)
        return [leaves.held[n] for n in layers], [written[n] for n in layers], stream["embedding"], states


def _difference(states: Tensor, direction: tuple[Tensor, Tensor]) -> Tensor:
    """LD of the last row before a cap, float64 [P]."""
    return (states[:, -1].double() * direction[0]).sum(-1) + direction[1]


def _leaf(x: Tensor, zero: bool) -> Tensor:
    return (torch.zeros_like(x) if zero else x.detach()).requires_grad_()


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    named = isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("Norm")
    return named and isinstance(weight, Tensor) and weight.ndim == 1


@contextmanager
def _held_norms(norms: Sequence[nn.Module], ratios: dict[nn.Module, Tensor]) -> Iterator[None]:
    """Hold the factor by which each norm multiplies each feature; noted at the first run, used again in the next."""

    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        x, inner = args[0], unwrapped(module)
        x = x - x.mean(-1, keepdim=True) if isinstance(inner, nn.LayerNorm) else x
        bias = getattr(inner, "bias", None)
        bias = torch.zeros((), dtype=x.dtype, device=x.device) if bias is None else bias.detach()
        if module not in ratios:
            # A feature that is exactly 0 has no factor, and adds nothing.
            ratios[module] = ((output - bias) / x).nan_to_num(0.0, 0.0, 0.0).detach()
        return (x * ratios[module] + bias).to(output.dtype)

    handles = [norm.register_forward_hook(hook) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
