"""A model whose layers accelerate keeps elsewhere (here: on the disk) is measured like one that is whole."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from interp.batch.scan import scan
from interp.models.hooked import wrap
from interp.models.toy import tiny

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen. " * 6


def test_layers_on_the_disk(tmp_path: Path) -> None:
    whole = tiny("llama")
    whole.hf.save_pretrained(tmp_path / "model")
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    places |= {f"model.layers.{n}": "cpu" if n == 0 else "disk" for n in range(whole.layers)}
    hf = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype=torch.float32, device_map=places, offload_folder=str(tmp_path / "offload")
    )
    assert next(hf.model.layers[1].parameters()).device.type == "meta", "accelerate kept the layer in memory"
    settings = {"context": 64, "shard": 2, "thumbnails": 0}
    there = scan(wrap(hf.eval(), whole.tokenizer), TEXT, out=tmp_path / "offloaded", **settings)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    here = scan(wrap(plain.eval(), whole.tokenizer), TEXT, out=tmp_path / "whole", **settings)
    assert there.manifest["key"] == here.manifest["key"]
    assert len(there.frame) == len(here.frame) > 100
    assert there.frame.equals(here.frame)
