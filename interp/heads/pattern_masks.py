"""Sparse masks that a head may be computed under: which there are to choose from, how each finds its keys, and how many keys it keeps.

Three classes, named as in MInference's files (arXiv 2407.02490; `search_pattern` of the released code):

    stream_llm           A-shape: the first `vertical` keys and the nearest `slash`
    vertical_and_slash   `vertical` columns and `slash` diagonals, those with the largest sums over the last 64 rows; the first columns and
                         the nearest diagonals are always among them
    block_sparse         per block of `slash` rows the `vertical` blocks of as many keys whose mean key has the largest product with the mean
                         query

A row i sees the last min(i + 1, window) keys; all counts here are of keys that it sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import OptionError
from interp.heads.tables import named

Pattern = Literal["stream_llm", "vertical_and_slash", "block_sparse"]
PATTERNS: Final[tuple[Pattern, ...]] = get_args(Pattern)
INDEX_ROWS = 64
"""Rows at the end of the text whose sums choose columns and diagonals (MInference)."""
PUBLISHED_TOKENS = 30_000
"""Length of MInference's search example; its sizes are meant for it."""
FORCED = 30
"""Columns and diagonals that are always kept, at `PUBLISHED_TOKENS` (its first search; 50 to 100 diagonals in later code)."""
BLOCK = 32
"""Rows and keys of a block (its first search)."""
BLOCK_SHARE = 8
"""Its block-sparse candidate keeps one key block in this many."""
A_SHAPE: Final = (100, 800)
VERTICAL_SLASH: Final = ((30, 800), (100, 750), (500, 700), (3500, 100))
"""Published sizes: sinks and window; columns and diagonals (its first search)."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A class of mask and its size.

    Attributes:
        pattern: see the module.
        vertical: first keys, columns, or key blocks of each block of rows.
        slash: nearest keys, diagonals, or size of a block.

    Raises:
        OptionError: an unknown pattern or a size that keeps nothing.
    """

    pattern: Pattern
    vertical: int
    slash: int

    def __post_init__(self) -> None:
        """Check name and sizes."""
        named("pattern", self.pattern, PATTERNS)
        if min(self.vertical, self.slash) < 1:
            raise OptionError(f"vertical and slash must be at least 1, got {self.vertical} and {self.slash}")

    @property
    def keys(self) -> int:
        """Most keys that a row keeps."""
        both = self.vertical, self.slash
        return both[0] * both[1] if self.pattern == "block_sparse" else sum(both)


def published_candidates(tokens: int) -> tuple[Candidate, ...]:
    """MInference's candidates with the published sizes, whatever they keep of a text of so many tokens."""
    blocks = -(-tokens // BLOCK)
    return (
        Candidate(pattern="stream_llm", vertical=A_SHAPE[0], slash=A_SHAPE[1]),
        *(Candidate(pattern="vertical_and_slash", vertical=v, slash=s) for v, s in VERTICAL_SLASH),
        Candidate(pattern="block_sparse", vertical=max(1, blocks // BLOCK_SHARE), slash=BLOCK),
    )


def equal_candidates(budget: int) -> tuple[Candidate, ...]:
    """The same candidates, each keeping `budget` keys a row, divided between columns and diagonals as the published sizes are.

    Raises:
        OptionError: a budget that is no multiple of `BLOCK`.
    """
    if budget < BLOCK or budget % BLOCK:
        raise OptionError(f"budget must be a multiple of the {BLOCK} keys of a block, got {budget}")

    def split(pattern: Pattern, sizes: tuple[int, int]) -> Candidate:
        vertical = min(max(round(budget * sizes[0] / sum(sizes)), 1), budget - 1)
        return Candidate(pattern=pattern, vertical=vertical, slash=budget - vertical)

    return (
        split("stream_llm", A_SHAPE),
        *(split("vertical_and_slash", sizes) for sizes in VERTICAL_SLASH),
        Candidate(pattern="block_sparse", vertical=budget // BLOCK, slash=BLOCK),
    )


def strongest(sums: Float[Tensor, "head place"], count: int, forced: int) -> Int[Tensor, "head kept"]:
    """The `count` places with the largest sums, the first `forced` among them whatever their sums; ties to the lowest place."""
    ranked = sums.clone()
    ranked[:, :forced] = torch.inf
    return ranked.sort(dim=-1, descending=True, stable=True).indices[:, :count]


def pooled(x: Float[Tensor, "head token feature"], size: int) -> Float[Tensor, "head block feature"]:
    """Mean over blocks of `size` tokens; the last block may be short."""
    n = x.shape[1]
    blocks = -(-n // size)
    sums = torch.nn.functional.pad(x.float(), (0, 0, 0, blocks * size - n)).unflatten(1, (blocks, size)).sum(2)
    sizes = torch.full((blocks, 1), size, device=x.device)
    sizes[-1] = n - (blocks - 1) * size
    return sums / sizes


def reachable(blocks: int, size: int, reach: int, device: torch.device) -> Bool[Tensor, "row_block key_block"]:
    """Which key blocks some row of a block sees if each row sees the last `reach` keys."""
    place = torch.arange(blocks, device=device)
    behind = place[:, None] - place[None, :]
    return (behind >= 0) & ((behind - 1) * size + 1 < reach)


def block_products(
    q: Float[Tensor, "head token feature"], k: Float[Tensor, "head token feature"], size: int, reach: int
) -> Float[Tensor, "head row_block key_block"]:
    """Mean query times mean key of every pair of blocks, without the factor of attention; -inf where no row sees a key."""
    products = pooled(q, size) @ pooled(k, size).mT
    return products.masked_fill(~reachable(products.shape[-1], size, reach, q.device), -torch.inf)


def strongest_blocks(
    products: Float[Tensor, "head row_block key_block"], count: int
) -> Bool[Tensor, "head row_block key_block"]:
    """The `count` key blocks of each block of rows with the largest products, all that are seen where there are fewer."""
    order = products.sort(dim=-1, descending=True, stable=True).indices[..., :count]
    chosen = torch.zeros_like(products, dtype=torch.bool).scatter(-1, order, True)
    return chosen & (products > -torch.inf)


def crossings(
    columns: Int[Tensor, " columns"], diagonals: Int[Tensor, " diagonals"], first: int, tokens: int, reach: int
) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
    """Rows and keys where a column and a diagonal of one head meet, in rows from `first` on, of keys that the rows see."""
    seen = diagonals[diagonals < reach]
    j = columns[:, None].expand(-1, len(seen)).flatten()
    i = j + seen.repeat(len(columns))
    inside = (i >= first) & (i < tokens)
    return i[inside], j[inside]


def keys_on_lines(
    columns: Int[Tensor, " columns"],
    diagonals: Int[Tensor, " diagonals"],
    crossed: Int[Tensor, " pair"],
    tokens: int,
    reach: int,
) -> Int[Tensor, " row"]:
    """Keys that each row keeps under a vertical-slash mask of one head; `crossed`: the rows of all `crossings` from row 0 on."""
    on = torch.bincount(columns, minlength=tokens).cumsum(0)
    on = on - torch.nn.functional.pad(on, (reach, 0))[:tokens]
    near = torch.bincount(diagonals, minlength=tokens)
    near[reach:] = 0
    return on + near.cumsum(0) - torch.bincount(crossed, minlength=tokens)


def keys_in_blocks(
    kept: Bool[Tensor, "head row_block key_block"], size: int, tokens: int, reach: int
) -> Int[Tensor, "head row"]:
    """Keys that each row keeps under a block-sparse mask."""
    i = torch.arange(tokens, device=kept.device)
    start = (i - reach + 1).clamp(min=0)
    row, first = i // size, start // size
    total = torch.nn.functional.pad(kept.long().cumsum(-1), (1, 0))
    # from the start of the block of the first seen key up to the row's own block, then what the two ends lack
    whole = (total[:, row, row + 1] - total[:, row, first]) * size
    return whole - kept[:, row, first] * (start % size) - kept[:, row, row] * (size - 1 - i % size)
