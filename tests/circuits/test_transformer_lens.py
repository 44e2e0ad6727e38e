"""The same patching by TransformerLens, on a tiny model with grouped heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.circuits.activation_patching import activation_patching
from interp.models.toy import tiny


@pytest.mark.medium
def test_patching_z_gives_what_transformer_lens_gives(pairs_of):
    from transformer_lens import patching

    prompts = pairs_of(2, 11)
    ours = activation_patching(tiny("llama"), prompts)
    bridge = tiny("llama").bridge
    clean, corrupt = (torch.tensor([getattr(p, side) for p in prompts]) for side in ("ids", "corrupt"))
    _, cache = bridge.run_with_cache(clean)
    right, wrong = ([getattr(p, side)[0] for p in prompts] for side in ("answer", "wrong"))

    def metric(logits):
        return (logits[range(2), -1, right] - logits[range(2), -1, wrong]).mean()

    with torch.no_grad():
        low, high = (float(metric(bridge(ids))) for ids in (corrupt, clean))
    theirs = patching.get_act_patch_attn_head_out_all_pos(
        bridge, corrupt, cache, lambda x: (metric(x) - low) / (high - low)
    )
    np.testing.assert_allclose(ours.frame["score"], theirs.detach().numpy().reshape(-1), atol=1e-4)
