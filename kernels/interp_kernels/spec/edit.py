"""`Edit`: changes to attention that run inside the kernel.

With s = softcap(scale q.k) + mask bias, the edited logits are ``logit_scale * s + key_bias``; the softmax follows (a sink logit is not scaled);
then each weight is multiplied by the factor of its key's set, and the head's output by its gate. Statistics describe the softmax
(after `logit_scale` and `key_bias`, before `factors` and `gate`). Per-head masks are part of `Mask`.
Source of the forms: the interventions table in the methods notes, rows temperature, log-bias, reweight and head gate.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

MAX_FACTOR_SETS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Edit:
    """Changes to one attention call. Every tensor broadcasts over leading axes of size 1.

    Attributes:
        logit_scale: multiplier on logits (inverse temperature), [B or 1, H or 1, Nq or 1], float, finite.
        key_bias: additive logit per key, [B or 1, H or 1, Nk], float; -inf hides the key.
        sets: disjoint key sets, bool [B or 1, H or 1, C, Nk], C <= 4.
        factors: factor of each set after the softmax, [B or 1, H or 1, Nq or 1, C + 1], float; the last column is for keys in no set.
        gate: factor on the head's output, [B or 1, H or 1, Nq or 1].
    """

    logit_scale: Tensor | None = None
    key_bias: Tensor | None = None
    sets: Tensor | None = None
    factors: Tensor | None = None
    gate: Tensor | None = None

    def __post_init__(self) -> None:
        """Check axes and that sets come with factors."""
        axes = {"logit_scale": 3, "key_bias": 3, "sets": 4, "factors": 4, "gate": 3}
        bad = [
            f"{name}: wanted {n} axes, got shape {tuple(x.shape)}"
            for name, n in axes.items()
            if (x := getattr(self, name)) is not None and x.ndim != n
        ]
        if (self.sets is None) != (self.factors is None):
            bad.append("sets and factors come together: give both or neither")
        elif self.sets is not None and self.factors is not None and not bad:
            c = self.sets.shape[2]
            if self.sets.dtype != torch.bool or not 1 <= c <= MAX_FACTOR_SETS:
                bad.append(f"sets: wanted 1 to {MAX_FACTOR_SETS} bool sets, got {c} of {self.sets.dtype}")
            elif bool((self.sets.sum(2) > 1).any()):
                bad.append("sets: wanted disjoint sets, but some key is in two")
            if self.factors.shape[-1] != c + 1:
                bad.append(
                    f"factors: wanted {c + 1} columns (one a set, and one for the other keys), got {self.factors.shape[-1]}"
                )
        if bad:
            raise ValueError("edit: " + "; ".join(bad))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is changed."""
        return all(getattr(self, f.name) is None for f in fields(self))

    def to(self, device: torch.device | str) -> Edit:
        """The same edit with its tensors on `device`."""
        return Edit(**{f.name: None if (x := getattr(self, f.name)) is None else x.to(device) for f in fields(self)})

    def select(self, batch: int, head: int) -> Edit:
        """The edit of one batch item and one head, for a call with B = H = 1."""
        return self.narrow(slice(batch, batch + 1), slice(head, head + 1))

    def narrow(self, batch: slice, heads: slice) -> Edit:
        """The edit of a range of batch items and of heads."""

        def one(x: Tensor | None) -> Tensor | None:
            if x is None:
                return None
            x = x[batch] if x.shape[0] > 1 else x
            return x[:, heads] if x.shape[1] > 1 else x

        return Edit(**{f.name: one(getattr(self, f.name)) for f in fields(self)})

    def crop(self, queries: int, keys: int) -> Edit:
        """The edit of the first `queries` rows and `keys` keys of a call."""

        def cut(x: Tensor | None, axis: int, n: int) -> Tensor | None:
            return None if x is None else x.narrow(axis, 0, min(n, x.shape[axis]))

        return Edit(
            logit_scale=cut(self.logit_scale, 2, queries),
            key_bias=cut(self.key_bias, 2, keys),
            sets=cut(self.sets, 3, keys),
            factors=cut(self.factors, 2, queries),
            gate=cut(self.gate, 2, queries),
        )

    def check(self, batch: int, heads: int, queries: int, keys: int) -> None:
        """Raise ValueError, naming every mismatch, if this edit cannot serve a call of these sizes."""
        last = {"logit_scale": (queries, 1), "key_bias": (keys,), "gate": (queries, 1), "sets": (keys,)}
        bad: list[str] = []
        for name in ("logit_scale", "key_bias", "sets", "factors", "gate"):
            x = getattr(self, name)
            if x is None:
                continue
            ok = x.shape[0] in (1, batch) and x.shape[1] in (1, heads)
            ok = ok and (x.shape[2] in (1, queries) if name == "factors" else x.shape[-1] in last[name])
            if not ok:
                bad.append(
                    f"{name}: got {tuple(x.shape)} for {batch} batch items, {heads} heads, {queries} rows, {keys} keys"
                )
        if bad:
            raise ValueError("edit does not fit the call: " + "; ".join(bad))
