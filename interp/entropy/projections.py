"""Where a model keeps its heads' query and key projections: which rows of which module's output.

Found by the names that Hugging Face's attention modules give their projections (`SEPARATE`, `FUSED`); modules that use other names are not
found, and what needs their weights says so or leaves a gap, it never guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from interp.capture.sites import attention_sites, unwrapped
from interp.models import sizes

SEPARATE: Final = (("q_proj", "k_proj"), ("query", "key"), ("q_lin", "k_lin"), ("q", "k"))
"""Names of a query and a key projection of their own."""
NORMS: Final = frozenset({"q_norm", "k_norm", "q_layernorm", "k_layernorm", "query_layernorm", "key_layernorm"})
"""Names of norms that an attention applies to its queries or keys."""

Cut = Callable[[int, int, int], tuple[Tensor, Tensor]]
"""(output features, heads, head size) -> output rows of the queries [head, size] and of the keys [group, size]."""


def thirds(features: int, heads: int, size: int) -> tuple[Tensor, Tensor]:
    """All queries, all keys, all values."""
    rows = torch.arange(features).view(3, heads, size)
    return rows[0], rows[1]


def interleaved(features: int, heads: int, size: int) -> tuple[Tensor, Tensor]:
    """Query, key and value of each head side by side."""
    rows = torch.arange(features).view(heads, 3, size)
    return rows[:, 0], rows[:, 1]


def stacked(features: int, heads: int, size: int) -> tuple[Tensor, Tensor]:
    """Queries of all heads, then keys, then values of all groups."""
    rows = torch.arange(features).view(-1, size)
    return rows[:heads], rows[heads : heads + (len(rows) - heads) // 2]


FUSED: Final[Mapping[str, Cut]] = MappingProxyType(
    {"c_attn": thirds, "query_key_value": interleaved, "qkv_proj": stacked}
)
"""Name of a joint projection -> how queries and keys lie in it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadProjection:
    """The queries (or keys) of one layer.

    Attributes:
        module: nn.Linear, or transformers' Conv1D.
        rows: which features of its output they are.
    """

    module: nn.Module
    rows: Int[Tensor, "head size"]

    @property
    def weight(self) -> Float[Tensor, "head width size"]:
        """W of every head, x W: a copy, in the module's dtype."""
        held: Any = self.module.weight
        outputs = held.T if isinstance(self.module, Conv1D) else held
        return outputs[self.rows.to(outputs.device)].mT


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryKey:
    """Query and key projection of one layer.

    Attributes:
        attention: the attention module.
        q, k: its projections.
        normed: whether queries or keys go through a norm of the model's own before they meet.
    """

    attention: nn.Module
    q: HeadProjection
    k: HeadProjection
    normed: bool

    def weights(self) -> tuple[Float[Tensor, "head width size"], Float[Tensor, "head width size"]]:
        """W_Q and W_K of every query head; heads of a group get the same W_K."""
        w_q, w_k = self.q.weight, self.k.weight
        return w_q, w_k.repeat_interleave(len(w_q) // len(w_k), 0)


def query_key(attention: nn.Module, heads: int) -> QueryKey | None:
    """The projections of one attention module with `heads` query heads; None where its names are not known."""
    children = {name: unwrapped(child) for name, child in attention.named_children()}
    normed = not NORMS.isdisjoint(children)
    for q_name, k_name in SEPARATE:
        if q_name in children and k_name in children:
            q, k = children[q_name], children[k_name]
            if _outputs(q) % heads:
                return None
            size = _outputs(q) // heads
            q_rows, k_rows = (torch.arange(_outputs(x)).view(-1, size) for x in (q, k))
            return QueryKey(
                attention=attention,
                q=HeadProjection(module=q, rows=q_rows),
                k=HeadProjection(module=k, rows=k_rows),
                normed=normed,
            )
    for name, cut in FUSED.items():
        if name in children:
            module = children[name]
            size = getattr(attention, "head_dim", None) or _outputs(module) // (3 * heads)
            q_rows, k_rows = cut(_outputs(module), heads, int(size))
            return QueryKey(
                attention=attention,
                q=HeadProjection(module=module, rows=q_rows),
                k=HeadProjection(module=module, rows=k_rows),
                normed=normed,
            )
    return None


def query_keys(hf: PreTrainedModel) -> dict[int, QueryKey]:
    """The projections of every self-attention (of the decoder, for an encoder-decoder) whose names are known, by layer."""
    sites = attention_sites(hf, encoder_decoder=sizes.is_encoder_decoder(hf.config))
    found: dict[int, QueryKey] = {}
    for module in hf.modules():
        site = sites.get(id(module))
        if site is None or site.kind != "self" or unwrapped(module) is not module:
            continue
        projections = query_key(module, sizes.heads(hf.config))
        if projections is not None:
            found.setdefault(site.layer, projections)
    return found


def _outputs(module: nn.Module) -> int:
    """Output features of a projection."""
    weight: Any = module.weight
    return int(weight.shape[1] if isinstance(module, Conv1D) else weight.shape[0])
