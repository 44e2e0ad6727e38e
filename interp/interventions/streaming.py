"""`Streaming`: heads that see only the first `sinks` keys and the last `window` (their own included): StreamingLLM, DuoAttention's streaming heads.

Key j is visible to row i if j < sinks or i - j < window (Xiao et al. 2024, arXiv 2309.17453). Positions are the text's own: StreamingLLM's cache
re-rotates keys to their places in the cache, which matters past the trained length only. With `share` a, out = a full + (1 - a) streaming,
the gate of DuoAttention's training (arXiv 2410.10819, section 2.2). The mask is structural, blocks outside it are skipped.
`interp.interventions.streaming_cache` drops the keys that no head will see again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from interp.capture.call import AttentionCall
from interp.errors import EditError
from interp.interventions.where import HeadEdit
from interp_kernels import Mask

EVERYTHING = 2**30
"""A window that no text fills."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Streaming(HeadEdit):
    """Restrict heads to sinks and a recent window; all other heads see what they saw.

    Attributes:
        sinks: leading keys of each text that stay visible.
        window: last keys that stay visible, the row's own included, at least 1.
        share: of full attention in the output, in [0, 1); above 0 every call is made twice.
    """

    sinks: int = 4
    window: int = 256
    share: float = 0.0

    def __post_init__(self) -> None:
        """Check the sizes."""
        super().__post_init__()
        if self.sinks < 0 or self.window < 1:
            raise EditError(f"Streaming: wanted sinks >= 0 and window >= 1, got {self.sinks} and {self.window}")
        if not 0 <= self.share < 1:
            raise EditError(f"Streaming: share must be in [0, 1), got {self.share}; a share of 1 is the model as it is")

    @property
    def detail(self) -> str:
        """The sizes."""
        return f"{self.sinks} + {self.window}" + (f", {self.share:g} full" if self.share else "")

    def before(self, call: AttentionCall) -> AttentionCall:
        """Restrict the mask, unless a share of full attention is wanted, which `after` makes."""
        if not call.mask.is_causal:
            raise EditError(
                f"{self.name}: layer {call.site.layer} is not causal, so it has no recent keys; use KnockOut"
            )
        if self.share or not self._restricts(call):
            return replace(call)  # a short text loses no key: that is what was asked for
        return replace(call, mask=self._restricted(call))

    def after(self, call: AttentionCall, out: Tensor) -> Tensor:
        """Mix in the streaming outputs, made with all other changes in the kernel."""
        if not self.share or not self._restricts(call):
            return out
        stream = replace(call, mask=self._restricted(call)).attend(None).out
        chosen = self.chosen(call)[None, :, None, None]
        return torch.where(chosen, self.share * out + (1 - self.share) * stream, out)

    def _restricts(self, call: AttentionCall) -> bool:
        """Whether any row of this call lies so far into its text that it loses a key."""
        return int(call.row_positions().max()) >= self.sinks + self.window

    def _restricted(self, call: AttentionCall) -> Mask:
        heads, mask = call.heads, call.mask
        chosen = self.chosen(call).cpu()
        own = EVERYTHING if mask.window is None else mask.window
        sinks = torch.zeros(heads, dtype=torch.long) if mask.head_sinks is None else mask.head_sinks.cpu().expand(heads)
        windows = torch.full((heads,), own) if mask.head_windows is None else mask.head_windows.cpu().expand(heads)
        # {j < s or recent < w} cut by the restriction that is there is again of that form only if one holds the other.
        narrower = (windows <= self.window) & (sinks <= self.sinks)
        wider = (windows >= self.window) & ((sinks >= self.sinks) | (windows >= EVERYTHING))
        if bool((chosen & ~narrower & ~wider).any()):
            raise EditError(
                f"{self.name}: layer {call.site.layer} has a window of {int(windows[chosen].min())} keys already, which would hide some of the "
                f"{self.sinks} sinks; give sinks=0, a window at least as wide, or leave the layer out"
            )
        changed = chosen & ~narrower
        return mask.sink_window(
            torch.where(changed, self.sinks, sinks), torch.where(changed, self.window, windows).to(torch.long)
        )
