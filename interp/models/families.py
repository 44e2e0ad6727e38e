"""Tiny configurations of every architecture family that interp is tested on, as data.

Sizes are chosen so that a swapped axis fails: where the architecture allows it every dimension is another number, heads are
grouped (6 query heads on 2 or 3 key heads), the head size is not hidden / heads, and sliding windows (8) are shorter than any
test's text. `interp.models.toy` gives the weights, which are random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from transformers import (
    BertConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    T5Config,
    ViTConfig,
    WhisperConfig,
)

VOCAB = 263
"""256 bytes and the seven special tokens of `SPECIALS`; a prime."""
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>", "<mask>", "<cls>", "<sep>")
"""Special tokens; a token's id is its place here, and byte b has some id in 7 .. 262."""
POSITIONS = 509
"""Longest text of the tiny text models, in tokens; a prime."""
WINDOW = 8
"""Sliding window of the families that have one, in tokens (the token itself included)."""

_IDS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

FamilyKind = Literal["decoder", "encoder", "vision", "encoder-decoder"]
Template = Literal["plain", "bos", "cls-sep", "eos"]


@dataclass(frozen=True, kw_only=True)
class FamilyToy:
    """How to build the tiny model of one family.

    Attributes:
        name: key in `FAMILIES`.
        kind: what runs: "decoder" (causal), "encoder" (text, both directions), "vision", "encoder-decoder".
        config: builds the configuration.
        model_class: name of the model class in transformers.
        template: special tokens that its tokenizer puts around a text.
        notes: what this family is in the tests for.
    """

    name: str
    kind: FamilyKind
    config: Callable[[], PreTrainedConfig]
    model_class: str
    template: Template = "plain"
    notes: str


def _also(**settings: int) -> dict[str, Any]:
    """Return settings that a configuration takes without declaring them."""
    return settings


def _gpt2() -> GPT2Config:
    return GPT2Config(vocab_size=VOCAB, n_positions=POSITIONS, n_embd=35, n_layer=3, n_head=5, n_inner=53, **_IDS)


def _gpt_neox() -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=VOCAB,
        max_position_embeddings=POSITIONS,
        hidden_size=60,
        num_hidden_layers=2,
        num_attention_heads=5,
        intermediate_size=71,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        **_IDS,
    )


def _opt() -> OPTConfig:
    return OPTConfig(
        vocab_size=VOCAB,
        max_position_embeddings=POSITIONS,
        hidden_size=35,
        word_embed_proj_dim=35,
        num_hidden_layers=3,
        num_attention_heads=5,
        ffn_dim=53,
        **_IDS,
    )


def _rotary(**sizes: int) -> dict[str, Any]:
    """Return the sizes shared by the Llama-like families, overridden by `sizes`."""
    shared: dict[str, Any] = {
        "vocab_size": VOCAB,
        "max_position_embeddings": POSITIONS,
        "hidden_size": 42,
        "intermediate_size": 67,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 10,
    }
    return shared | sizes | _IDS


def _llama() -> LlamaConfig:
    return LlamaConfig(**_rotary())


def _mistral() -> MistralConfig:
    return MistralConfig(**_rotary(num_hidden_layers=2, num_key_value_heads=3, sliding_window=WINDOW))


def _qwen2() -> Qwen2Config:
    sizes = _rotary(hidden_size=60)
    del sizes["head_dim"]
    return Qwen2Config(**sizes)


def _qwen3() -> Qwen3Config:
    return Qwen3Config(**_rotary())


def _gemma2() -> Gemma2Config:
    return Gemma2Config(
        **_rotary(num_key_value_heads=3, query_pre_attn_scalar=13, sliding_window=WINDOW),
        attn_logit_softcapping=7.0,
        final_logit_softcapping=11.0,
    )


def _gemma3() -> Gemma3TextConfig:
    return Gemma3TextConfig(
        **_rotary(query_pre_attn_scalar=13, sliding_window=WINDOW),
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    )


def _phi() -> PhiConfig:
    return PhiConfig(
        vocab_size=VOCAB,
        max_position_embeddings=POSITIONS,
        hidden_size=60,
        num_hidden_layers=2,
        num_attention_heads=5,
        intermediate_size=71,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        **_IDS,
    )


def _gpt_oss() -> GptOssConfig:
    # torch's grouped matrix product wants rows of a multiple of 16 bytes, hence the sizes divisible by 4
    sizes = _rotary(hidden_size=48, intermediate_size=28, num_hidden_layers=2, sliding_window=WINDOW)
    sizes["max_position_embeddings"] = 4 * 127
    return GptOssConfig(
        **sizes,
        num_local_experts=3,
        num_experts_per_tok=2,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 150000.0,
            "factor": 4.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 127,
        },
    )


def _bert() -> BertConfig:
    return BertConfig(
        vocab_size=VOCAB,
        max_position_embeddings=POSITIONS,
        hidden_size=35,
        num_hidden_layers=3,
        num_attention_heads=5,
        intermediate_size=53,
        pad_token_id=0,
    )


def _vit() -> ViTConfig:
    return ViTConfig(
        hidden_size=35,
        num_hidden_layers=3,
        num_attention_heads=5,
        intermediate_size=53,
        image_size=42,
        patch_size=7,
        num_channels=3,
        **_also(num_labels=11),
    )


def _whisper() -> WhisperConfig:
    return WhisperConfig(
        vocab_size=VOCAB,
        num_mel_bins=11,
        d_model=30,
        encoder_layers=2,
        encoder_attention_heads=5,
        encoder_ffn_dim=53,
        decoder_layers=3,
        decoder_attention_heads=3,
        decoder_ffn_dim=47,
        max_source_positions=31,
        max_target_positions=127,
        decoder_start_token_id=1,
        begin_suppress_tokens=None,
        **_IDS,
    )


def _t5() -> T5Config:
    return T5Config(
        vocab_size=VOCAB,
        d_model=38,
        d_kv=7,
        d_ff=53,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=5,
        relative_attention_num_buckets=12,
        relative_attention_max_distance=23,
        **_IDS,
        **_also(decoder_start_token_id=0),
    )


_ROWS = (
    FamilyToy(name="gpt2", kind="decoder", config=_gpt2, model_class="GPT2LMHeadModel",
              notes="learned positions, fused projections, LayerNorm"),
    FamilyToy(name="gpt_neox", kind="decoder", config=_gpt_neox, model_class="GPTNeoXForCausalLM",
              notes="partial rotary positions, parallel residual, interleaved fused projections"),
    FamilyToy(name="opt", kind="decoder", config=_opt, model_class="OPTForCausalLM", template="bos",
              notes="learned positions with an offset of 2, counted from the first token that is not padding"),
    FamilyToy(name="llama", kind="decoder", config=_llama, model_class="LlamaForCausalLM", template="bos",
              notes="rotary, grouped heads, head size apart from hidden / heads"),
    FamilyToy(name="mistral", kind="decoder", config=_mistral, model_class="MistralForCausalLM", template="bos",
              notes="sliding window in every layer"),
    FamilyToy(name="qwen2", kind="decoder", config=_qwen2, model_class="Qwen2ForCausalLM",
              notes="biases on queries, keys and values"),
    FamilyToy(name="qwen3", kind="decoder", config=_qwen3, model_class="Qwen3ForCausalLM",
              notes="norm on queries and keys"),
    FamilyToy(name="gemma2", kind="decoder", config=_gemma2, model_class="Gemma2ForCausalLM", template="bos",
              notes="soft-capped attention logits, sliding and full layers alternate, scale apart from the head size"),
    FamilyToy(name="gemma3", kind="decoder", config=_gemma3, model_class="Gemma3ForCausalLM", template="bos",
              notes="norm on queries and keys, window and rotary base by layer type"),
    FamilyToy(name="phi", kind="decoder", config=_phi, model_class="PhiForCausalLM",
              notes="partial rotary positions, attention and MLP in parallel"),
    FamilyToy(name="gpt_oss", kind="decoder", config=_gpt_oss, model_class="GptOssForCausalLM",
              notes="learned sink logits, sliding and full layers alternate, experts, YaRN"),
    FamilyToy(name="bert", kind="encoder", config=_bert, model_class="BertForMaskedLM", template="cls-sep",
              notes="no causal mask"),
    FamilyToy(name="vit", kind="vision", config=_vit, model_class="ViTForImageClassification",
              notes="patches (36 and a class token), no mask at all"),
    FamilyToy(name="whisper", kind="encoder-decoder", config=_whisper, model_class="WhisperForConditionalGeneration",
              notes="sound in, cross-attention; encoder and decoder have other numbers of heads"),
    FamilyToy(name="t5", kind="encoder-decoder", config=_t5, model_class="T5ForConditionalGeneration", template="eos",
              notes="relative position bias, unscaled logits, cross-attention"),
)  # fmt: skip

FAMILIES: dict[str, FamilyToy] = {row.name: row for row in _ROWS}
"""Every family by name."""
