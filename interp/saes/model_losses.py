"""`LossMeter`: what a model's prediction loses when an autoencoder's reconstruction stands in the place of z.

With CE the mean cross-entropy of the next token and KL that of the model's own prediction against the changed one:

recovered = (CE_ablated - CE_sae) / (CE_ablated - CE_clean)        kl_recovered = (KL_ablated - KL_sae) / KL_ablated

once with z ablated to zero (as papers report it) and once to its mean (a stricter baseline), and always with the absolute values beside
them: where ablating a layer costs next to nothing, the share says next to nothing. "without first" spares position 0 of each context and leaves
its prediction out. Cost: one pass that reads z, and per call of `measure` two passes; five once for the baselines.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from interp.errors import OptionError
from interp.interventions.readout import Readout
from interp.models.hooked import HookedModel
from interp.saes.core import SAE
from interp.saes.harvest import z_of
from interp.saes.metrics import VIEWS
from interp.saes.splice import ReplaceOutputs, Where

METRICS = (
    "ce_clean", "ce_sae", "ce_zero", "ce_mean", "recovered_zero", "recovered_mean", "kl_sae", "kl_zero", "kl_mean",
    "kl_recovered_zero", "kl_recovered_mean",
)  # fmt: skip
Totals = tuple[float, float]
"""Mean cross-entropy and mean divergence from the clean prediction, in nats per predicted token."""


class LossMeter:
    """Cross-entropy and divergence of a model with z of one layer replaced, on fixed contexts; baselines are measured once.

    Args:
        model: a decoder.
        layer: whose z is replaced.
        contexts: token ids, at least 3 each, of text that the autoencoder was not trained on.

    Raises:
        OptionError: no contexts, or one that is too short.
        UnsupportedModelError: no decoder with an unembedding.
    """

    def __init__(self, model: HookedModel, layer: int, contexts: Sequence[Sequence[int]]) -> None:
        if not contexts or min(map(len, contexts)) < 3:
            raise OptionError(
                "contexts: wanted at least one, of at least 3 tokens each: behind the first there must be one to predict"
            )
        self.model, self.layer = model, layer
        self.contexts = [torch.tensor([list(c)]) for c in contexts]
        self._readout = Readout(model)
        with torch.no_grad():
            self._clean = [self._readout.states(ids) for ids in self.contexts]
        self._baselines: dict[tuple[str, str], Totals] = {}
        self._means = self._mean_z()

    @torch.no_grad()
    def measure(self, sae: SAE) -> pd.DataFrame:
        """Every metric at all positions and without the first: columns positions, metric, value."""
        rows = []
        for view in VIEWS:
            found = self._view(sae, view)
            rows += [(view, name, found[name]) for name in METRICS]
        return pd.DataFrame(rows, columns=["positions", "metric", "value"])

    @torch.no_grad()
    def recovered(self, sae: SAE) -> float:
        """The share of the cross-entropy that comes back, against zero, at all positions."""
        return self._view(sae, "all")["recovered_zero"]

    def _view(self, sae: SAE, view: Where) -> dict[str, float]:
        mean = self._means[view]
        clean, _ = self._baseline("clean", view, None)
        zero, kl_zero = self._baseline(
            "zero", view, ReplaceOutputs(layers=(self.layer,), function=torch.zeros_like, label="zero", positions=view)
        )
        average, kl_mean = self._baseline(
            "mean",
            view,
            ReplaceOutputs(
                layers=(self.layer,), function=lambda z: mean.to(z).expand_as(z), label="mean", positions=view
            ),
        )
        ours, kl = self._totals(view, ReplaceOutputs(layers=(self.layer,), function=sae, label="sae", positions=view))
        return {
            "ce_clean": clean,
            "ce_sae": ours,
            "ce_zero": zero,
            "ce_mean": average,
            "recovered_zero": _share(zero - ours, zero - clean),
            "recovered_mean": _share(average - ours, average - clean),
            "kl_sae": kl,
            "kl_zero": kl_zero,
            "kl_mean": kl_mean,
            "kl_recovered_zero": _share(kl_zero - kl, kl_zero),
            "kl_recovered_mean": _share(kl_mean - kl, kl_mean),
        }

    def _baseline(self, name: str, view: Where, edit: ReplaceOutputs | None) -> Totals:
        if (name, view) not in self._baselines:
            self._baselines[name, view] = self._totals(view, edit)
        return self._baselines[name, view]

    def _totals(self, view: Where, edit: ReplaceOutputs | None) -> Totals:
        """Mean loss and divergence with an edit in force."""
        first = 0 if view == "all" else 1
        loss = divergence = 0.0
        count = 0
        for ids, clean in zip(self.contexts, self._clean, strict=True):
            states = clean if edit is None else self._edited(ids, edit)
            wanted = ids[0, 1 + first :].to(self.model.device)
            rows = states[0, first:-1]
            for part, log_probs in self._readout.log_probs(rows):
                loss -= float(log_probs.gather(-1, wanted[part, None]).double().sum())
                if edit is not None:
                    own = self._readout.logits(clean[0, first:-1][part]).log_softmax(-1)
                    divergence += float((own.exp() * (own - log_probs)).double().sum())
            count += len(wanted)
        return loss / count, divergence / count

    def _edited(self, ids: Tensor, edit: ReplaceOutputs) -> Tensor:
        with self.model.edit(edit):
            return self._readout.states(ids)

    def _mean_z(self) -> dict[str, Tensor]:
        """Mean z over all positions, and over all but the first, [d_in] each."""
        z = [z_of(self.model, ids.tolist(), [self.layer])[self.layer].double() for ids in self.contexts]
        count, firsts = sum(map(len, z)), torch.stack([x[0] for x in z]).sum(0)
        total = torch.stack([x.sum(0) for x in z]).sum(0)
        means = (total / count, (total - firsts) / (count - len(z)))
        return dict(zip(VIEWS, means, strict=True))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
