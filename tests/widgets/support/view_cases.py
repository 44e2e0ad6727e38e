"""Tables for the tests of views: every number is known, every axis another prime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

LAYERS = (2, 3, 5, 7, 11)
HEADS = 6
KV_HEADS = 2
NASTY = "<img src=x onerror=alert(1)>"


def scores() -> dict[str, np.ndarray]:
    """Three columns [layer, head], no two numbers of a column alike; one head of the first is undefined."""
    part = np.random.default_rng(3).permutation(len(LAYERS) * HEADS).reshape(len(LAYERS), HEADS) / 29
    first = 0.125 + 0.75 * part
    first[3, 4] = np.nan
    return {"entropy": first, "effective_keys": 10 ** (3 * part[::-1]), NASTY: part[:, ::-1] - 0.5}


def frame() -> pd.DataFrame:
    """A tidy table of statistics, as a run or a scan gives it."""
    index = {"layer": np.repeat(LAYERS, HEADS), "head": np.tile(np.arange(HEADS), len(LAYERS))}
    parts = [
        pd.DataFrame(index | {"statistic": name, "value": x.ravel(), "std": x.ravel() / 4, "count": 7})
        for name, x in scores().items()
    ]
    return pd.concat(parts, ignore_index=True)


class Wire:
    """What a view sends to its page, kept; and messages as a page sends them."""

    def __init__(self, view: Any, monkeypatch: Any) -> None:
        self.view = view
        self.sent: list[tuple[dict[str, Any], list[bytes]]] = []

        def publish(kind: str, data: Any = None, metadata: Any = None, buffers: Any = None, **rest: Any) -> None:
            self.sent.append((data, [bytes(b) for b in buffers or ()]))

        monkeypatch.setattr(view.comm, "publish_msg", publish)

    def ask(self, **message: Any) -> tuple[dict[str, Any], list[bytes]]:
        """A request, and its answer."""
        self.view._handle_msg({"content": {"data": {"method": "custom", "content": message}}, "buffers": []})
        data, buffers = self.sent[-1]
        assert data["method"] == "custom"
        return data["content"], buffers

    def set(self, **state: Any) -> None:
        """Traits that the page changed."""
        data = {"method": "update", "state": state, "buffer_paths": []}
        self.view._handle_msg({"content": {"data": data}, "buffers": []})
