"""Problems for the kernel tests: named cases over every mask feature, option and edit, and a hypothesis strategy over their combinations.

Every axis has another prime where it can: batch 2, key heads 3, query heads 6, rows 13, keys 29, D 5, Dv 7; odd sizes
(1, 63, 64, 65, 1000) have cases of their own. A case is built when asked for and always the same for one name.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from hypothesis import strategies as st
from kernel_definition import sees
from torch import Tensor

from interp_kernels import Collect, Edit, Mask

INF = float("inf")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Case:
    """One problem: arguments of `attention`, the visible entries by the test-suite's own definition, row subsets for `columns`."""

    name: str
    q: Tensor
    k: Tensor
    v: Tensor
    mask: Mask
    visible: Callable[[], Tensor]
    rows: Tensor
    scale: float | None = None
    softcap: float | None = None
    sink_logits: Tensor | None = None
    edit: Edit | None = None
    collect: Collect

    def __repr__(self) -> str:
        """Name and sizes: tensors would drown a failure message."""
        return f"Case({self.name!r}, B H Nq Nk = {self.sizes}, D = {self.q.shape[3]}, Dv = {self.v.shape[3]}, softcap = {self.softcap})"

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        """As `repr`, for hypothesis."""
        printer.text(repr(self))

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """(B, H, Nq, Nk)."""
        return (*self.q.shape[:3], self.k.shape[2])

    @property
    def seen(self) -> Tensor:
        """The visible entries, bool [B, H, Nq, Nk]: decided once, when first asked for, and shared by everything made of this case."""
        return self.visible()

    def cast(self, dtype: torch.dtype) -> Case:
        """The same problem with q, k, v rounded to `dtype`."""
        return replace(self, q=self.q.to(dtype), k=self.k.to(dtype), v=self.v.to(dtype))

    def wishing(self, collect: Collect) -> Case:
        """The same problem with other statistics asked for."""
        return replace(self, collect=collect)

    def without_sink(self) -> Case:
        """The same problem without the learned sink logit."""
        return replace(self, sink_logits=None)

    def attention_arguments(self) -> dict:
        """Keyword arguments of `interp_kernels.attention`."""
        return {
            "q": self.q,
            "k": self.k,
            "v": self.v,
            "sink_logits": self.sink_logits,
            "collect": self.collect,
            **self.map_options(),
        }

    def map_options(self) -> dict:
        """The keyword arguments that `columns`, `entries` and `tile` share with `attention`."""
        return {"mask": self.mask, "scale": self.scale, "softcap": self.softcap, "edit": self.edit}


def everything(batch: int, queries: int, keys: int, g: torch.Generator) -> Collect:
    """Every field of `Collect` at once, with batched and unbatched tensors, repeated and unordered rows, ids that match nothing."""
    return Collect(
        entropy=True,
        row_max=True,
        logit_moments=True,
        prob_square=True,
        distance=True,
        key_sets=_bits(g, 3, keys) if batch % 2 else _bits(g, batch, 3, keys),
        rest=_bits(g, batch, keys),
        match=(torch.randint(-1, 3, (2, queries), generator=g), torch.randint(-1, 3, (batch, 2, keys), generator=g)),
        topk=3,
        topk_rows=torch.randint(0, queries, (5,), generator=g),
        windows=(1, 4, 64),
        offsets=(0, 1, 7, 1009),
    )


FIELDS = {
    "nothing": {},
    "entropy": {"entropy": True},
    "row_max": {"row_max": True},
    "logit_moments": {"logit_moments": True},
    "prob_square": {"prob_square": True},
    "distance": {"distance": True},
    "key_sets": {"key_sets": True},
    "rest": {"rest": True},
    "match": {"match": True},
    "topk": {"topk": 4},
    "topk_rows": {"topk": 2, "topk_rows": True},
    "windows": {"windows": (2, 11)},
    "offsets": {"offsets": (3,)},
}


def one_field(case: Case, name: str) -> Case:
    """`case` asking for a single field of `Collect` (True: the tensor of that field in the full wish)."""
    asked = {
        key: getattr(case.collect, key) if value is True and key not in _FLAGS else value
        for key, value in FIELDS[name].items()
    }
    return case.wishing(Collect(**asked))


_FLAGS = ("entropy", "row_max", "logit_moments", "prob_square", "distance")


def make(
    name: str,
    mask: Mask | Callable[[torch.Generator], Mask],
    *,
    batch: int = 2,
    key_heads: int = 3,
    group: int = 2,
    queries: int = 13,
    keys: int = 29,
    features: int = 5,
    values: int = 7,
    spread: float = 1.5,
    edit: Callable[[torch.Generator], Edit] | None = None,
    sink: bool = False,
    **options,
) -> Case:
    """Build a case; tensors come from a generator seeded by its name, logits have a standard deviation of about spread^2."""
    g = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    heads = key_heads * group
    q, k, v = (
        torch.randn(batch, n, length, width, generator=g) * factor
        for n, length, width, factor in (
            (heads, queries, features, spread),
            (key_heads, keys, features, spread),
            (key_heads, keys, values, 1.0),
        )
    )
    mask = mask if isinstance(mask, Mask) else mask(g)
    return Case(
        name=name,
        q=q,
        k=k,
        v=v,
        mask=mask,
        visible=cache(partial(sees, mask, batch, heads, queries, keys)),
        rows=torch.cat([_bits(g, batch, 2, queries), torch.zeros(batch, 1, queries, dtype=torch.bool)], 1),
        sink_logits=torch.randn(heads, generator=g) if sink else None,
        edit=None if edit is None else edit(g),
        collect=everything(batch, queries, keys, g),
        **options,
    )


def _bits(g: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=g) < 0.4


def _ints(*values: int) -> Tensor:
    return torch.tensor(values)


def _documents(n: int, *starts: int) -> Tensor:
    return torch.bucketize(torch.arange(n), torch.tensor(starts), right=True)


def _sets(g: torch.Generator, heads: int, keys: int, c: int) -> Tensor:
    which = torch.randint(0, c + 1, (2, heads, 1, keys), generator=g)
    return which == torch.arange(c)[:, None]


def _many(g: torch.Generator) -> Mask:
    return (
        Mask.causal(window=17)
        .padded(left=_ints(3, 0), right=_ints(0, 2))
        .documents(_documents(13, 5), _documents(29, 21).expand(2, -1))
        .prefix(_ints(2, 5))
        .hide(_bits(g, 13), _bits(g, 2, 29), heads=[1, 4])
        .sink_window(_ints(0, 1, 2, 3, 4, 5), _ints(2, 3, 5, 7, 11, 29))
        .blocks(torch.rand(6, 4, 5, generator=g) < 0.8, (4, 7))
        .alibi(torch.rand(6, generator=g))
    )


def _dense_lows(g: torch.Generator) -> Mask:
    bias = torch.randn(2, 6, 13, 29, generator=g)
    bias[_bits(g, 2, 6, 13, 29)] = -INF
    bias[_bits(g, 2, 6, 13, 29)] = torch.finfo(torch.float32).min
    bias[1, 3] = torch.finfo(torch.float32).min
    bias[0, :, 4] = -INF
    return Mask.dense(bias)


def _fully_masked_heads(g: torch.Generator) -> Mask:
    keep = torch.ones(6, 13, 29, dtype=torch.bool)
    keep[[0, 4]] = False
    return Mask.full().blocks(keep, 1)


def _every_edit(g: torch.Generator) -> Edit:
    return Edit(
        logit_scale=torch.rand(2, 6, 13, generator=g) * 2 - 0.5,
        key_bias=torch.randn(1, 6, 29, generator=g).masked_fill(_bits(g, 1, 6, 29), -INF),
        sets=_sets(g, 6, 29, 3),
        factors=torch.rand(2, 6, 13, 4, generator=g) * 2,
        gate=torch.rand(1, 6, 1, generator=g),
    )


_BUILDERS: dict[str, Callable[[str], Case]] = {
    # masks
    "causal": lambda n: make(n, Mask.causal(), queries=23, keys=23),
    "causal_longer_keys": lambda n: make(n, Mask.causal()),
    "causal_offset": lambda n: make(n, Mask.causal(offset=5)),
    "causal_offset_past_the_end": lambda n: make(n, Mask.causal(offset=40, window=15)),
    "causal_more_rows_than_keys": lambda n: make(n, Mask.causal(), queries=29, keys=13),
    "causal_empty_first_rows": lambda n: make(n, Mask.causal(offset=-4)),
    "causal_window": lambda n: make(n, Mask.causal(window=5)),
    "causal_window_of_one": lambda n: make(n, Mask.causal(window=1)),
    "full": lambda n: make(n, Mask.full()),
    "full_window": lambda n: make(n, Mask.full(window=4, offset=3)),
    "full_offset": lambda n: make(n, Mask.full(offset=11)),
    "left_padding": lambda n: make(n, Mask.causal().padded(left=_ints(3, 19))),
    "right_padding": lambda n: make(n, Mask.full().padded(right=_ints(0, 11))),
    "both_paddings": lambda n: make(n, Mask.causal(window=9).padded(left=_ints(2, 7), right=_ints(5, 1))),
    "padding_hides_an_item": lambda n: make(n, Mask.full().padded(left=_ints(29, 0))),
    "documents": lambda n: make(n, Mask.causal().documents(_documents(23, 5, 13)), queries=23, keys=23),
    "documents_of_both_axes": lambda n: make(
        n,
        Mask.causal().documents(
            _documents(13, 4).expand(2, -1), torch.stack([_documents(29, 20), _documents(29, 3, 18)])
        ),
    ),
    "documents_foreign": lambda n: make(n, Mask.full().documents(_documents(13, 7), _documents(29, 11) * 5)),
    "prefix": lambda n: make(n, Mask.causal(offset=0).prefix(7)),
    "prefix_after_padding": lambda n: make(
        n, Mask.causal(window=6, offset=2).padded(left=_ints(4, 0)).prefix(_ints(3, 9))
    ),
    "prefix_on_full_window": lambda n: make(n, Mask.full(window=3).prefix(5)),
    "hide": lambda n: make(n, lambda g: Mask.causal().hide(_bits(g, 13), _bits(g, 29))),
    "hide_in_heads": lambda n: make(
        n,
        lambda g: (
            Mask.full()
            .hide(_bits(g, 13), _bits(g, 29), heads=[0, 3])
            .hide(_bits(g, 2, 13), _bits(g, 2, 29), heads=[3, 5])
        ),
    ),
    "hide_whole_rows": lambda n: make(n, lambda g: Mask.full().hide(_bits(g, 13), torch.ones(29, dtype=torch.bool))),
    "sink_window": lambda n: make(n, Mask.causal().sink_window(2, 5)),
    "sink_window_per_head": lambda n: make(
        n, Mask.causal().sink_window(_ints(0, 1, 2, 3, 5, 7), _ints(1, 2, 3, 29, 11, 1000))
    ),
    "sink_window_after_padding": lambda n: make(n, Mask.causal().padded(left=_ints(6, 0)).sink_window(2, 3)),
    "sink_window_on_full": lambda n: make(n, Mask.full().sink_window(1, _ints(3, 29, 4, 5, 6, 7))),
    "blocks": lambda n: make(n, lambda g: Mask.causal().blocks(torch.rand(6, 3, 6, generator=g) < 0.6, 5)),
    "blocks_of_items": lambda n: make(
        n, lambda g: Mask.full().blocks(torch.rand(2, 1, 4, 3, generator=g) < 0.6, (4, 11))
    ),
    "fully_masked_heads": lambda n: make(n, _fully_masked_heads),
    "alibi": lambda n: make(n, lambda g: Mask.causal().alibi(torch.rand(6, generator=g))),
    "alibi_on_full": lambda n: make(n, lambda g: Mask.full(offset=8).alibi(torch.rand(6, generator=g))),
    "dense_bool": lambda n: make(n, lambda g: Mask.dense(_bits(g, 2, 1, 13, 29))),
    "dense_bias": lambda n: make(n, lambda g: Mask.causal().biased(torch.randn(1, 6, 13, 29, generator=g))),
    "dense_bias_with_lowest_values": lambda n: make(n, _dense_lows),
    "dense_bool_and_bias": lambda n: make(
        n, lambda g: Mask.dense(_bits(g, 2, 1, 13, 29)).biased(torch.randn(1, 6, 13, 29, generator=g))
    ),
    "many_features": lambda n: make(n, _many),
    # options
    "softcap": lambda n: make(n, Mask.causal(), softcap=2.0),
    "sink_logits": lambda n: make(n, Mask.causal(), sink=True),
    "sink_logits_and_empty_rows": lambda n: make(n, Mask.causal(offset=-3), sink=True),
    "softcap_sink_window": lambda n: make(n, Mask.causal(window=6), softcap=3.0, sink=True),
    "scale": lambda n: make(n, Mask.causal(), scale=0.125),
    "scale_of_zero": lambda n: make(n, Mask.causal(), scale=0.0),
    # shapes
    "one_by_one": lambda n: make(n, Mask.causal(), queries=1, keys=1),
    "one_row": lambda n: make(n, Mask.causal(), queries=1, keys=65),
    "one_key": lambda n: make(n, Mask.full(), queries=11, keys=1),
    "decode_2": lambda n: make(n, Mask.causal(window=37), queries=2, keys=131),
    "decode_3": lambda n: make(n, Mask.causal().padded(left=_ints(17, 0)), queries=3, keys=127),
    "decode_5": lambda n: make(n, Mask.causal().sink_window(4, 31), queries=5, keys=101, sink=True),
    "decode_8": lambda n: make(n, Mask.causal(), queries=8, keys=257, batch=1),
    "one_feature": lambda n: make(n, Mask.causal(), features=1, values=1),
    "odd_features": lambda n: make(n, Mask.causal(), features=37, values=11),
    "features_32": lambda n: make(n, Mask.causal(), features=32, values=32),
    "features_64": lambda n: make(n, Mask.causal(), features=64, values=64, spread=1.2),
    "features_128": lambda n: make(n, Mask.causal(), features=128, values=128, spread=1.2, batch=1),
    "features_256": lambda n: make(n, Mask.causal(), features=256, values=256, spread=1.2, batch=1),
    "wider_values": lambda n: make(n, Mask.full(), features=16, values=67),
    "no_groups": lambda n: make(n, Mask.causal(), key_heads=5, group=1),
    "one_key_head": lambda n: make(n, Mask.causal(), key_heads=1, group=7),
    "size_63": lambda n: make(n, Mask.causal(), queries=63, keys=63, batch=1, key_heads=1, group=3),
    "size_64": lambda n: make(n, Mask.causal(), queries=64, keys=64, batch=1, key_heads=1, group=3),
    "size_65": lambda n: make(n, Mask.causal(window=40), queries=65, keys=65, batch=1, key_heads=1, group=3),
    "size_63_by_65": lambda n: make(n, Mask.full(), queries=63, keys=65, batch=1, key_heads=1, group=3),
    "size_65_by_131": lambda n: make(
        n, Mask.causal().sink_window(3, 50), queries=65, keys=131, batch=1, key_heads=1, group=3
    ),
    "size_1000": lambda n: make(
        n, Mask.causal(), queries=1000, keys=1000, batch=1, key_heads=1, group=2, features=64, values=64
    ),
    # logits
    "hot_logits": lambda n: make(n, Mask.causal(), spread=8.0, queries=31, keys=31),
    "hot_logits_of_padding": lambda n: make(n, Mask.full(window=11).padded(left=_ints(5, 0)), spread=8.0),
    "hot_logits_and_sink": lambda n: make(n, Mask.causal(offset=-2), spread=8.0, sink=True),
    "hot_softcap": lambda n: make(n, Mask.causal(), spread=8.0, softcap=50.0),
    # edits
    "edit_scale_rows": lambda n: make(
        n, Mask.causal(), edit=lambda g: Edit(logit_scale=torch.rand(2, 6, 13, generator=g) * 2)
    ),
    "edit_scale_heads": lambda n: make(
        n,
        Mask.causal(offset=-2),
        edit=lambda g: Edit(logit_scale=torch.tensor([0.0, -1.0, 0.5, 2.0, 1.0, 0.0]).view(1, 6, 1)),
    ),
    "edit_key_bias": lambda n: make(n, Mask.causal(), edit=lambda g: Edit(key_bias=torch.randn(2, 1, 29, generator=g))),
    "edit_key_bias_hides": lambda n: make(
        n, Mask.causal(), edit=lambda g: Edit(key_bias=torch.zeros(1, 6, 29).masked_fill(_bits(g, 1, 6, 29), -INF))
    ),
    "edit_key_bias_hides_heads": lambda n: make(
        n,
        Mask.full(),
        edit=lambda g: Edit(key_bias=torch.tensor([0.0, -INF, 0.0, 1.0, 0.0, -INF]).view(1, 6, 1).expand(1, 6, 29)),
    ),
    "edit_factors": lambda n: make(
        n, Mask.causal(), edit=lambda g: Edit(sets=_sets(g, 6, 29, 4), factors=torch.rand(1, 6, 1, 5, generator=g) * 3)
    ),
    "edit_factors_of_rows": lambda n: make(
        n, Mask.causal(), edit=lambda g: Edit(sets=_sets(g, 1, 29, 1), factors=torch.rand(2, 1, 13, 2, generator=g))
    ),
    "edit_gate": lambda n: make(n, Mask.causal(), edit=lambda g: Edit(gate=torch.rand(1, 6, 1, generator=g))),
    "edit_gate_rows": lambda n: make(n, Mask.causal(), edit=lambda g: Edit(gate=torch.rand(2, 1, 13, generator=g))),
    "edit_everything": lambda n: make(n, _many, edit=_every_edit, softcap=4.0, sink=True),
    "edit_everything_dense": lambda n: make(n, _dense_lows, edit=_every_edit),
}

NAMES = tuple(_BUILDERS)
LARGE = ("size_1000",)
SMALL = tuple(name for name in NAMES if name not in LARGE)


@cache
def case(name: str, dtype: torch.dtype = torch.float32) -> Case:
    """The case of that name, q, k and v rounded to `dtype` (do not write to its tensors)."""
    return _BUILDERS[name](name) if dtype == torch.float32 else case(name).cast(dtype)


@st.composite
def problems(draw: st.DrawFn, largest: int = 37) -> Case:
    """Any combination of shapes, mask features, options and edits; every statistic is asked for."""
    batch, key_heads, group = (
        draw(st.sampled_from((1, 2, 3))),
        draw(st.sampled_from((1, 2, 3))),
        draw(st.sampled_from((1, 2, 3))),
    )
    sizes = [n for n in (1, 2, 5, 7, 8, 13, 17, 31, 37, 63, 64, 65) if n <= largest]
    queries, keys = draw(st.sampled_from(sizes)), draw(st.sampled_from(sizes))
    heads = key_heads * group
    seed = draw(st.integers(0, 2**31))
    offset = draw(st.one_of(st.none(), st.integers(-5, keys + 5)))
    window = draw(st.one_of(st.none(), st.integers(1, keys + 2)))
    causal = draw(st.booleans())
    parts = draw(
        st.sets(
            st.sampled_from(
                (
                    "left",
                    "right",
                    "documents",
                    "prefix",
                    "hide",
                    "hide_heads",
                    "sink_window",
                    "blocks",
                    "alibi",
                    "bool",
                    "bias",
                )
            ),
            max_size=4,
        )
    )
    edits = draw(st.sets(st.sampled_from(("logit_scale", "key_bias", "factors", "gate")), max_size=3))

    def build(g: torch.Generator) -> Mask:
        mask = Mask.causal(offset=offset, window=window) if causal else Mask.full(window=window, offset=offset or 0)

        def integers(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high, shape, generator=g)

        if parts & {"left", "right"}:
            mask = mask.padded(
                left=integers(0, keys // 2 + 2, batch) if "left" in parts else None,
                right=integers(0, keys // 2 + 1, batch) if "right" in parts else None,
            )
        if "documents" in parts:
            mask = mask.documents(integers(0, 3, batch, queries), integers(0, 3, keys))
        if "prefix" in parts:
            mask = mask.prefix(integers(0, keys + 1, batch))
        if "hide" in parts:
            mask = mask.hide(_bits(g, queries), _bits(g, batch, keys))
        if "hide_heads" in parts:
            mask = mask.hide(_bits(g, batch, queries), _bits(g, keys), heads=[heads - 1])
        if "sink_window" in parts:
            mask = mask.sink_window(integers(0, 4, heads), integers(1, keys + 2, heads))
        if "blocks" in parts:
            mask = mask.blocks(torch.rand(heads, -(-queries // 3), -(-keys // 5), generator=g) < 0.7, (3, 5))
        if "alibi" in parts:
            mask = mask.alibi(torch.rand(heads, generator=g))
        if "bool" in parts:
            mask = mask.biased(torch.rand(batch, 1, queries, keys, generator=g) < 0.8)
        if "bias" in parts:
            mask = mask.biased(torch.randn(1, heads, queries, keys, generator=g))
        return mask

    def edit(g: torch.Generator) -> Edit:
        some = {}
        if "logit_scale" in edits:
            some["logit_scale"] = torch.randn(batch, heads, queries, generator=g)
        if "key_bias" in edits:
            some["key_bias"] = torch.randn(1, heads, keys, generator=g).masked_fill(_bits(g, 1, heads, keys), -INF)
        if "factors" in edits:
            which = torch.randint(0, 3, (1, heads, 1, keys), generator=g)
            some |= {
                "sets": which == torch.arange(2)[:, None],
                "factors": torch.rand(batch, 1, queries, 3, generator=g),
            }
        if "gate" in edits:
            some["gate"] = torch.rand(batch, heads, 1, generator=g)
        return Edit(**some)

    return make(
        f"drawn {seed}: {'causal' if causal else 'full'}, offset {offset}, window {window}, {sorted(parts)}, edits {sorted(edits)}",
        build,
        batch=batch,
        key_heads=key_heads,
        group=group,
        queries=queries,
        keys=keys,
        features=draw(st.sampled_from((1, 3, 8, 16, 17))),
        values=draw(st.sampled_from((1, 4, 11, 16))),
        spread=draw(st.sampled_from((0.5, 2.0, 8.0))),
        edit=edit if edits else None,
        sink=draw(st.booleans()),
        softcap=draw(st.sampled_from((None, 3.0))),
    )
