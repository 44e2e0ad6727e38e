"""What a statistic needs from one instrumented attention call, in the kernel's words; needs of several statistics add up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Measurements that one sweep over the attention map has to take.

    Attributes:
        kernel: row quantities by their kernel name (entropy, row_max, logit_moments, prob_square, distance).
        sets: names of key sets whose mass is wanted (first_token, first_four, special, punctuation, or span:NAME).
        windows: mass within the last w keys, for each w.
        offsets: probability at exactly d tokens back, for each d.
        matches: token-equality masses (duplicate, induction).
        rest: entropy and mass of what is left without the first token.
        received: the second, key-major sweep that sums the map over rows.
    """

    kernel: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()
    windows: frozenset[int] = frozenset()
    offsets: frozenset[int] = frozenset()
    matches: frozenset[str] = frozenset()
    rest: bool = False
    received: bool = False

    def __or__(self, other: Needs) -> Needs:
        """The needs of both."""
        return Needs(
            kernel=self.kernel | other.kernel,
            sets=self.sets | other.sets,
            windows=self.windows | other.windows,
            offsets=self.offsets | other.offsets,
            matches=self.matches | other.matches,
            rest=self.rest or other.rest,
            received=self.received or other.received,
        )
