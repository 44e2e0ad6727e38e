"""The TransformerLens bridge around a hooked model, with attention that stays fused while nobody asks for the N x N pattern.

The bridge replaces submodules of the Hugging Face model in place and recomputes attention eagerly to offer `hook_pattern` and
`hook_attn_scores`. Here each of its attention components runs the original Hugging Face attention (through `interp_kernels`) until one of
the hooks that only the eager path can serve is in use; then the bridge's own path runs, with a dense mask.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from interp.capture.masks import as_dense


def build_bridge(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, name: str) -> TransformerBridge | None:
    """Wrap `hf` in place; None where TransformerLens has no adapter for the architecture."""
    architecture = type(hf).__name__
    if architecture not in SUPPORTED_ARCHITECTURES:
        return None
    bridge = build_bridge_from_module(
        hf, architecture, hf_config=copy.deepcopy(hf.config), tokenizer=_as_it_is(tokenizer, name), model_name=name
    )
    # TransformerLens would put a BOS token before every text and strip an EOS token; the tokenizer's own choice stands.
    bridge.cfg.default_prepend_bos = bridge.cfg.tokenizer_prepends_bos
    bridge.cfg.tokenizer_appends_eos = False
    for component in bridge.modules():
        if isinstance(component, AttentionBridge) and component.original_component is not None:
            _delegate(component)
    return bridge


def _as_it_is(tokenizer: PreTrainedTokenizerBase | None, name: str) -> PreTrainedTokenizerBase | None:
    """A copy for the bridge, which sets tokens on it and would load it anew, by name, to make it add BOS tokens."""
    if tokenizer is None:
        return None
    copied = copy.deepcopy(tokenizer)
    copied.init_kwargs |= {"name_or_path": name, "add_bos_token": True}
    return copied


def _delegate(component: AttentionBridge) -> None:
    """Let one attention component run its Hugging Face attention while only hooks on that path are in use."""
    inside = {id(m) for m in component.original_component.modules()}
    own = [m for m in component.modules() if isinstance(m, HookPoint) and id(m) not in inside]
    eager_only = [m for m in own if m is not component.hook_in and m is not component.hook_out]
    eager_forward = component.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if any(point.fwd_hooks or point.bwd_hooks for point in eager_only) or _splits_inputs(component):
            hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            kwargs["attention_mask"] = _dense(kwargs.get("attention_mask"), component, hidden, kwargs)
            return eager_forward(*args, **kwargs)
        return AttentionBridge.forward(component, *args, **kwargs)

    # A plain assignment would go to the module that the component wraps; the instance's own __dict__ is what nn.Module calls.
    object.__setattr__(component, "forward", forward)


def _splits_inputs(component: AttentionBridge) -> bool:
    config = component.config
    return bool(getattr(config, "use_split_qkv_input", False) or getattr(config, "use_attn_in", False))


def _dense(mask: Any, component: nn.Module, hidden: torch.Tensor, kwargs: dict[str, Any]) -> Any:
    """The additive mask [B, 1 or H, Nq, Nk] that eager attention expects; what is no structural mask of ours stays as it is."""
    cache = kwargs.get("past_key_values")
    past = 0 if cache is None else int(cache.get_seq_length(component.original_component.layer_idx))
    queries = hidden.shape[1]
    sizes = (hidden.shape[0], int(component.config.n_heads), queries, queries + past)
    return as_dense(mask, sizes, hidden.dtype, hidden.device)
