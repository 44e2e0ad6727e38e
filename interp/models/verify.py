"""Checks that what was captured is what the model computes (the idea of nnterp: verify the hook when it is attached)."""

from __future__ import annotations

from interp.capture.run import Run
from interp.errors import CaptureError

ROW_TOLERANCE = 1e-3


def check_rows(run: Run) -> None:
    """Every layer's last attention row (head 0) sums to 1, less a learned sink's share; the run must hold one text and its maps.

    Raises:
        CaptureError: a row does not.
    """
    for layer in run.layers:
        amap = run.attention[layer, 0]
        last = amap.shape[0] - 1
        total = float(amap.row(last).sum())
        if "learned_sink_mass" in run.stats:
            total += float(run.stats["learned_sink_mass"][run.layers.index(layer), 0, last])
        if abs(total - 1) > ROW_TOLERANCE:
            raise CaptureError(
                f"layer {layer}, head 0: the last attention row sums to {total:.6f}, not 1; the capture is not what the model computes"
            )
