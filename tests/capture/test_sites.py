"""Which attention of which layer every call comes from, for every family and through the bridge as well."""

from __future__ import annotations

import pytest
from attention_truth import hear, hooked
from torch import nn

from interp.capture.sites import Site, attention_sites
from interp.models.families import FAMILIES
from interp.models.toy import tiny_inputs

LAYERS = {
    "gpt2": 3, "gpt_neox": 2, "opt": 3, "llama": 3, "mistral": 2, "qwen2": 3, "qwen3": 3, "gemma2": 3, "gemma3": 3,
    "phi": 2, "gpt_oss": 2, "bert": 3, "vit": 3,
}  # fmt: skip


def wanted(family):
    if family in LAYERS:
        return [Site("self", layer) for layer in range(LAYERS[family])]
    encoder = [Site("encoder", layer) for layer in range(2)]
    return encoder + [Site(kind, layer) for layer in range(3) for kind in ("self", "cross")]


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("bridged", [False, True], ids=["plain", "bridge"])
def test_every_call_knows_its_layer(family, bridged):
    model = hooked(family)
    if bridged:
        assert (model.bridge is None) == (family == "whisper")
    heard = [call.site for call, _ in hear(model, tiny_inputs(family))]
    assert heard == wanted(family)


def test_paths_without_numbers_are_no_layers():
    model = nn.ModuleDict({"embed": nn.Linear(2, 2), "layers": nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])})
    sites = attention_sites(model, encoder_decoder=False)
    assert [sites[id(m)] for m in model["layers"]] == [Site("self", n) for n in range(3)]
    assert id(model["embed"]) not in sites
