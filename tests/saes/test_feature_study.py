"""Attribution of all firings on text: shares against sums written out, planted features that read one head each, the trait columns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.errors import InputDataError
from interp.models.planted import planted
from interp.models.toy import tiny
from interp.saes.config import SAEConfig
from interp.saes.core import SAE
from interp.saes.dfa import attribution_map, text_heads
from interp.saes.feature_study import feature_attribution

LAYER, FEATURES = 1, 19


def contexts(count: int, length: int, low: int = 7, high: int = 250) -> list[list[int]]:
    generator = torch.Generator().manual_seed(11)
    return [torch.randint(low, high, (length,), generator=generator).tolist() for _ in range(count)]


def test_shares_are_means_over_firings() -> None:
    model = tiny("llama")
    generator = torch.Generator().manual_seed(5)
    weights = {
        "W_enc": torch.randn(60, FEATURES, generator=generator) * 0.3,
        "W_dec": torch.randn(FEATURES, 60, generator=generator),
        "b_dec": torch.zeros(60),
        "b_enc": torch.randn(FEATURES, generator=generator) * 0.2,
    }
    sae = SAE(SAEConfig(architecture="topk", k=3, d_in=60, d_sae=FEATURES), weights)
    given = contexts(3, 17)
    result = feature_attribution(model, sae, LAYER, given, least=4)
    row = result.table.iloc[2]
    feature = int(row["feature"])
    shares, rest, sinks = [], [], []
    for ids in given:
        text = text_heads(model, ids, LAYER)
        codes = sae.encode(text.flat).detach()
        for t in range(1, 17):
            if codes[t, feature] > 0:
                both = attribution_map(sae, text, t, feature).double()
                by_head, without = both.sum(1).abs(), both[:, 1:].sum(1).abs()
                shares.append((by_head / by_head.sum()).numpy())
                rest.append((without / without.sum()).numpy())
                sinks.append(float(both.sum(0)[0].abs() / both.sum(0).abs().sum()))
    mean = np.mean(shares, 0)
    head = int(mean.argmax())
    assert (row["firings"], row["head"], row["layer"]) == (len(shares), head, LAYER)
    assert row["score"] == pytest.approx(mean[head], abs=1e-5)
    assert row["spread"] == pytest.approx(np.std([s[head] for s in shares], ddof=1), abs=1e-5)
    assert row["sink_share"] == pytest.approx(np.mean(sinks), abs=1e-5)
    np.testing.assert_allclose(result.arrays["dfa_share"][feature], mean, atol=1e-5)
    np.testing.assert_allclose(result.arrays["dfa_share_without_sinks"][feature], np.mean(rest, 0), atol=1e-5)
    others = np.delete(result.arrays["dfa_share"][result.table["feature"]], 2, axis=0)[:, head]
    assert row["control"] == pytest.approx(others.mean(), abs=1e-5)
    assert result.manifest["largest_remainder"] < 1e-5
    assert result.manifest["agreement"]["dfa"]["features"] == len(result.table)


def test_features_that_read_one_head_each_are_found_with_their_family() -> None:
    """Two planted heads of layer 1: one copies what followed the current token (induction); a weak head attends everywhere."""
    model, places = planted("retrieval")
    layer, head = places["retrieval"]
    other = (head + 1) % model.heads
    size = model.hf.config.n_embd // model.heads
    columns = torch.zeros(2, model.heads, size)
    columns[0, head, :97] = 1.0  # whatever is copied
    text = text_heads(model, [5, 6, 7, 8], layer)
    columns[1, other] = text.z[:, other].mean(0) / text.z[:, other].mean(0).norm()
    flat = columns.flatten(1)
    weights = {"W_enc": flat.T, "W_dec": flat, "b_dec": torch.zeros(flat.shape[1]), "b_enc": torch.tensor([-0.5, 10.0])}
    sae = SAE(SAEConfig(architecture="standard", d_in=flat.shape[1], d_sae=2), weights)
    half = [torch.randperm(95, generator=torch.Generator().manual_seed(n))[:13] + 1 for n in range(4)]
    given = [[*x.tolist(), *x.tolist()] for x in half]
    result = feature_attribution(model, sae, layer, given, least=5)
    table = result.table.set_index("feature")
    assert table["head"].tolist() == [head, other] == table["weight_head"].tolist()
    assert table["score"].tolist() == pytest.approx([1.0, 1.0], abs=1e-4)
    assert table.loc[0, "match"] > 0.4 > table.loc[0, "match_control"] + 0.2
    assert table.loc[1, "family"] == "high-level" and table.loc[1, "breadth"] > 0.8
    assert result.manifest["agreement"]["dfa"]["top_head"] == 1.0


def test_too_little_text_is_refused() -> None:
    weights = {
        "W_enc": torch.zeros(60, 3),
        "W_dec": torch.ones(3, 60),
        "b_dec": torch.zeros(60),
        "b_enc": -torch.ones(3),
    }
    sae = SAE(SAEConfig(architecture="standard", d_in=60, d_sae=3), weights)
    with pytest.raises(InputDataError, match="more text"):
        feature_attribution(tiny("llama"), sae, LAYER, contexts(2, 11))
