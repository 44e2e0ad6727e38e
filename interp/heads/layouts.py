"""Where each family of Hugging Face decoders keeps the weights of a block, as data: one row per way of naming and fusing them.

A row fits a model when every path in it is there; `interp.heads.weights` then proves the reading on a small input, so that a
family that happens to use the same names for another computation is refused, never misread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Cut = Callable[[Tensor, int, int], Tensor]
"""(fused outputs [n, columns], query heads, value size) -> value columns [n, groups, value size]."""


def separate(x: Tensor, heads: int, size: int) -> Tensor:
    """Columns of a projection to values alone: head after head."""
    return x.unflatten(1, (-1, size))


def thirds(x: Tensor, heads: int, size: int) -> Tensor:
    """The last of three equal parts: all queries, all keys, all values."""
    return x[:, 2 * heads * size :].unflatten(1, (-1, size))


def stacked(x: Tensor, heads: int, size: int) -> Tensor:
    """The last part of queries (of all heads), keys and values (of all groups)."""
    groups = (x.shape[1] // size - heads) // 2
    return x[:, (heads + groups) * size :].unflatten(1, (-1, size))


def interleaved(x: Tensor, heads: int, size: int) -> Tensor:
    """Query, key and value of each head side by side."""
    return x.unflatten(1, (heads, 3, size))[:, :, 2]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Module paths of one family.

    Attributes:
        name: of the row, for messages and manifests.
        blocks: path of the list of blocks in the model.
        final_norm: path of the norm before the unembedding, in the model.
        attention: path of the attention in a block; `values` and `output` are paths in it.
        values: projection whose outputs hold the values.
        cut: takes the values out of it.
        output: projection W_O.
        attention_norm: path in a block of the norm before the attention.
        mlp: paths in a block of the modules that make up the MLP, applied in turn.
        mlp_norm: norm before the MLP.
        after_attention, after_mlp: norms of the two outputs before they are added to the stream, None without.
        parallel: config flag that tells whether MLP and attention read the same stream; True or False where no flag decides.
    """

    name: str
    blocks: str
    final_norm: str
    attention: str
    values: str
    cut: Cut
    output: str
    attention_norm: str
    mlp: tuple[str, ...] = ("mlp",)
    mlp_norm: str
    after_attention: str | None = None
    after_mlp: str | None = None
    parallel: str | bool = False


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="gpt2",
        blocks="transformer.h",
        final_norm="transformer.ln_f",
        attention="attn",
        values="c_attn",
        cut=thirds,
        output="c_proj",
        attention_norm="ln_1",
        mlp_norm="ln_2",
    ),
    Layout(
        name="gpt_neox",
        blocks="gpt_neox.layers",
        final_norm="gpt_neox.final_layer_norm",
        attention="attention",
        values="query_key_value",
        cut=interleaved,
        output="dense",
        attention_norm="input_layernorm",
        mlp_norm="post_attention_layernorm",
        parallel="use_parallel_residual",
    ),
    Layout(
        name="opt",
        blocks="model.decoder.layers",
        final_norm="model.decoder.final_layer_norm",
        attention="self_attn",
        values="v_proj",
        cut=separate,
        output="out_proj",
        attention_norm="self_attn_layer_norm",
        mlp=("fc1", "activation_fn", "fc2"),
        mlp_norm="final_layer_norm",
    ),
    # before "llama", whose name post_attention_layernorm means something else
    Layout(
        name="gemma",
        blocks="model.layers",
        final_norm="model.norm",
        attention="self_attn",
        values="v_proj",
        cut=separate,
        output="o_proj",
        attention_norm="input_layernorm",
        mlp_norm="pre_feedforward_layernorm",
        after_attention="post_attention_layernorm",
        after_mlp="post_feedforward_layernorm",
    ),
    Layout(
        name="llama",
        blocks="model.layers",
        final_norm="model.norm",
        attention="self_attn",
        values="v_proj",
        cut=separate,
        output="o_proj",
        attention_norm="input_layernorm",
        mlp_norm="post_attention_layernorm",
    ),
    Layout(
        name="phi3",
        blocks="model.layers",
        final_norm="model.norm",
        attention="self_attn",
        values="qkv_proj",
        cut=stacked,
        output="o_proj",
        attention_norm="input_layernorm",
        mlp_norm="post_attention_layernorm",
    ),
    Layout(
        name="phi",
        blocks="model.layers",
        final_norm="model.final_layernorm",
        attention="self_attn",
        values="v_proj",
        cut=separate,
        output="dense",
        attention_norm="input_layernorm",
        mlp_norm="input_layernorm",
        parallel=True,
    ),
)
"""Every layout, in the order in which they are tried. "llama" also fits Mistral, Qwen, gpt-oss, Gemma 1 and many more."""
