"""Direct feature attribution (DFA): what each head, and each source token through each head, adds to a feature's pre-activation.

With the attention pattern A held, z_h(t) = sum over s of A_h[t, s] v_h(s), so with w_h the rows of the encoder's column that belong to head h
(see `interp.saes.attribution.reading`),

    a_h(t, s) = A_h[t, s] (v_h(s) . w_h)        sum over h and s of a_h(t, s) + bias = pre-activation          (Kissane et al. 2024)

exactly; v_h is that of the head's group under grouped-query attention. The cheap order: u = v . w first, [source, head], then times rows of A,
which come back exactly from (q, k, lse) for the tokens asked for and no others: O(tokens asked x heads x sources), never N x N. Attention to a
sink moves little information and much mass, so every attribution also comes without the sinks (position 0 unless named).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.capture.call import Attended, AttentionCall
from interp.errors import EditError, OptionError
from interp.maps.attention_map import AttentionMap
from interp.maps.source import MapSource
from interp.models.hooked import HookedModel
from interp.saes.attribution import reading
from interp.saes.core import SAE

PAIRS = 1024
"""(Token, feature) pairs attributed at a time: 1,024 x 9 heads x 128 sources of float32 take 5 MB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TextHeads:
    """What the heads of one layer read and gave on one text: O(N) numbers from which any attribution comes back.

    Attributes:
        layer: which.
        ids: of the text.
        z: head outputs before W_O, [token, head, d_head], in float32 or wider.
        values: v of each head's group, [head, token, d_head] (views for heads that share one).
        maps: attention map of each head, lazy and exact.
    """

    layer: int
    ids: tuple[int, ...]
    z: Tensor
    values: Tensor
    maps: tuple[AttentionMap, ...]

    @property
    def flat(self) -> Tensor:
        """z as an autoencoder reads it, [token, head x d_head]."""
        return self.z.flatten(1)

    def weights(self, tokens: Sequence[int] | Tensor) -> Tensor:
        """Rows of every head's attention map for some query tokens, [token asked, head, source]; only these are computed."""
        asked = torch.as_tensor(tokens, dtype=torch.int64).tolist()
        runs = _runs(asked)
        rows = [torch.cat([amap[first:stop, :] for first, stop in runs]) for amap in self.maps]
        return torch.stack(rows, 1).to(self.z)


def text_heads(model: HookedModel, ids: Sequence[int], layer: int) -> TextHeads:
    """Run one text and keep what the attributions of one layer need.

    Raises:
        EditError: an intervention in force acts behind the softmax of this layer, where the map no longer tells what a head reads.
    """
    return text_layers(model, ids, [layer])[layer]


@torch.no_grad()
def text_layers(model: HookedModel, ids: Sequence[int], layers: Sequence[int]) -> dict[int, TextHeads]:
    """`text_heads` of several layers in one pass."""
    found: dict[int, TextHeads] = {}

    def take(call: AttentionCall, attended: Attended) -> None:
        found[call.site.layer] = heads_of(call, attended, tuple(int(i) for i in ids))

    model.probe([list(ids)], take, layers=list(layers))
    return found


def heads_of(call: AttentionCall, attended: Attended, ids: tuple[int, ...]) -> TextHeads:
    """What attributions need of one finished call of a single text."""
    if call.edit is not None and (call.edit.factors is not None or call.edit.gate is not None):
        raise EditError(
            f"layer {call.site.layer}: an intervention in force weighs attention behind the softmax (set-wise factors or a gate), so "
            "rows of the map do not say what the heads read; attribute without it"
        )
    group = torch.arange(call.heads) // call.group
    z, v = (x.detach().to(call.work_dtype) for x in (attended.out[0].transpose(0, 1), call.v[0]))
    return TextHeads(
        layer=call.site.layer,
        ids=ids,
        z=z,
        values=v[group],
        maps=tuple(_map(call, attended, h) for h in range(call.heads)),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribution:
    """DFA of (token, feature) pairs of one text.

    Attributes:
        tokens, features: the pairs, int64 [pair].
        by_head: sum over sources, from z itself, [pair, head].
        by_source: sum over heads, from v and rows of the map, [pair, source].
        sinks_by_head: what came from the sink positions, [pair, head].
        bias: what no head adds, [pair].
        sinks: the positions counted as sinks.
    """

    tokens: Tensor
    features: Tensor
    by_head: Tensor
    by_source: Tensor
    sinks_by_head: Tensor
    bias: Tensor
    sinks: tuple[int, ...]

    @property
    def pre_activation(self) -> Tensor:
        """Of each pair, [pair]: by_head summed, plus bias. A feature that fires has this value."""
        return self.by_head.sum(1) + self.bias

    @property
    def remainder(self) -> Tensor:
        """What the sources miss of the heads' sum, [pair]: rounding, unless something changed z behind the attention."""
        return self.by_head.sum(1) - self.by_source.sum(1)

    @property
    def by_head_without_sinks(self) -> Tensor:
        """`by_head` less what came from the sinks, [pair, head]."""
        return self.by_head - self.sinks_by_head

    @property
    def by_source_without_sinks(self) -> Tensor:
        """`by_source` with 0 at the sinks, [pair, source]."""
        out = self.by_source.clone()
        out[:, list(self.sinks)] = 0.0
        return out

    @property
    def sink_share(self) -> Tensor:
        """Share of the sinks in the sum of |by_source|, [pair]."""
        size = self.by_source.abs()
        return size[:, list(self.sinks)].sum(1) / size.sum(1)


@torch.no_grad()
def attribute(
    sae: SAE,
    text: TextHeads,
    tokens: Sequence[int] | Tensor,
    features: Sequence[int] | Tensor,
    *,
    sinks: Sequence[int] = (0,),
) -> Attribution:
    """Attribute pre-activations of pairs (tokens[p], features[p]) to heads and to source tokens.

    Args:
        sae: of the text's layer.
        text: see `text_heads`.
        tokens, features: of equal length, in any order; see `firing` for those that fire.
        sinks: source positions to count as sinks, empty for none.

    Raises:
        OptionError: lists of unequal length, or numbers that do not exist.
    """
    at, which = (torch.as_tensor(x, dtype=torch.int64) for x in (tokens, features))
    n = len(text.ids)
    if at.shape != which.shape or (len(at) and not 0 <= int(at.min()) <= int(at.max()) < n):
        raise OptionError(f"tokens and features: wanted pairs with tokens from 0 to {n - 1}, got {at.tolist()[:5]} ...")
    if bad := [s for s in sinks if not 0 <= s < n]:
        raise OptionError(f"sinks: wanted positions from 0 to {n - 1}, got {bad}")
    distinct, feature = which.unique(return_inverse=True)
    rows, row = at.unique(return_inverse=True)
    read = reading(sae, len(text.maps), distinct)
    columns, scale = read.columns.to(text.z), read.scale(text.flat)[at]
    u = torch.einsum("hsd,hdf->fhs", text.values, columns)
    z = torch.einsum("nhd,hdf->fnh", text.z[rows], columns)
    weights = text.weights(rows)
    by_source, sunk = [], []
    for part in torch.arange(len(at)).split(PAIRS):
        both = weights[row[part]] * u[feature[part]] * scale[part, None, None]
        by_source.append(both.sum(1))
        sunk.append(both[..., list(sinks)].sum(-1))
    return Attribution(
        tokens=at,
        features=which,
        by_head=z[feature, row] * scale[:, None],
        by_source=torch.cat(by_source) if by_source else u.new_zeros(0, n),
        sinks_by_head=torch.cat(sunk) if sunk else u.new_zeros(0, len(text.maps)),
        bias=read.bias.to(text.z)[feature],
        sinks=tuple(int(s) for s in sinks),
    )


@torch.no_grad()
def attribution_map(sae: SAE, text: TextHeads, token: int, feature: int) -> Tensor:
    """DFA of one feature at one token by head and source together, [head, source]; its sum and the bias make the pre-activation.

    Raises:
        OptionError: a feature or token that does not exist.
    """
    n = len(text.ids)
    if not 0 <= token < n:
        raise OptionError(f"token: wanted a position from 0 to {n - 1}, got {token}")
    read = reading(sae, len(text.maps), [feature])
    u = torch.einsum("hsd,hd->hs", text.values, read.columns[..., 0].to(text.z))
    return text.weights([token])[0] * u * read.scale(text.flat)[token]


@torch.no_grad()
def firing(sae: SAE, text: TextHeads, *, first: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Every (token, feature) that fires from token `first` on, and its value: int64 [pair], int64 [pair], [pair]."""
    codes = sae.encode(text.flat)
    codes[:first] = 0.0
    tokens, features = codes.nonzero(as_tuple=True)
    return tokens, features, codes[tokens, features]


def _map(call: AttentionCall, attended: Attended, head: int) -> AttentionMap:
    one = call.head(head)
    source = MapSource(
        q=one.q.detach(),
        k=one.k.detach(),
        lse=attended.lse[:, head : head + 1].detach(),
        mask=one.mask,
        scale=one.q.shape[3] ** -0.5 if one.scale is None else one.scale,
        softcap=one.softcap,
        edit=one.edit,
    )
    return AttentionMap(source, layer=call.site.layer, head=head)


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Half-open ranges of consecutive numbers, in order."""
    runs: list[tuple[int, int]] = []
    for n in numbers:
        if runs and runs[-1][1] == n:
            runs[-1] = (runs[-1][0], n + 1)
        else:
            runs.append((n, n + 1))
    return runs
