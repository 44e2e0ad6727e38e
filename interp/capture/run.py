"""`Run`: one forward pass of a hooked model: logits, statistics of every head, and lazy exact attention maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from interp.capture.inputs import TokenAxis
from interp.capture.record import LayerRecord
from interp.display import plot as draw
from interp.display import view as open_view
from interp.errors import CaptureError, OptionError, ShapeError
from interp.maps.attention_map import AttentionMap
from interp.maps.source import MapSource
from interp.stats.catalogue import find


class Capture:
    """What one kind of attention left behind: statistics by name, and attention maps by (layer, head).

    Attributes:
        layers: layer numbers of the model, labels of the layer axis.
        stats: statistic name -> float32 tensor, NaN where undefined: [layer, head, query], [layer, head, key] or [layer, head] for one
            text; with a batch axis after layer for several.
        rows, cols: token axes of queries and keys, None where there are no tokens.
    """

    def __init__(
        self, records: Mapping[int, LayerRecord], *, rows: TokenAxis | None, cols: TokenAxis | None, item: int | None
    ) -> None:
        self.layers = tuple(sorted(records))
        self.rows, self.cols = rows, cols
        self._records = {layer: records[layer] for layer in self.layers}
        self._item = item
        self.stats: dict[str, Tensor] = {name: self._stack(name) for name in self._names()}

    @property
    def heads(self) -> int:
        """Query heads of each layer."""
        return next(iter(self._records.values())).lse.shape[1]

    @property
    def attention(self) -> AttentionMaps:
        """Attention maps: ``attention[layer, head]``, by the model's own numbers."""
        if self._item is None:
            raise ShapeError("this run holds several texts; take one first: run[b].attention[layer, head]")
        return AttentionMaps(self, self._item)

    @property
    def backends(self) -> tuple[str, ...]:
        """Kernel backends that ran, in order of first use."""
        return tuple(dict.fromkeys(record.backend for record in self._records.values()))

    @property
    def frame(self) -> pd.DataFrame:
        """Tidy means over rows or keys: columns (text), layer, head, statistic, value, std, count; NaN values are left out."""
        parts = []
        for name, values in self.stats.items():
            axis = find([name])[0].axis
            x = values if axis != "prompt" else values[..., None]
            x = x.double()
            defined = ~x.isnan()
            count = defined.sum(-1)
            mean = x.nan_to_num().sum(-1) / count
            square = torch.where(defined, x - mean[..., None], 0.0).square().sum(-1)
            std = (square / (count - 1).clamp(min=1)).sqrt().where(count > 1, torch.nan)
            names = ["layer", "text", "head"] if self._item is None else ["layer", "head"]
            index = pd.MultiIndex.from_product([self.layers, *(range(n) for n in mean.shape[1:])], names=names)
            columns = {"value": mean, "std": std, "count": count}
            parts.append(
                pd.DataFrame({k: v.flatten().numpy() for k, v in columns.items()}, index=index)
                .reset_index()
                .assign(statistic=name)
            )
        if not parts:
            return pd.DataFrame(columns=["layer", "head", "statistic", "value", "std", "count"])
        order = [*parts[0].columns.drop(["statistic", "value", "std", "count"]), "statistic", "value", "std", "count"]
        return pd.concat(parts, ignore_index=True).loc[:, order]

    def select(self, item: int) -> Capture:
        """The capture of one text, without its padding."""
        return Capture(self._records, rows=self.rows, cols=self.cols, item=item)

    def record(self, layer: int) -> LayerRecord:
        """The record of one layer. Raises CaptureError if that layer was not captured."""
        if layer not in self._records:
            raise CaptureError(
                f"layer {layer} was not captured; captured layers are {list(self.layers)}; pass layers= to run"
            )
        return self._records[layer]

    def lengths(self, item: int) -> tuple[int, int]:
        """Real queries and keys of one text."""
        record = next(iter(self._records.values()))
        queries = len(self.rows.ids[item]) if self.rows else record.lse.shape[2]
        if self.cols:
            return queries, len(self.cols.ids[item])
        return queries, queries if record.k is None else record.k.shape[2]

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for record in self._records.values() for name in record.values))

    def _stack(self, name: str) -> Tensor:
        values = [record.values[name] for record in self._records.values()]
        stacked = torch.stack([x.to(values[0].device) for x in values])  # layers may lie on several devices
        if self._item is None:
            return stacked
        axis = find([name])[0].axis
        queries, keys = self.lengths(self._item)
        length = {"query": queries, "key": keys, "prompt": None}[axis]
        return stacked[:, self._item] if length is None else stacked[:, self._item, :, :length]


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Indexable by (layer, head), the model's own numbers; every map is lazy and exact."""

    capture: Capture
    item: int

    def __getitem__(self, index: tuple[int, int]) -> AttentionMap:
        """The attention map of one head."""
        layer, head = index
        c = self.capture
        record = c.record(layer)
        if record.q is None or record.k is None:
            raise CaptureError(
                'attention maps need the queries and keys, which keep="none" dropped; run again with keep="qk"'
            )
        heads, groups = record.q.shape[1], record.k.shape[1]
        if not 0 <= head < heads:
            raise OptionError(f"head {head} does not exist; layer {layer} has heads 0 to {heads - 1}")
        queries, keys = c.lengths(self.item)
        b, g = self.item, head // (heads // groups)
        whole = (record.q.shape[2], record.k.shape[2])
        source = MapSource(
            q=record.q[b : b + 1, head : head + 1, :queries],
            k=record.k[b : b + 1, g : g + 1, :keys],
            lse=record.lse[b : b + 1, head : head + 1, :queries],
            mask=record.mask.select(b, head).crop(queries, keys, of=whole),
            scale=record.scale if record.scale is not None else record.q.shape[3] ** -0.5,
            softcap=record.softcap,
            edit=None if record.edit is None else record.edit.select(b, head).crop(queries, keys),
        )
        names = [None if axis is None else axis.tokens[b] for axis in (c.rows, c.cols)]
        return AttentionMap(source, layer=layer, head=head, row_tokens=names[0], col_tokens=names[1])


class Run(Capture):
    """Result of `HookedModel.run`.

    The run itself is the capture of the decoder's (or the only) self-attention; an encoder-decoder's other attentions are `encoder`
    and `cross`.

    Attributes:
        logits: [token, vocabulary] for one text, [batch, token, vocabulary] for several (NaN at padding); one token with
            logits="last" ([vocabulary], [batch, vocabulary]); None with "none". Class logits for classifiers.
        ids: token ids, int64 [token], or a list of them; None without tokens.
        tokens: token strings, or a list of lists; untrusted text.
        encoder, cross: captures of an encoder-decoder, else None.
        manifest: what was run on what: model, tokenizer choice, ids' hash, settings, versions, backends.
    """

    def __init__(
        self,
        records: Mapping[int, LayerRecord],
        *,
        axis: TokenAxis | None,
        item: int | None,
        logits: Tensor | None,
        manifest: dict[str, Any],
        encoder: Capture | None = None,
        cross: Capture | None = None,
    ) -> None:
        super().__init__(records, rows=axis, cols=axis, item=item)
        self.logits = logits
        self.encoder = encoder
        self.cross = cross
        self.manifest = manifest

    @property
    def ids(self) -> Any:
        """Token ids: int64 [token] for one text, a list of such for several, None without tokens."""
        if self.rows is None:
            return None
        ids = [torch.tensor(x) for x in self.rows.ids]
        return ids if self._item is None else ids[self._item]

    @property
    def tokens(self) -> Any:
        """Token strings: a list for one text, a list of lists for several, None without tokens."""
        if self.rows is None:
            return None
        return self.rows.tokens if self._item is None else self.rows.tokens[self._item]

    def __len__(self) -> int:
        """Number of texts."""
        return 1 if self._item is not None else next(iter(self._records.values())).lse.shape[0]

    def __iter__(self) -> Iterator[Run]:
        """The runs of the single texts."""
        return (self[b] for b in range(len(self)))

    def __getitem__(self, item: int) -> Run:
        """The run of one text, without padding."""
        if self._item is not None:
            raise ShapeError("this run holds one text; run[b] is for runs of several")
        if not -len(self) <= item < len(self):
            raise ShapeError(f"text {item} does not exist; this run holds {len(self)} texts")
        b = item % len(self)
        logits = self.logits
        if logits is not None:
            logits = logits[b, : len(self.rows.ids[b])] if logits.ndim == 3 and self.rows is not None else logits[b]
        return Run(
            self._records,
            axis=self.rows,
            item=b,
            logits=logits,
            manifest=self.manifest,
            encoder=None if self.encoder is None else self.encoder.select(b),
            cross=None if self.cross is None else self.cross.select(b),
        )

    def __repr__(self) -> str:
        """Texts, tokens, layers, heads, statistics."""
        tokens = "" if self.rows is None else f", {sum(map(len, self.rows.ids))} tokens"
        return f"Run({len(self)} text(s){tokens}, {len(self.layers)} layers x {self.heads} heads, {len(self.stats)} statistics)"

    def plot(self, statistic: str = "entropy") -> object:
        """A layer x head heat map of one statistic, as a plotly figure."""
        return draw("heads", self.frame, statistic)

    def view(self, **options: object) -> object:
        """A grid of all heads to explore in a notebook: every statistic of this run."""
        return open_view("run", self, **options)
