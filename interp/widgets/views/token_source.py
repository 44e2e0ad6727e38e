"""Where a token looks and who looks at it: what TokenView shows, computed from a run's queries and keys when it is asked for. O(N) each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.capture.run import Capture
from interp.errors import OptionError
from interp.results import Result
from interp.widgets.views.protocol import Reply, answer, one_of, readable, whole

Direction = Literal["sources", "readers"]
DIRECTIONS: Final = ("sources", "readers")
WEIGHTINGS: Final = ("weight", "norm")
TOP: Final = 24
"""Tokens that are named at most; the others are one number."""
FAINT: Final = 1e-4
"""Weights below this share of the largest are not worth a name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Looks:
    """The strongest weights of one row (sources) or one column (readers) of a head's map.

    Attributes:
        index: positions, largest weight first, ties to the lowest position.
        weight: of each, float64 in [0, 1].
        total: sum of the whole row (1, less a learned sink's share) or column (rows that the token receives).
        others: tokens with a weight above 0 that are not in `index`.
    """

    index: NDArray[np.int64]
    weight: NDArray[np.float64]
    total: float
    others: int

    @property
    def rest(self) -> float:
        """What the other tokens have together."""
        return max(self.total - float(self.weight.sum()), 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenSource:
    """A text and its heads.

    Attributes:
        capture: the self-attention of one text, with its queries and keys.
        tokens: text of each token, as it came.
        norms: layer -> norm of what each key adds, ||W_O v_j||, float [head, key]; empty where it was not measured.
    """

    capture: Capture
    tokens: tuple[str, ...]
    norms: Mapping[int, NDArray[np.floating]]

    def looks(self, layer: int, head: int, at: int, *, direction: Direction, by_norm: bool = False) -> Looks:
        """What one token looks at, or what looks at it.

        Args:
            layer, head: the model's own numbers.
            at: position of the token.
            direction: "sources", row `at` of the map; "readers", its column.
            by_norm: weights times the norms of what the keys add, scaled to sum 1 (Kobayashi et al. 2020); for sources only.

        Raises:
            OptionError: no such head, or norms that are not there.
        """
        attention = self.capture.attention[layer, head]
        cells = attention[at] if direction == "sources" else attention[:, at]
        weights = np.asarray(cells.double().cpu().numpy())
        if by_norm:
            if direction != "sources" or layer not in self.norms:
                raise OptionError(
                    "weights by value norm need norms=model's explain.norms of this text, and the direction 'sources'"
                )
            weights = weights * self.norms[layer][head]
            weights = weights / weights.sum()
        order = np.argsort(-weights, kind="stable")[:TOP]
        index = order[(weights[order] > 0) & (weights[order] >= FAINT * weights[order[0]])]
        others = int((weights > 0).sum()) - len(index)
        return Looks(index=index, weight=weights[index], total=float(weights.sum()), others=others)

    def frame(self, layer: int, head: int, at: int, direction: Direction) -> pd.DataFrame:
        """The strongest tokens as a table: layer, head, query, key, token, weight."""
        looks = self.looks(layer, head, at, direction=direction)
        there = np.full(len(looks.index), at)
        query, key = (there, looks.index) if direction == "sources" else (looks.index, there)
        told = {"layer": layer, "head": head, "query": query, "key": key}
        return pd.DataFrame(told | {"token": [self.tokens[i] for i in looks.index], "weight": looks.weight})


def token_source(capture: Capture, norms: Result | None = None) -> TokenSource:
    """Read a run.

    Args:
        capture: a run of one text that kept its queries and keys; `run.encoder` is one too.
        norms: result of `interp.explain.norms` on the same text.

    Raises:
        ShapeError: several texts.
        CaptureError: no queries and keys were kept.
        OptionError: queries and keys are of different texts, or the norms are of another text or kind.
    """
    queries, keys = capture.attention[capture.layers[0], 0].shape
    if queries != keys:
        raise OptionError(
            f"TokenView shows one text that attends to itself; here {queries} queries look at {keys} keys"
        )
    tokens = capture.attention[capture.layers[0], 0].col_tokens
    named = tuple(tokens) if tokens is not None else tuple(str(i) for i in range(keys))
    return TokenSource(capture=capture, tokens=named, norms={} if norms is None else _norms(norms, keys))


def _norms(result: Result, keys: int) -> dict[int, NDArray[np.floating]]:
    sizes = result.arrays.get("key_norms")
    if result.kind != "explain.norms" or sizes is None or sizes.shape[2] != keys:
        raise OptionError(
            f"norms must be a result of interp.explain.norms on the same {keys} tokens; got a result {result.kind!r}"
            + ("" if sizes is None else f" of {sizes.shape[2]} tokens")
        )
    return dict(zip(sorted(int(x) for x in result.table["layer"].unique()), sizes, strict=True))


def _tokens(source: TokenSource, message: Mapping[str, Any]) -> Reply:
    parts = [readable(text).encode() for text in source.tokens]
    return {}, [np.array([len(p) for p in parts], "<u4").tobytes(), b"".join(parts)]


def _looks(source: TokenSource, message: Mapping[str, Any]) -> Reply:
    layer = whole(message, "layer", 0, max(source.capture.layers) + 1)
    head = whole(message, "head", 0, source.capture.heads)
    at = whole(message, "at", 0, len(source.tokens))
    direction: Any = one_of(message, "direction", DIRECTIONS)
    looks = source.looks(layer, head, at, direction=direction, by_norm=one_of(message, "by", WEIGHTINGS) == "norm")
    said = {"total": looks.total, "rest": looks.rest, "others": looks.others}
    return said, [looks.index.astype("<u4").tobytes(), looks.weight.astype("<f4").tobytes()]


OPERATIONS = {"tokens": _tokens, "looks": _looks}


def serve(source: TokenSource, message: object) -> Reply:
    """Answer TokenView's page: all `tokens` (uint32 byte lengths, UTF-8), or what a token `looks` at (uint32 positions, float32 weights)."""
    return answer(OPERATIONS, source, message)
