"""Attention patterns of another origin: patched from another run, frozen in the backward pass, replaced by simple ones.

`PatchPattern`   o = softmax(q_A k_A^T) v_B: queries and keys of run A, values of the run at hand, in one call of the kernel; separates what a
                 head looks at from what it moves. Stores 2 N d numbers a head, not N x N.
`FreezePattern`  outputs unchanged; the backward pass treats the pattern as a constant (q and k are detached), for attribution with frozen
                 attention.
`ReplacePattern` z_i = mean of visible values ("uniform"), v_i ("identity"), v_{i-1} ("previous"; row 0 keeps v_0), v_0 ("first"), or
                 sum_j p_ij v_pi(j) with the values of a key set permuted among themselves ("permuted": Jain & Wallace 2019, arXiv 1902.10186;
                 one permutation a text, on rows behind the set, so that no row learns of a later token).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from interp.capture.call import AttentionCall
from interp.capture.inputs import TextOrIds
from interp.errors import EditError
from interp.interventions.places import Positions, check_positions, listed
from interp.interventions.where import HeadEdit
from interp.models.hooked import HookedModel

Replacement = Literal["uniform", "identity", "previous", "first", "permuted"]
Pattern = tuple[Tensor, Tensor]
"""q [B or 1, H, N, D] and k [B or 1, Hkv, N, D] of a run, post-rotary."""


def queries_and_keys(
    model: HookedModel, inputs: TextOrIds, *, layers: Sequence[int] | None = None
) -> dict[int, Pattern]:
    """Queries and keys of a run by layer, for `PatchPattern`. O(N) memory; interventions in force are part of the run."""
    found: dict[int, Pattern] = {}
    with torch.no_grad():
        model.probe(inputs, lambda call, _: found.update({call.site.layer: (call.q, call.k)}), layers=layers)
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchPattern(HeadEdit):
    """Attend with another run's queries and keys. For prompts of the same number of tokens; refuses to decode.

    Attributes:
        source: layer -> (q, k) of the other run (see `queries_and_keys`).
    """

    source: Mapping[int, Pattern]

    def __post_init__(self) -> None:
        """Check that there is a source for every layer."""
        if not self.source:
            raise EditError(
                "PatchPattern: source is empty; make it with interp.interventions.queries_and_keys(model, text)"
            )
        self.take_layers_of({layer: q for layer, (q, _) in self.source.items()})
        super().__post_init__()

    def before(self, call: AttentionCall) -> AttentionCall:
        """Put the other q and k in place; a key head of which query heads differ is split up."""
        self.need_prefill(call, "it has the pattern of another prompt")
        q, k = (x.to(call.q) for x in self.source[call.site.layer])
        if q.shape[1:] != call.q.shape[1:] or k.shape[1:] != call.k.shape[1:] or q.shape[0] not in (1, len(call.q)):
            raise EditError(
                f"PatchPattern: layer {call.site.layer} has q {tuple(call.q.shape)} and k {tuple(call.k.shape)}, the source {tuple(q.shape)} "
                f"and {tuple(k.shape)}; both runs need the same number of tokens and heads"
            )
        chosen = self.chosen(call)
        q = torch.where(chosen[None, :, None, None], q, call.q)
        if bool(chosen.all()):
            return replace(call, q=q, k=k.expand_as(call.k))
        k = k.repeat_interleave(call.group, 1)
        call = call.ungrouped()
        return replace(call, q=q, k=torch.where(chosen[None, :, None, None], k, call.k))


@dataclass(frozen=True, kw_only=True, eq=False)
class FreezePattern(HeadEdit):
    """Hold attention patterns constant in the backward pass; the forward pass is the model's own."""

    def before(self, call: AttentionCall) -> AttentionCall:
        """Detach q and k."""
        chosen = self.chosen(call)
        if bool(chosen.all()):
            return replace(call, q=call.q.detach(), k=call.k.detach())
        call, where = call.ungrouped(), chosen[None, :, None, None]
        return replace(
            call, q=torch.where(where, call.q.detach(), call.q), k=torch.where(where, call.k.detach(), call.k)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ReplacePattern(HeadEdit):
    """Replace patterns by simple ones. Statistics and maps describe the model's own pattern, but for "uniform".

    Attributes:
        by: "uniform", "identity", "previous", "first" or "permuted". A gate in the kernel applies to all; a learned sink keeps its logit
            under "uniform" (mass exp(sink) beside 1 for each key) and its mass under "permuted", and gets none under the others.
        keys: for "permuted": positions whose values change places, at least two, no open span.
        seed: of the permutation.
    """

    by: Replacement
    keys: Positions | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check that keys go with permuted."""
        super().__post_init__()
        if self.by not in ("uniform", "identity", "previous", "first", "permuted"):
            raise EditError(
                f"ReplacePattern: by {self.by!r} is unknown; valid are uniform, identity, previous, first, permuted"
            )
        if (self.by == "permuted") != (self.keys is not None):
            raise EditError(f"ReplacePattern: by {self.by!r} {'needs' if self.keys is None else 'takes no'} keys=")
        if self.keys is not None:
            check_positions("ReplacePattern: keys", self.keys)
            if len(listed("ReplacePattern: keys", self.keys)) < 2:
                raise EditError("ReplacePattern: one key has nothing to change places with; name at least two")

    @property
    def detail(self) -> str:
        """The pattern."""
        return self.by

    def before(self, call: AttentionCall) -> AttentionCall:
        """Uniform attention is made in the kernel: logits times zero."""
        if self.by != "uniform":
            return call
        return call.with_edit(logit_scale=torch.where(self.chosen(call), 0.0, 1.0).to(call.work_dtype)[None, :, None])

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """The others are closed forms of v, or a second call with permuted values."""
        if self.by == "uniform":
            return out
        chosen = self.chosen(call)[None, :, None]
        if self.by == "permuted":
            return self._permuted(call, out, chosen)
        z = self._picked(call).repeat_interleave(call.group, 1)
        gate = None if call.edit is None else call.edit.gate
        z = z if gate is None else (z * gate[..., None]).to(out.dtype)
        return torch.where(chosen[..., None], z, out)

    def _picked(self, call: AttentionCall) -> Tensor:
        """The one value that each row reads, [B, Hkv, Nq, Dv]."""
        place = call.row_positions().clamp(min=0)
        if self.by == "first":
            place = torch.zeros_like(place)
        elif self.by == "previous":
            place = (place - 1).clamp(min=0)
        index = place - call.key_positions()[:, :1]  # of the key, in this call
        if bool((index < 0).any()):
            raise EditError(f"{self.name}: layer {call.site.layer} has dropped the key that it wants from its cache")
        index = index[:, None, :, None].expand(*call.v.shape[:2], call.queries, call.v.shape[3])
        return call.v.gather(2, index)

    def _permuted(self, call: AttentionCall, out: Tensor, chosen: Tensor) -> Tensor:
        places = listed("ReplacePattern: keys", self.keys or ())
        behind = call.row_positions() > places[-1]
        if not bool(behind.any()):
            return out
        at = call.key_positions()
        if call.first_key:
            raise EditError(
                f"{self.name}: layer {call.site.layer} has dropped keys from its cache; leave layers with a window out"
            )
        order = torch.randperm(len(places), generator=torch.Generator().manual_seed(self.seed))
        moved = torch.tensor(places, device=at.device)
        source = torch.arange(call.keys, device=at.device).repeat(len(at), 1)
        for row, start in zip(source, at[:, 0].tolist(), strict=True):
            row[moved - start] = moved[order.to(at.device)] - start
        index = source[:, None, :, None].expand(*call.v.shape[:2], -1, call.v.shape[3])
        other = replace(call, v=call.v.gather(2, index)).attend(None).out
        return torch.where((chosen & behind[:, None])[..., None], other, out)
