"""The TransformerLens bridge around a hooked model, with attention that stays fused while nobody asks for the N x N pattern.

The bridge replaces submodules of the Hugging Face model in place and recomputes attention eagerly to offer `hook_pattern` and
`hook_attn_scores`. Here each of its attention components runs the original Hugging Face attention (through `interp_kernels`) until one of
the hooks that only the eager path can serve is in use; then the bridge's own path runs, with a dense mask.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from interp.capture.attend import is_listened
from interp.capture.masks import as_dense
from interp.errors import CaptureError


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
    original = component.original_component
    assert original is not None, "build_bridge passes components that wrap something"
    wrappers = {id(c.original_component): c for c in component.children() if isinstance(c, GeneralizedComponent)}
    for name, child in list(original.named_children()):
        if id(child) in wrappers:
            # GPT-2's output projection is wrapped but left in its place, so hook_z would be deaf on the fused path.
            setattr(original, name, wrappers[id(child)])
    inside = {id(m) for m in original.modules()}
    configs = {id(c): c for m in original.modules() if isinstance(c := getattr(m, "config", None), PreTrainedConfig)}
    own = [m for m in component.modules() if isinstance(m, HookPoint) and id(m) not in inside]
    eager_only = [m for m in own if m is not component.hook_in and m is not component.hook_out]
    eager_forward = component.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if any(point.fwd_hooks or point.bwd_hooks for point in eager_only) or _splits_inputs(component):
            if is_listened():
                raise CaptureError(
                    "hooks that only the bridge's eager attention serves are in use (hook_pattern, hook_attn_scores, hook_rot_q ...; "
                    "hook_q, hook_k, hook_v of fused projections), so this run cannot measure; call model.bridge.reset_hooks() first"
                )
            sizes = _sizes(component, args, kwargs)
            # The mask comes by position in some families, by name in others.
            args = tuple(as_dense(x, *sizes) for x in args)
            kwargs = {name: as_dense(x, *sizes) for name, x in kwargs.items()}
            with _eager(list(configs.values())):
                return eager_forward(*args, **kwargs)
        return AttentionBridge.forward(component, *args, **kwargs)

    # A plain assignment would go to the module that the component wraps; the instance's own __dict__ is what nn.Module calls.
    object.__setattr__(component, "forward", forward)


def _splits_inputs(component: AttentionBridge) -> bool:
    config = component.config
    return bool(getattr(config, "use_split_qkv_input", False) or getattr(config, "use_attn_in", False))


@contextmanager
def _eager(configs: Sequence[PreTrainedConfig]) -> Iterator[None]:
    """Hugging Face's own eager attention, for the components that run it and read the pattern off its output (OPT, BERT, ViT, T5)."""
    before = [(config, config._attn_implementation) for config in configs]
    try:
        for config in configs:
            config._attn_implementation = "eager"
        yield
    finally:
        for config, name in before:
            config._attn_implementation = name


def _sizes(
    component: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[int, int, int, int], torch.dtype, torch.device]:
    """(B, H, Nq, Nk), dtype and device of the dense mask that eager attention expects in this call."""
    hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
    cache = next((kwargs[name] for name in ("past_key_values", "layer_past") if kwargs.get(name) is not None), None)
    queries = keys = hidden.shape[1]
    if kwargs.get("key_value_states") is not None:
        keys = kwargs["key_value_states"].shape[1]
    elif cache is not None:
        # Sliding layers of a cache drop keys: the number of tokens seen is not the number of keys.
        keys = int(cache.get_mask_sizes(queries, component.original_component.layer_idx)[0])
    return (hidden.shape[0], int(component.config.n_heads), queries, keys), hidden.dtype, hidden.device
