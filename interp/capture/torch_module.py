"""`nn.MultiheadAttention` as the kernels take it: its projections, added keys and masks, by the definition of torch's own function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from interp.errors import CaptureError
from interp_kernels import Mask


def heads_of_module(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    *,
    key_padding_mask: Tensor | None = None,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    **rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Mask, float | None]:
    """Queries, keys and values [B, H, N, D] and the mask of a call of ``F.multi_head_attention_forward`` (its arguments).

    The projections are made once more, because the function does not show its own: a monitored step pays for them.

    Returns:
        q, k, v, the mask, and None for the scale, which is D ** -0.5.

    Raises:
        CaptureError: static keys or values, which no module passes.
    """
    if static_k is not None or static_v is not None:
        raise CaptureError("it passes static keys or values, which are not watched")
    if query.ndim == 2:
        query, key, value = (x.unsqueeze(1) for x in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    if use_separate_proj_weight:
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
    else:
        weights = (None,) * 3 if in_proj_weight is None else in_proj_weight.chunk(3)
    biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
    q, k, v = (
        F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True) if w is not None
    )  # [token, batch, width]
    batch, added = query.shape[1], 0
    if bias_k is not None and bias_v is not None:
        k, v, added = torch.cat([k, bias_k.repeat(1, batch, 1)]), torch.cat([v, bias_v.repeat(1, batch, 1)]), 1
    if add_zero_attn:
        k, v, added = (*(torch.cat([x, x.new_zeros(1, batch, x.shape[2])]) for x in (k, v)), added + 1)
    q, k, v = (x.unflatten(2, (num_heads, -1)).permute(1, 2, 0, 3) for x in (q, k, v))
    return q, k, v, _mask(attn_mask, key_padding_mask, q, k, added=added), None


def _mask(attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor, k: Tensor, *, added: int) -> Mask:
    """Both masks, in this module's convention (bool: True = hidden, or additive), joined; added keys are visible to all."""
    batch, heads, queries, keys = q.shape[0], q.shape[1], q.shape[2], k.shape[2]
    bias = None
    if attn_mask is not None:
        shape = (1, 1) if attn_mask.ndim == 2 else (batch, heads)
        bias = _additive(attn_mask, q.dtype).view(*shape, queries, keys - added)
    if key_padding_mask is not None:
        padding = _additive(key_padding_mask, q.dtype)[:, None, None]
        bias = padding.expand(-1, -1, queries, -1) if bias is None else bias + padding
    return Mask.full() if bias is None else Mask.dense(F.pad(bias, (0, added)))


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask of the module as what is added to the logits."""
    if mask.dtype != torch.bool:
        return mask.detach().to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(mask, -torch.inf)
