"""`Temperature`: s_ij <- tau_h f(n_i) s_ij, a multiplier on logits (an inverse temperature) by head and by row.

n_i is the number of the text's tokens up to row i, its own included (row 0 has 1); for a model without a causal mask the text's length.
T is `reference`, a number of tokens. The row rules f of the length-invariance family:

    constant     1
    logn         log n                                 SSMax with tau_h = s_h (Nakanishi 2025, arXiv 2501.19399)
    logn-ratio   log n / log T                         the generic entropy-invariance control; T the training length
    entropy-abf  max(1, log n / log T)                 Entropy-ABF (arXiv 2401.07004): T = 4096 for Llama-2, meant for layers from 2 on
    size         sqrt(log n / log T)                   Jin et al. 2023 (arXiv 2306.08645), T tokens at training; here by row, not by image
    ssa          1 + exp(-exp(beta)) log n             position part of Selective Self-Attention, as its released code has it;
                                                       `reference` is beta (1.5 and 2.0 in the code)
A row of one token has one key, so its multiplier does not matter. A learned sink logit is not scaled. Costs nothing: O(N) numbers per head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import torch
from torch import Tensor

from interp.capture.call import AttentionCall
from interp.errors import EditError
from interp.interventions.where import HeadEdit, PerHead

Rule = Literal["constant", "logn", "logn-ratio", "entropy-abf", "size", "ssa"]
ROW_RULES: Final[Mapping[Rule, Callable[[Tensor, float], Tensor]]] = MappingProxyType(
    {
        "constant": lambda n, _: torch.ones_like(n),
        "logn": lambda n, _: n.log(),
        "logn-ratio": lambda n, reference: n.log() / math.log(reference),
        "entropy-abf": lambda n, reference: (n.log() / math.log(reference)).clamp(min=1.0),
        "size": lambda n, reference: (n.log() / math.log(reference)).sqrt(),
        "ssa": lambda n, reference: 1.0 + math.exp(-math.exp(reference)) * n.log(),
    }
)
"""Rule -> f(n, reference)."""
NEEDS_REFERENCE: Final = frozenset({"logn-ratio", "entropy-abf", "size", "ssa"})


@dataclass(frozen=True, kw_only=True, eq=False)
class Temperature(HeadEdit):
    """Sharpen (multiplier above 1) or flatten heads.

    Attributes:
        tau: factor for the chosen heads, or (layer, head) -> factor; 0 is uniform attention.
        rule: how the multiplier depends on the row.
        reference: T or beta of the rule; None for rules without.
    """

    tau: PerHead = 1.0
    rule: Rule = "constant"
    reference: float | None = None

    def __post_init__(self) -> None:
        """Check tau, rule and reference."""
        self.take_heads_of(self.tau)
        super().__post_init__()
        if self.rule not in ROW_RULES:
            raise EditError(f"Temperature: rule {self.rule!r} is unknown; valid are {', '.join(ROW_RULES)}")
        needs = self.rule in NEEDS_REFERENCE
        if needs != (self.reference is not None):
            raise EditError(f"Temperature: rule {self.rule!r} {'needs' if needs else 'takes no'} reference=")
        if self.reference is not None and self.rule != "ssa" and not self.reference > 1:
            raise EditError(f"Temperature: reference is a number of tokens above 1, got {self.reference}")
        taus = self.tau.values() if isinstance(self.tau, Mapping) else (self.tau,)
        if bad := [tau for tau in taus if not (math.isfinite(tau) and tau >= 0)]:
            raise EditError(f"Temperature: tau must be finite and at least 0, got {bad}")

    @property
    def detail(self) -> str:
        """Factor and rule."""
        tau = "by head" if isinstance(self.tau, Mapping) else f"{self.tau:g}"
        return f"{tau}" if self.rule == "constant" else f"{tau} x {self.rule}"

    def before(self, call: AttentionCall) -> AttentionCall:
        """Multiply in the kernel."""
        tau = self.per_head(self.tau, call, 1.0)[None, :, None]
        if self.rule == "constant":
            return call.with_edit(logit_scale=tau)
        reference = 0.0 if self.reference is None else float(self.reference)
        f = ROW_RULES[self.rule](tokens_so_far(call), reference)[:, None]
        return call.with_edit(logit_scale=torch.where(self.chosen(call)[None, :, None], tau * f, 1.0))


def tokens_so_far(call: AttentionCall) -> Tensor:
    """n of every row: float [B or 1, Nq]; 1 at left padding."""
    if call.mask.is_causal:
        n = call.row_positions() + 1
    else:
        n = (call.key_positions() >= 0).sum(-1, keepdim=True)
        n = n if call.mask.right is None else n - call.mask.right[:, None].to(n.device)
    return n.clamp(min=1).to(call.work_dtype).expand(-1, call.queries)
