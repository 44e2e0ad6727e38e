"""Gradient x attention in O(N) memory, by flash attention's own identity.

For f = ln p(target | text) and do_i = df / do_i at the head output of row i, the first-order effect of the weights on key j is

    a_j = sum_i p_ij (do_i . v_j) = dv_j . v_j        because dv_j = sum_i p_ij do_i is what the kernel's backward pass gives

and each row's effects sum to sum_j p_ij (do_i . v_j) = do_i . o_i, flash's D_i (`rows`). So one forward and one backward pass give all heads
and keys; no map is formed. Signed: positive keys speak for the target. Their totals agree by definition, sum_j a_j = sum_i do_i . o_i;
`check` in the manifest holds the largest difference over the largest total, which says that the kernel's gradients are right.

It is a first-order effect of each weight alone (weights are taken as free, without the softmax's renormalisation): not what removal does.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.capture.call import AttentionCall, Phase
from interp.capture.sites import Site
from interp.errors import OptionError
from interp.explain.question import Question, Target, Text, ask
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import generator

SOURCE = "gradient x attention; the identity is that of FlashAttention's backward pass (arXiv 2205.14135)"
PREFILL: frozenset[Phase] = frozenset({"prefill"})


def gradient(model: HookedModel, prompt: Text, target: Target = None, *, draws: int = 3, seed: int = 0) -> Result:
    """Gradient x attention of every head and key, for the log-probability of the target.

    Args:
        model, prompt, target: see `interp.explain.question.ask`.
        draws: random other targets for the control, at least 2.
        seed: of those.

    Returns:
        Result "explain.gradient", a row for each head: score, sum_j a_j in nats; control, the mean of the same for random other targets, and
        spread, its standard deviation; positive and negative, the sums of the a_j of either sign. Arrays: "keys" [layer, head, key], the
        a_j; "rows" [layer, head, row], do_i . o_i.

    Raises:
        OptionError: fewer than two draws.
    """
    if draws < 2:
        raise OptionError(f"draws: wanted at least 2 random targets, got {draws}")
    question = ask(model, prompt, target)
    keys, rows = effects(model, question)
    size = int(model.hf.config.get_text_config().vocab_size)
    others = np.setdiff1d(np.arange(size), [question.target])
    drawn = generator(seed, 0).choice(others, size=draws, replace=False)
    against = torch.stack([effects(model, replace(question, target=int(token)))[0].sum(-1) for token in drawn])
    layers, heads, _ = keys.shape
    columns = {
        "layer": np.repeat(np.arange(layers), heads),
        "head": np.tile(np.arange(heads), layers),
        "score": keys.sum(-1),
        "spread": against.std(0),
        "control": against.mean(0),
        "positive": keys.clamp(min=0).sum(-1),
        "negative": keys.clamp(max=0).sum(-1),
    }
    totals = rows.sum(-1)
    manifest = model.manifest() | {
        "method": "gradient",
        "source": SOURCE,
        "question": question.record(model),
        "settings": {"draws": draws, "control_targets": [int(x) for x in drawn]},
        "seed": seed,
        "check": float((keys.sum(-1) - totals).abs().max() / totals.abs().max().clamp(min=1e-30)),
    }
    table = pd.DataFrame({name: np.asarray(x).reshape(-1) for name, x in columns.items()})
    return Result(
        kind="explain.gradient",
        table=table,
        manifest=manifest,
        arrays={"keys": keys.numpy(), "rows": rows.numpy()},
    )


@torch.enable_grad()
def effects(model: HookedModel, question: Question) -> tuple[Tensor, Tensor]:
    """a_j [layer, head, key] and do_i . o_i [layer, head, row] for the log-probability of the question's target, float64."""
    watch = Watch()
    ids = torch.tensor([question.ids], device=model.device)
    keep = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.hf.forward).parameters else {}
    with model.edit(watch):
        logits = model.hf(input_ids=ids, use_cache=False, **keep).logits[0, -1]
    layers = sorted(watch.values)
    values, outs = [watch.values[n] for n in layers], [watch.outs[n] for n in layers]
    f = logits.double().log_softmax(-1)[question.target]
    slopes = torch.autograd.grad(f, [*values, *outs])
    found = []
    for tensors, slope in ((values, slopes[: len(layers)]), (outs, slopes[len(layers) :])):
        pairs = zip(tensors, slope, strict=True)
        found.append(torch.stack([(x.double() * dx.double()).sum(-1)[0].detach() for x, dx in pairs]).cpu())
    return found[0], found[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Watch:
    """An intervention that changes nothing: it gives every head values of its own, and keeps them and the outputs for the gradient.

    Attributes:
        values: layer -> v [1, H, N, Dv].
        outs: layer -> z [1, H, N, Dv].
        phases: prefill.
    """

    values: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    outs: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    phases: frozenset[Phase] = PREFILL

    @property
    def name(self) -> str:
        """For messages and manifests."""
        return "Watch(values and outputs)"

    def check(self, *, layers: int, heads: int) -> None:
        """Fits every model."""

    def acts_on(self, site: Site) -> bool:
        """Every self-attention."""
        return site.kind == "self"

    def before(self, call: AttentionCall) -> AttentionCall:
        """The same call, its values a tensor that nothing else reads."""
        call = call.ungrouped()
        # A model whose parameters are frozen gives values without a gradient up to the first that asks for one.
        v = call.v.clone() if call.v.requires_grad else call.v.detach().clone().requires_grad_()
        self.values[call.site.layer] = v
        return replace(call, v=v)

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """The outputs as they are."""
        self.outs[call.site.layer] = out
        return out
