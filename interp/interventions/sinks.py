"""Attention sinks, taken out and put in. "Sink" here: keys that hold mass without being read (measured), or a sink logit (built in).

Removing a set S of keys, o_i = sum_j p_ij v_j, M_i and oS_i the mass and output of S; four ways that are not the same thing:

    mask     s_ij = -inf, renormalised: o' = (o - oS) / (1 - M)      what makes StreamingLLM's window attention collapse
    drop     p_ij = 0, mass lost: o' = o - oS
    zero     v_j = 0, p kept: o' = o - oS                            the same outputs as "drop"; attention weights stay whole
    delete   the tokens leave the input and later positions shift: `delete_tokens`, a run of its own, no edit of a run
Putting one in (`InjectSink`): a logit that enters the denominator alone (SoftMax_1 = exp x / (1 + sum exp x) is logit 0; Xiao et al. 2024,
section 3.3; gpt-oss learns it), or a key k* of each head with a value v* (Gu et al. 2025: a K bias takes the sink over).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from interp.capture.call import AttentionCall
from interp.errors import EditError
from interp.interventions.places import Positions, check_positions, listed, members
from interp.interventions.where import HeadEdit, PerHead

Removal = Literal["mask", "drop", "zero"]
NO_SINK = -1e30
"""A sink logit that takes no mass; finite, so that a row that sees nothing stays free of NaN."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RemoveSinks(HeadEdit):
    """Remove keys in one of three ways that leave the input as it is.

    Attributes:
        keys: positions of the sinks.
        how: "mask", "drop" or "zero" (see the module). Under "mask" a row that sees nothing but sinks gives out 0.
    """

    keys: Positions = (0,)
    how: Removal = "mask"

    def __post_init__(self) -> None:
        """Check the positions and the way."""
        super().__post_init__()
        check_positions("RemoveSinks: keys", self.keys)
        if self.how not in ("mask", "drop", "zero"):
            raise EditError(
                f"RemoveSinks: how {self.how!r} is unknown; valid are mask, drop, zero; to delete tokens from the input use delete_tokens"
            )

    @property
    def detail(self) -> str:
        """Way and keys."""
        return f"{self.how} {', '.join(map(str, self.keys))}"

    def before(self, call: AttentionCall) -> AttentionCall:
        """A bias of -inf, a factor of 0, or values of 0."""
        sinks = members(self.keys, call.key_positions())
        if not bool(sinks.any()):
            return call
        heads = self.chosen(call)
        here = sinks[:, None] & heads[None, :, None]
        if self.how == "mask":
            return call.with_edit(key_bias=torch.where(here, -torch.inf, 0.0).to(call.work_dtype))
        if self.how == "drop":
            kept = torch.where(heads, 0.0, 1.0).to(call.work_dtype)[None, :, None]
            return call.with_factors(sinks[:, None, None], torch.stack([kept, torch.ones_like(kept)], -1))
        if bool(heads.all()):
            return replace(call, v=call.v.masked_fill(sinks[:, None, :, None], 0.0))
        call = call.ungrouped()
        return replace(call, v=call.v.masked_fill(here[..., None], 0.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class InjectSink(HeadEdit):
    """Give heads a sink that is not in the text. Statistics count it (`learned_sink_mass`) in the first form only.

    Attributes:
        logit: the sink's logit, a constant or (layer, head) -> logit, without value; adds to a learned sink's exp.
        keys: instead: layer -> key k* of each query head, [H, D], compared with the query as the kernel gets it (so without a position).
            The sink's logit is scale q.k* (soft-capped as the model does); multipliers on logits do not apply to it.
        values: layer -> value v* [H, Dv] of the sink; None: 0.
    """

    logit: PerHead | None = None
    keys: Mapping[int, Tensor] | None = None
    values: Mapping[int, Tensor] | None = None

    def __post_init__(self) -> None:
        """Check that it is one form."""
        if (self.logit is None) == (self.keys is None) or (self.values is not None and self.keys is None):
            raise EditError("InjectSink: give logit=, or keys= (layer -> [H, D]) with or without values=")
        if self.logit is not None:
            self.take_heads_of(self.logit)
        elif self.keys is not None:
            self.take_layers_of(self.keys)
        super().__post_init__()

    def before(self, call: AttentionCall) -> AttentionCall:
        """A constant logit goes into the kernel."""
        if self.logit is None:
            return call
        logit = self.per_head(self.logit, call, NO_SINK)
        old = call.sink_logits
        return replace(call, sink_logits=logit if old is None else torch.logaddexp(old.reshape(-1).to(logit), logit))

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """A key joins behind the softmax: with g_i = sigmoid(lse_i - s*_i), o' = g o + (1 - g) v*; exact, O(N)."""
        if self.keys is None or call.lse is None:
            return out
        layer, heads = call.site.layer, self.chosen(call)
        if self.keys[layer].shape != (call.heads, call.q.shape[3]):
            raise EditError(
                f"InjectSink: layer {layer} wants keys [{call.heads}, {call.q.shape[3]}], got {tuple(self.keys[layer].shape)}"
            )
        scale = call.q.shape[3] ** -0.5 if call.scale is None else call.scale
        logit = scale * torch.einsum("bhid,hd->bhi", call.q.to(call.work_dtype), self.keys[layer].to(call.lse))
        if call.softcap is not None:
            logit = call.softcap * torch.tanh(logit / call.softcap)
        stays = torch.sigmoid(call.lse - logit)
        stays = torch.where(heads[None, :, None], stays, 1.0)[..., None]
        changed = stays * out
        if self.values is not None:
            sink_out = (1 - stays) * self.values[layer].to(stays)[None, :, None]
            gate = None if call.edit is None else call.edit.gate
            changed = changed + (sink_out if gate is None else sink_out * gate[..., None])
        return changed.to(out.dtype)


def delete_tokens(ids: Sequence[int], positions: Positions) -> list[int]:
    """The ids without the tokens at `positions` (the fourth removal): run the model on what is left; later tokens move up.

    Under rotary positions, deleting leading tokens equals masking them in every layer, for the rows that remain; with learned positions it
    does not.

    Raises:
        EditError: a position behind the text, or nothing is left.
    """
    check_positions("delete_tokens: positions", positions)
    gone = set(listed("delete_tokens: positions", positions))
    if max(gone) >= len(ids) or len(gone) >= len(ids):
        raise EditError(
            f"delete_tokens: positions up to {max(gone)} do not fit a text of {len(ids)} tokens, of which one must stay"
        )
    return [token for place, token in enumerate(ids) if place not in gone]
