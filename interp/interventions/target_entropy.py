"""`TargetEntropy`: the multiplier tau on logits at which a head's entropy is what was asked for, solved by Newton's method.

With p = softmax(tau s): H(tau) falls from log n at tau = 0, dH/dtau = -tau Var_p(s) (methods notes, section 6). A sweep of the kernel gives
H and lse, hence the mean logit m = (lse - H) / tau, and Var_p(s) = dm/dtau; so Newton takes dm/dtau from the last two sweeps, which costs a sweep
a step and no derivative. Steps are in log tau, kept inside the bracket that monotony gives, and halve the bracket where they leave it.
Entropies count a learned sink's outcome, which is not scaled; targets below what it leaves are not reached.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from interp.capture.call import AttentionCall, Collect
from interp.errors import EditError
from interp.interventions.temperature import tokens_so_far
from interp.interventions.where import HeadEdit, PerHead

Unit = Literal["fraction", "nats"]
Per = Literal["row", "head"]
WIDEST = math.log(1e4)
"""log tau stays within this of 0; what needs more (a target of 0 nats) ends at the bound."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetEntropy(HeadEdit):
    """Set the entropy of heads.

    Attributes:
        target: entropy wanted of the chosen heads, or (layer, head) -> entropy.
        unit: "fraction" of log n_i (see `temperature`), in (0, 1), or "nats".
        per: "row" solves every row by itself, in decode as well; "head" finds one tau for a head at which its mean over the prompt's rows with at
            least 2 keys is the target, and decodes with that tau.
        steps: most sweeps over q and k to solve with.
        tolerance: nats from the target at which to stop.
    """

    target: PerHead
    unit: Unit = "fraction"
    per: Per = "row"
    steps: int = 20
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        """Check target, unit and steps."""
        self.take_heads_of(self.target)
        super().__post_init__()
        targets = [self.target] if isinstance(self.target, float | int) else list(self.target.values())
        top = 1.0 if self.unit == "fraction" else math.inf
        if self.unit not in ("fraction", "nats") or self.per not in ("row", "head"):
            raise EditError(
                f"TargetEntropy: unit is fraction or nats, per is row or head; got {self.unit!r}, {self.per!r}"
            )
        if bad := [x for x in targets if not 0 < x < top]:
            raise EditError(f"TargetEntropy: wanted targets in (0, {top:g}) for unit {self.unit!r}, got {bad}")
        if self.steps < 3:
            raise EditError(f"TargetEntropy: steps must be at least 3, got {self.steps}")

    @property
    def detail(self) -> str:
        """The target."""
        return f"{'by head' if not isinstance(self.target, float | int) else f'{self.target:g}'} {self.unit} per {self.per}"

    def before(self, call: AttentionCall) -> AttentionCall:
        """Solve, then multiply in the kernel."""
        if self.per == "head" and call.phase == "decode":
            if "tau" not in call.memory:
                self.need_prefill(call, "it solves for tau on a prompt, which it has not seen inside this context")
            return call.with_edit(logit_scale=call.memory["tau"])
        targets = self.per_head(self.target, call, 0.5).tolist()
        rows = 1 if self.per == "head" else call.queries
        tau = torch.ones(len(call.q), call.heads, rows, dtype=call.work_dtype, device=call.q.device)
        with torch.no_grad():
            for h in self.chosen_numbers(call):
                tau[:, h : h + 1] = self._solve(call.head(h), targets[h])
        call.memory["tau"] = tau
        return call.with_edit(logit_scale=tau)

    def _solve(self, call: AttentionCall, target: float) -> Tensor:
        """tau of one head's call: [B, 1, Nq] or, per head, [B, 1, 1]; 1 where no tau changes anything."""
        n = tokens_so_far(call)[:, None]
        rows = (call.real_rows()[:, None] & (n >= 2)).expand(len(call.q), 1, -1)

        def reduce(x: Tensor) -> Tensor:
            return (
                x if self.per == "row" else (x * rows).sum(-1, keepdim=True) / rows.sum(-1, keepdim=True).clamp(min=1)
            )

        want = reduce((target * (n.log() if self.unit == "fraction" else torch.ones_like(n))).expand(rows.shape))
        solvable = rows if self.per == "row" else rows.any(-1, keepdim=True)

        def sweep(u: Tensor) -> tuple[Tensor, Tensor]:
            found = call.with_edit(logit_scale=u.exp()).attend(Collect(entropy=True))
            entropy = found.stats["entropy"].to(u)
            return reduce(entropy), reduce((found.lse.to(u) - entropy).nan_to_num(neginf=0.0)) / u.exp()

        u = torch.zeros_like(want)
        low, high = torch.full_like(u, -WIDEST), torch.full_like(u, WIDEST)
        entropy, mean = sweep(u)
        best_u, best_gap = u, (entropy - want).abs()
        step = torch.where(entropy > want, 0.5, -0.5)
        for _ in range(self.steps - 1):
            # Entropy falls with tau: too much of it means that the solution lies above.
            low, high = torch.where(entropy > want, u, low), torch.where(entropy > want, high, u)
            if not bool(((best_gap > self.tolerance) & solvable).any()):
                break
            proposed = u + step
            outside = ~((proposed > low) & (proposed < high))  # NaN included
            new = torch.where(outside, (low + high) / 2, proposed)
            new_entropy, new_mean = sweep(new)
            variance = (new_mean - mean) / (new.exp() - u.exp())
            u, entropy, mean = new, new_entropy, new_mean
            gap = (entropy - want).abs()
            best_u, best_gap = torch.where(gap < best_gap, u, best_u), torch.minimum(gap, best_gap)
            step = (entropy - want) / ((2 * u).exp() * variance)  # -dH / dlog tau = tau^2 Var
        return torch.where(solvable, best_u.exp(), 1.0)
