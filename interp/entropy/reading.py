"""`Reading`: one measured step of a training, as the monitor keeps it, the writers write it and the pictures draw it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from interp.entropy.detector import Alarm, Rules, collapsed
from interp.entropy.health import LayerHealth


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """One measured step.

    Attributes:
        step: training step.
        layers: every layer's heads, in the order of the calls.
        alarms: raised at this step.
        loss: of this step, None where nobody said.
    """

    step: int
    layers: tuple[LayerHealth, ...]
    alarms: tuple[Alarm, ...]
    loss: float | None

    def table(self) -> pd.DataFrame:
        """One row per head: step, loss, path, layer, head, and the quantities of `LayerHealth`."""
        parts = [pd.DataFrame(layer.columns()) for layer in self.layers]
        table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
        table.insert(0, "step", self.step)
        table.insert(1, "loss", float("nan") if self.loss is None else self.loss)
        return table

    def summary(self, rules: Rules) -> dict[str, float]:
        """Name -> number, for dashboards: each layer's mean entropy, and of all heads what the detector reads."""
        found = {f"entropy/layer_{x.layer}": float(x.entropy.mean()) for x in self.layers}
        heads = sum(len(x.entropy) for x in self.layers)
        found["entropy/collapsed_share"] = sum(int(collapsed(x, rules).sum()) for x in self.layers) / max(heads, 1)
        found["entropy/sink_mass"] = sum(float(x.sink_mass.sum()) for x in self.layers) / max(heads, 1)
        for name in ("rho_q99", "max_logit", "qk_norm"):
            found[f"entropy/{name}"] = max((float(getattr(x, name).max()) for x in self.layers), default=float("nan"))
        found["entropy/alarms"] = float(len(self.alarms))
        return found
