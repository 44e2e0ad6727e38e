"""`ACT`: attention calibration by Yu et al. 2024 (arXiv 2406.15765): take weight off hidden sinks, give it back in proportion.

Detection, for each chosen head and text, on the prompt: a_j = sum_i p_ij / (number of rows that see j). A key is a sink if a_j > alpha / N
(the paper's form, N tokens, alpha = 5) or a_j > a fixed threshold (the released code: 0.1 in classification and multiple choice, 0.15 in
MT-Bench). One sink is left alone: the first one found (as released: key 0 only if it passes), key 0, or none.
Calibration, for the set S with mass M_i: p'_ij = beta p_ij in S; the freed mass (1 - beta) M_i goes to all other keys in proportion:

    p'_ij = p_ij (1 + (1 - beta) M_i / R_i),  R_i = 1 - M_i,  which is p_ij (1 - beta M_i) / (1 - M_i)

`receivers="others"` gives key 0 no share, R_i = 1 - M_i - p_i0: as released, up to half of the freed mass flows back to BOS. R_i is measured
as the mass outside, not as a difference, so nothing cancels where M_i is near 1; a row with nothing outside (row 0) stays as it is.
In decode the set of the prompt is frozen. Published layers: 2 to 30 of Llama-2-7B, 2 to 31 of Mistral-7B; heads by search on training data.
The released Llama code runs unpatched (issue 5 there); head sets published with it cannot be checked against its effect.
Cost per calibrated head: at prefill three sweeps more (lse, columns, masses), in decode one row more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from interp.capture.call import AttentionCall, Collect
from interp.errors import EditError
from interp.interventions.where import HeadEdit
from interp_kernels import columns, visible_rows

Detection = Literal["paper", "code"]
Spared = Literal["first-found", "first-key", "none"]
Receivers = Literal["all", "others"]
ALPHA = 5.0
"""Multiple of the uniform share 1 / N from which the paper calls a key a sink."""
CODE_THRESHOLD = 0.1
"""Fixed threshold of the released code for classification and multiple choice."""
BETA = 0.4
"""Share of its weight that a sink keeps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ACT(HeadEdit):
    """Calibrate heads as ACT does.

    Attributes:
        beta: share of its weight that a sink keeps, in [0, 1]; 1 changes nothing.
        detection: "paper" (alpha / N) or "code" (fixed).
        threshold: alpha or the fixed threshold; None takes 5 or 0.1.
        spared: which sink is left alone: "first-found", "first-key" or "none".
        receivers: "all" other keys get the freed mass, or "others": all but key 0.
    """

    beta: float = BETA
    detection: Detection = "paper"
    threshold: float | None = None
    spared: Spared = "first-found"
    receivers: Receivers = "all"

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if not 0 <= self.beta <= 1:
            raise EditError(f"ACT: beta must be in [0, 1], got {self.beta}")
        if self.threshold is not None and not self.threshold > 0:
            raise EditError(f"ACT: threshold must be above 0, got {self.threshold}")
        for name, value, valid in (
            ("detection", self.detection, ("paper", "code")),
            ("spared", self.spared, ("first-found", "first-key", "none")),
            ("receivers", self.receivers, ("all", "others")),
        ):
            if value not in valid:
                raise EditError(f"ACT: {name} {value!r} is unknown; valid are {', '.join(valid)}")

    @property
    def detail(self) -> str:
        """Beta and detection."""
        return f"beta {self.beta:g}, {self.detection} detection"

    def before(self, call: AttentionCall) -> AttentionCall:
        """Factors on the set, on key 0 if it is to get nothing, and on the rest."""
        heads = self.chosen_numbers(call)
        with torch.no_grad():
            if call.phase == "prefill":
                call.memory["sinks"] = self.detect(call)
            elif "sinks" not in call.memory:
                self.need_prefill(call, "it finds its sinks on a prompt, which it has not seen inside this context")
            sinks = _now(call.memory["sinks"], call)
            if not bool(sinks.any()):
                return replace(call)
            first = (call.key_positions() == 0)[:, None] & (self.receivers == "others")
            sets = torch.stack(torch.broadcast_tensors(sinks, first & ~sinks), 2)
            factors = torch.ones(len(call.q), call.heads, call.queries, 3, dtype=call.work_dtype, device=call.q.device)
            for h in heads:
                if bool(sinks[:, h].any()):
                    mass, rest = _masses(call.head(h), sets[:, h])
                    share = torch.where(rest > 0, mass / rest.where(rest > 0, 1.0), 0.0)
                    factors[:, h, :, 0] = torch.where(rest > 0, self.beta, 1.0)
                    factors[:, h, :, 2] = 1 + (1 - self.beta) * share
        return call.with_factors(sets, factors)

    def detect(self, call: AttentionCall) -> Tensor:
        """The sinks of each chosen head, bool [B, H, Nk]; of other heads none."""
        found = torch.zeros(len(call.q), call.heads, call.keys, dtype=torch.bool, device=call.q.device)
        real = call.real_rows().expand(len(call.q), -1)
        tokens = real.sum(-1)[:, None]
        threshold = self.threshold or (ALPHA if self.detection == "paper" else CODE_THRESHOLD)
        bar = threshold / tokens if self.detection == "paper" else torch.full_like(tokens, threshold, dtype=torch.float)
        for h in self.chosen_numbers(call):
            found[:, h] = _received(call.head(h), real) > bar
        if self.spared == "first-found":
            found &= found.long().cumsum(-1) > 1
        elif self.spared == "first-key":
            found &= (call.key_positions() != 0)[:, None]
        return found


def _received(one: AttentionCall, real: Tensor) -> Tensor:
    """a_j of one head: mean weight over the real rows that see key j, [B, Nk]; 0 where none does."""
    lse = one.attend(None).lse
    rows = real[:, None]
    total = columns(
        one.q,
        one.k,
        lse,
        mask=one.mask,
        rows=rows,
        scale=one.scale,
        softcap=one.softcap,
        edit=one.edit,
        backend=one.backend,
    )
    seen = visible_rows(one.mask.to(one.q.device), rows, len(one.q), 1, one.queries, one.keys, one.q.device)
    return total.stats["received"][:, 0, 0] / seen[:, 0, 0].clamp(min=1)


def _masses(one: AttentionCall, sets: Tensor) -> tuple[Tensor, Tensor]:
    """Mass of the first set and mass outside both, of one head: [B, Nq] each; sets bool [B, 2, Nk]."""
    stats = one.attend(Collect(key_sets=sets[:, :1], rest=sets.any(1))).stats
    return stats["key_sets"][:, 0, :, 0], stats["rest_mass"][:, 0]


def _now(sinks: Tensor, call: AttentionCall) -> Tensor:
    """The prompt's sinks on the key axis of this call, bool [B, H, Nk]: new keys are none, keys that a cache has dropped are gone."""
    now = torch.zeros(*sinks.shape[:2], call.keys, dtype=torch.bool, device=sinks.device)
    kept = sinks[..., call.first_key : call.first_key + call.keys]
    now[..., : kept.shape[-1]] = kept
    return now
