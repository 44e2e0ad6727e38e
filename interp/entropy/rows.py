"""`EntropyRows`: what the entropy analyses read of one attention call: O(N) numbers per head, from one sweep of the kernel.

Chain rule. With the first key f, a learned sink (where there is one) and the other keys as the rest, M_rest = sum over the rest of p, and H_rest
the entropy of the rest renormalised,

    H = H(p_f, p_sink, M_rest) + M_rest H_rest

The first part is the choice between sink and content, the second what is spread over content: a head that rests on its sink and a head that
looks at one word both have a low H, and the parts tell them apart.

`entropy` has its gradient (dH_i/ds_ij = -p_ij (log p_ij + H_i), taken inside the fused backward: no map is stored); the others have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.capture.attend import listening
from interp.capture.call import Attended, AttentionCall, BackendChoice, Collect, Mask
from interp.capture.probe import Probe
from interp.capture.sites import Site, attention_sites
from interp.entropy.bound import entropy_bound, norm_of_moments
from interp.models.hooked import HookedModel


@dataclass(frozen=True, kw_only=True, eq=False)
class EntropyRows:
    """Entropy of every row of one attention call, and what bounds it.

    A learned sink logit counts as one more outcome everywhere (in the entropy, in n_i, in rho_i), as the kernel's entropy counts it.

    Attributes:
        entropy: H_i, nats; differentiable.
        visible: keys that the row sees, the learned sink not counted.
        outcomes: n_i, the learned sink counted.
        logit_norm: rho_i, norm of the outcomes' logits about their mean.
        max_logit: largest visible logit, -inf in an empty row.
        lse: log-sum-exp of the outcomes' logits.
        rest_mass: M_rest, mass on keys that are neither the first nor a learned sink.
        rest_entropy: H_rest, nats; 0 where M_rest is 0.
        rest_visible: keys in the rest.
        real: rows that are tokens of a text, not padding.
    """

    entropy: Float[Tensor, "batch head query"]
    visible: Int[Tensor, "#batch #head query"]
    outcomes: Int[Tensor, "#batch #head query"]
    logit_norm: Float[Tensor, "batch head query"]
    max_logit: Float[Tensor, "batch head query"]
    lse: Float[Tensor, "batch head query"]
    rest_mass: Float[Tensor, "batch head query"]
    rest_entropy: Float[Tensor, "batch head query"]
    rest_visible: Int[Tensor, "#batch #head query"]
    real: Bool[Tensor, "#batch 1 query"]

    @staticmethod
    def wish(call: AttentionCall) -> Collect:
        """What the kernel has to measure."""
        return Collect(entropy=True, row_max=True, logit_moments=True, rest=_first_key(call))

    @staticmethod
    def of(call: AttentionCall, attended: Attended) -> EntropyRows:
        """Read a finished call that was measured as `wish` says."""
        stats, visible = attended.stats, call.visible_count()
        outcomes, moments = visible, stats["logit_moments"]
        if call.sink_logits is not None:
            low = stats["row_max"]
            gap = call.sink_logits.detach().to(low)[None, :, None] - torch.where(low.isneginf(), 0.0, low)
            outcomes, moments = visible + 1, moments + torch.stack([gap, gap.square()], -1)
        return EntropyRows(
            entropy=stats["entropy"],
            visible=visible,
            outcomes=outcomes,
            logit_norm=norm_of_moments(moments, outcomes),
            max_logit=stats["row_max"],
            lse=attended.lse.detach(),
            rest_mass=stats["rest_mass"],
            rest_entropy=stats["rest_entropy"],
            rest_visible=visible - call.sees_first().long(),
            real=call.real_rows()[:, None],
        )

    # ------------------------------------------------------------------ derived, by row
    @property
    def defined(self) -> Bool[Tensor, "batch head query"]:
        """Rows whose normalised entropy is defined: real, and with at least two visible keys."""
        return (self.real & (self.visible >= 2)).expand(self.entropy.shape)

    @property
    def normalised(self) -> Float[Tensor, "batch head query"]:
        """H_i / log n_i, NaN where undefined."""
        return torch.where(self.defined, self.entropy / _log(self.outcomes, self.entropy), torch.nan)

    @property
    def rest_normalised(self) -> Float[Tensor, "batch head query"]:
        """H_rest / log(keys in the rest), NaN where that is fewer than two keys or nothing is left on them."""
        kept = self.real & (self.rest_visible >= 2) & (self.rest_mass > 0)
        return torch.where(kept, self.rest_entropy / _log(self.rest_visible, self.rest_entropy), torch.nan)

    @property
    def rest_part(self) -> Float[Tensor, "batch head query"]:
        """M_rest H_rest, the entropy's part that is spread over content; NaN at padding."""
        return torch.where(self.real, self.rest_mass * self.rest_entropy, torch.nan)

    @property
    def bound(self) -> Float[Tensor, "batch head query"]:
        """The least entropy that the row's logit norm allows (`interp.entropy.bound`), NaN at padding."""
        return torch.where(self.real, entropy_bound(self.logit_norm, self.outcomes), torch.nan)


def measure(
    q: Float[Tensor, "batch head query size"],
    k: Float[Tensor, "batch kvhead key size"],
    *,
    mask: Mask | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sink_logits: Float[Tensor, " head"] | None = None,
    backend: BackendChoice = "auto",
) -> EntropyRows:
    """Entropy rows of queries and keys that are at hand, from whatever attention they come.

    Args:
        q: queries as the softmax gets them: after rotary, after any norm.
        k: keys, one head for each group of query heads.
        mask: visibility, causal by default; `Mask.full()` for encoders.
        scale, softcap, sink_logits, backend: as in `interp_kernels.attention`.
    """
    call = AttentionCall(
        site=Site("self", -1),
        phase="prefill",
        q=q,
        k=k,
        v=k,
        mask=Mask.causal() if mask is None else mask,
        scale=scale,
        softcap=softcap,
        sink_logits=sink_logits,
        backend=backend,
    )
    return EntropyRows.of(call, call.attend(EntropyRows.wish(call)))


@contextmanager
def collecting(model: HookedModel, *, layers: Sequence[int] | None = None) -> Iterator[dict[int, EntropyRows]]:
    """The entropy rows of every self-attention of whatever forward runs inside, by layer; the latest forward's.

    The loss and its penalty come from one pass:

        with collecting(model) as rows:
            loss = model.hf(ids, labels=ids).loss
        (loss + 1e-2 * sum(entropy_penalty(r) for r in rows.values())).backward()
    """
    found: dict[int, EntropyRows] = {}

    def take(call: AttentionCall, attended: Attended) -> None:
        found[call.site.layer] = EntropyRows.of(call, attended)

    probe = Probe(
        sites=attention_sites(model.hf, encoder_decoder=model.is_encoder_decoder),
        layers=None if layers is None else frozenset(layers),
        backend=model.backend,
        collect=EntropyRows.wish,
        take=take,
    )
    with listening(probe):
        yield found


def _first_key(call: AttentionCall) -> Tensor:
    return call.key_positions() == 0


def _log(n: Tensor, like: Tensor) -> Tensor:
    return n.clamp(min=2).to(like.dtype).log()
