"""`LogBias`: s_ij <- s_ij + b_h for keys j of a set, at every row; multiplies p_ij by exp(b_h) and renormalises.

`pasta` (PASTA, arXiv 2311.02262): log(alpha) on every prompt key that is not emphasised, alpha = 0.01. As released it also lands on BOS, which
makes it a partial removal of the sink: `spare=(0,)` leaves BOS alone. With several spans none is penalised (the released code lets each span
also receive the other spans' penalty). Generated tokens are not prompt keys and get no bias, so they gain weight.
`zero_tuning` (ZeroTuning, arXiv 2505.11739): log(gamma_h) on key 0: p'_0 = gamma p_0 / D, p'_j = p_j / D, D = (gamma - 1) p_0 + 1; all other
keys shrink by the same factor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from interp.capture.call import AttentionCall
from interp.errors import EditError
from interp.interventions.places import Positions, as_spans, check_positions, listed, members
from interp.interventions.where import Head, HeadEdit, PerHead


@dataclass(frozen=True, kw_only=True, eq=False)
class LogBias(HeadEdit):
    """Add a bias to the logits of keys; multipliers on logits do not apply to it.

    Attributes:
        bias: nats for the chosen heads, or (layer, head) -> nats; -inf hides the keys.
        keys: positions that get it. A span (n, None) takes in tokens still to come.
    """

    bias: PerHead
    keys: Positions

    def __post_init__(self) -> None:
        """Check bias and positions."""
        self.take_heads_of(self.bias)
        super().__post_init__()
        check_positions("LogBias: keys", self.keys)
        biases = self.bias.values() if isinstance(self.bias, Mapping) else (self.bias,)
        if bad := [b for b in biases if math.isnan(b) or b == math.inf]:
            raise EditError(f"LogBias: a bias must be a number or -inf, got {bad}")

    @property
    def detail(self) -> str:
        """Bias and keys."""
        bias = "by head" if isinstance(self.bias, Mapping) else f"{self.bias:+.3g}"
        keys = ", ".join(map(str, self.keys[:4])) + (", ..." if len(self.keys) > 4 else "")
        return f"{bias} on keys {keys}"

    def before(self, call: AttentionCall) -> AttentionCall:
        """Add in the kernel."""
        named = members(self.keys, call.key_positions())
        if not bool(named.any()):
            return call
        bias = self.per_head(self.bias, call, 0.0)[None, :, None].expand(named.shape[0], -1, call.keys)
        return call.with_edit(key_bias=bias.masked_fill(~named[:, None], 0.0))


def pasta(
    emphasised: Positions,
    *,
    prompt: int,
    alpha: float = 0.01,
    spare: Positions = (),
    heads: tuple[Head, ...] | None = None,
) -> LogBias:
    """PASTA's steering: weights of prompt keys outside `emphasised` and `spare` times alpha before normalisation.

    Args:
        emphasised: positions to attend to.
        prompt: tokens of the prompt; keys behind it get no bias.
        alpha: factor, above 0.
        spare: positions that are not emphasised and yet not penalised, such as (0,) for BOS.
        heads: (layer, head) pairs, None for all.
    """
    if not alpha > 0:
        raise EditError(f"pasta: alpha must be above 0, got {alpha}; to hide keys use KnockOut")
    kept = set(listed("pasta: emphasised", emphasised)) | set(listed("pasta: spare", spare))
    penalised = as_spans(place for place in range(prompt) if place not in kept)
    if not penalised:
        raise EditError(f"pasta: all {prompt} prompt tokens are emphasised or spared, so nothing is penalised")
    return LogBias(bias=math.log(alpha), keys=penalised, heads=heads)


def zero_tuning(gamma: PerHead, *, key: int = 0) -> LogBias:
    """ZeroTuning's factor gamma > 0 on the first token's weight, for all heads or (layer, head) -> gamma."""
    gammas = list(gamma.values()) if isinstance(gamma, Mapping) else [gamma]
    if bad := [g for g in gammas if not g > 0]:
        raise EditError(f"zero_tuning: gamma must be above 0, got {bad}")
    bias = {head: math.log(g) for head, g in gamma.items()} if isinstance(gamma, Mapping) else math.log(gamma)
    return LogBias(bias=bias, keys=(key,))
