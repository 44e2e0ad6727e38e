"""`output_weights`: W_O of every layer, found by what it reads: the linear module of an attention block that is given exactly the head outputs z.

No layout of a family is assumed; a model whose z passes a gate or a norm before W_O has no such module, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from interp.capture.call import Attended, AttentionCall
from interp.capture.sites import attention_sites, unwrapped
from interp.errors import UnsupportedModelError
from interp.models.hooked import HookedModel

PROBE_TOKENS = 5


@torch.no_grad()
def output_weights(model: HookedModel) -> dict[int, Tensor]:
    """W_O by layer, [head, d_head, d] in the model's dtype: z_h W_O[h], summed over heads, is what the attention adds (less its bias).

    Raises:
        UnsupportedModelError: in some layer no linear module reads exactly the head outputs.
    """
    latest: dict[int, Tensor] = {}
    found: dict[int, Tensor] = {}

    def take(call: AttentionCall, attended: Attended) -> None:
        latest[call.site.layer] = attended.out

    def watch(layer: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> None:
            z = latest.get(layer)
            if z is None or not given or not isinstance(given[0], Tensor):
                return
            flat = z.transpose(1, 2).flatten(2)
            if given[0].shape == flat.shape and torch.equal(given[0], flat.to(given[0])):
                weight: Any = module.weight
                rows = weight if isinstance(module, Conv1D) else weight.T
                found[layer] = rows.detach().unflatten(0, (z.shape[1], z.shape[3]))

        return hook

    handles = []
    sites = attention_sites(model.hf, encoder_decoder=model.is_encoder_decoder)
    for attention in model.hf.modules():
        site = sites.get(id(attention))
        if site is None or site.kind != "self" or unwrapped(attention) is not attention:
            continue
        for child in attention.modules():
            if isinstance(child, nn.Linear | Conv1D):
                handles.append(child.register_forward_pre_hook(watch(site.layer)))
    embedding: Any = model.hf.get_input_embeddings()
    vocabulary = int(embedding.weight.shape[0])
    try:
        model.probe([(k + 1) * vocabulary // (PROBE_TOKENS + 2) for k in range(PROBE_TOKENS)], take)
    finally:
        for handle in handles:
            handle.remove()
    if missing := sorted(set(range(model.layers)) - set(found)):
        raise UnsupportedModelError(
            f"{type(model.hf).__name__}: in layers {missing} no linear module reads the head outputs as they are, "
            "so what a head writes cannot be told"
        )
    return dict(sorted(found.items()))
