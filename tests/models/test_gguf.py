"""GGUF files: written here the way llama.cpp's converter does, read back, damaged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGUFWriter, TokenType
from tokenizers import pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from interp.errors import CorruptFileError, ModelNotFoundError, UnsupportedModelError
from interp.models.cache import file_sha256
from interp.models.load import read

MERGES = ["Ġ Ġ", "Ċ Ċ", "h e", "Ġ t"]


def vocabulary():
    """Special tokens, then the byte symbols, then what the merges make."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    return ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *symbols, *(merge.replace(" ", "") for merge in MERGES)]


def interleave(weight, heads):
    """Reorder the rows of a query or key projection from transformers' rotary halves to GGUF's neighbouring pairs."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def write_llama(path, hf, *, rule="smollm", architecture="llama"):
    """Write `hf` (a LlamaForCausalLM with tied or free embeddings) with float32 weights and a byte-level tokenizer."""
    config = hf.config
    out = GGUFWriter(path, architecture)
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_rope_dimension_count(config.head_dim)
    out.add_rope_freq_base(config.rope_parameters["rope_theta"])
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_vocab_size(config.vocab_size)
    tokens = vocabulary()
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(rule)
    out.add_token_list(tokens)
    out.add_token_types([TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (len(tokens) - 3))
    out.add_token_merges(MERGES)
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_add_bos_token(False)
    weights = {name: value.detach().numpy().astype(np.float32) for name, value in hf.state_dict().items()}
    out.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    out.add_tensor("output_norm.weight", weights["model.norm.weight"])
    out.add_tensor("output.weight", weights["lm_head.weight"])
    names = {
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    for layer in range(config.num_hidden_layers):
        for ours, theirs in names.items():
            weight = weights[f"model.layers.{layer}.{ours}.weight"]
            if theirs == "attn_q":
                weight = interleave(weight, config.num_attention_heads)
            elif theirs == "attn_k":
                weight = interleave(weight, config.num_key_value_heads)
            out.add_tensor(f"blk.{layer}.{theirs}.weight", np.ascontiguousarray(weight))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


@pytest.fixture
def llama():
    """A small Llama whose axes all differ."""
    config = LlamaConfig(
        vocab_size=len(vocabulary()),
        hidden_size=48,
        intermediate_size=59,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=127,
        rope_parameters={"rope_type": "default", "rope_theta": 50000.0},
        rms_norm_eps=1e-5,
    )
    hf = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for weight in hf.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return hf


@pytest.fixture
def file(llama, tmp_path):
    path = tmp_path / "small.gguf"
    write_llama(path, llama)
    return path


@torch.no_grad()
def test_logits_source_and_tokenizer_of_a_gguf_file(file, llama):
    parts = read(file)
    ids = torch.arange(5, 36)[None]
    assert torch.equal(parts.hf(ids).logits, llama(ids).logits)
    assert not parts.hf.training
    assert parts.source.record() == {
        "name": "small.gguf", "kind": "gguf", "revision": None, "sha256": file_sha256(file),
    }  # fmt: skip
    assert parts.tokenizer.model_max_length == 127
    assert parts.tokenizer.bos_token == "<|im_start|>"
    assert parts.tokenizer("<|im_end|>").input_ids == [2]
    half = read(file, dtype=torch.bfloat16).hf
    assert half.dtype == torch.bfloat16
    half.save_pretrained(file.parent / "again")  # plain tensors: nothing of the file's packing is left


@pytest.mark.parametrize(
    ("rule", "pieces"),
    [
        (
            "smollm",
            ["h", "Ġ", "1", "2", "ĠĠ", "3", "ĊĊ", "4"],
        ),  # every digit alone, so white space before one stays whole
        ("gpt-2", ["h", "Ġ", "1", "2", "Ġ", "Ġ", "3", "Ċ", "Ċ", "4"]),  # the last blank goes with the digits
    ],
)
def test_text_is_split_by_the_rule_that_the_file_names(rule, pieces, llama, tmp_path):
    write_llama(tmp_path / "m.gguf", llama, rule=rule)
    tokenizer = read(tmp_path / "m.gguf").tokenizer
    text = "h 12  3\n\n4"
    assert tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids) == pieces
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_an_unknown_splitting_rule_is_told(llama, tmp_path, caplog):
    write_llama(tmp_path / "m.gguf", llama, rule="of-my-own")
    read(tmp_path / "m.gguf")
    assert "of-my-own" in caplog.text


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.03, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_corrupt(share, file):
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CorruptFileError, match=r"small\.gguf"):
        read(file)


def test_a_file_of_another_kind_is_corrupt(file):
    file.write_bytes(b"PK\3\4" + bytes(1000))
    with pytest.raises(CorruptFileError, match="does not begin with the letters GGUF"):
        read(file)


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"no file .*none\.gguf"):
        read(tmp_path / "none.gguf")


def test_an_architecture_that_transformers_does_not_know(llama, tmp_path):
    write_llama(tmp_path / "m.gguf", llama, architecture="grok-9")
    with pytest.raises(UnsupportedModelError, match="'grok-9'"):
        read(tmp_path / "m.gguf")
