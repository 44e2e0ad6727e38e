"""Circuits by codes: scores against sets counted one by one, planted heads found, and the case that the norm alone decides."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from interp.circuits.coders import HeadOutputs, head_outputs, layer_encoders, paired_norm, shared_dictionary, top_codes
from interp.circuits.codes import average_precision, code_circuits, identify, true_heads
from interp.circuits.pairs import paired
from interp.errors import EditError, OptionError
from interp.models.outputs import output_weights
from interp.models.toy import tiny
from interp.results import Result

PAIRS, LAYERS, HEADS, WIDTH = 13, 5, 3, 41
ALL = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
TRUE = {(1, 2), (3, 0), (4, 1)}


def outputs_of(written):
    """Outputs whose z is what is written itself, by layer."""
    z = {layer: written[:, layer * HEADS : (layer + 1) * HEADS] for layer in range(LAYERS)}
    return HeadOutputs(z=z, written=written)


def one_by_one(codes):
    """Node and edge score of codes [2 x pair, head] by Python sets."""
    n, heads = len(codes) // 2, codes.shape[1]
    node = [len({c for c in codes[:n, h] if c >= 0} - set(codes[n:, h])) for h in range(heads)]
    edge = np.zeros(heads)
    for a, b in product(range(heads), repeat=2):
        if a != b:
            pairs = [
                {(x, y) for x, y in zip(part[:, a], part[:, b], strict=True) if min(x, y) >= 0}
                for part in (codes[:n], codes[n:])
            ]
            edge[a] += len(pairs[0] - pairs[1])
    return np.array(node), edge


def test_scores_are_those_of_sets():
    draw = np.random.default_rng(7)
    codes = draw.integers(-1, 11, (2 * PAIRS, len(ALL)))
    features = (
        torch.nn.functional.one_hot(torch.from_numpy(codes).clamp(min=0), 11) * torch.from_numpy(codes >= 0)[..., None]
    )
    outputs = outputs_of(torch.zeros(2 * PAIRS, len(ALL), WIDTH))
    found = identify(outputs, TRUE, lambda o, seed: (o.heads, features.float()), trials=1, draws=4)
    node, edge = one_by_one(codes)
    np.testing.assert_array_equal(found.table["score"], node)
    np.testing.assert_array_equal(found.table["edge"], edge)
    np.testing.assert_array_equal(found.table["codes"], [len(set(c) - {-1}) for c in codes.T])
    assert found.table["true"].sum() == len(TRUE)
    assert set(node) != {0} and len(set(edge)) > 3


def planted(kind, *, seed=0):
    """Head outputs in known directions. "codes": true heads change direction, others only size; "norm": true heads change size, nobody direction."""
    draw = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=draw)).Q
    written = torch.zeros(2 * PAIRS, len(ALL), WIDTH)
    for n, head in enumerate(ALL):
        # Two directions that all heads share, by turns, so that every head has several codes.
        at = torch.arange(PAIRS) % 2
        positive, negative = directions[at], directions[at]
        if kind == "codes" and head in TRUE:
            positive = directions[2 + at]
        large = (kind == "codes") != (head in TRUE)
        written[:PAIRS, n] = positive * (13.0 if large else 8.0)
        written[PAIRS:, n] = negative * (29.0 if large else 8.0)
    return outputs_of(written + 0.05 * torch.randn(written.shape, generator=draw))


@pytest.mark.parametrize("kind", ["codes", "norm"])
def test_planted_heads(kind):
    coder = shared_dictionary(features=31, examples=20, steps=400, rate=1e-2, scale="unit")
    found = identify(planted(kind), TRUE, coder, trials=2, draws=40)
    node, edge, norm = found.scores
    assert [s["score"] for s in found.scores] == ["node", "edge", "paired norm"]
    assert all(
        s["chance"] == pytest.approx(len(TRUE) / len(ALL)) and s["low"] <= s["average_precision"] <= s["high"]
        for s in found.scores
    )
    if kind == "codes":
        assert node["average_precision"] == 1.0 and node["roc_auc"] == 1.0
        assert node["p"] < 0.05 and node["null"] < 0.6
        assert edge["average_precision"] > 0.9
        assert norm["average_precision"] < 0.5
    else:
        assert norm["average_precision"] == 1.0
        assert node["average_precision"] < 0.6 and node["p"] > 0.05
    assert norm["null"] is None and norm["p"] is None


def test_average_precision_by_hand():
    true = np.array([True, False, True, False, True])
    assert average_precision(np.array([5.0, 4.0, 3.0, 2.0, 1.0]), true) == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)
    assert average_precision(np.ones(5), true) == pytest.approx(3 / 5)


def test_top_codes():
    features = torch.tensor([[0.0, 2.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [3.0, 3.0, 1.0, 0.0]])
    assert top_codes(features, 1).tolist() == [[1], [-1], [0]]
    assert top_codes(features, 3).tolist() == [[1, 3, -1], [-1, -1, -1], [0, 1, 2]]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_head_outputs_are_what_the_model_writes(pairs_of, family):
    """Summed over heads, and with the bias, they are what the attention module gives, mean over the named tokens."""
    model = tiny(family)
    prompts = [*pairs_of(2, 11), *pairs_of(3, 7)]
    seen = {}
    modules = [
        b.self_attn if family == "llama" else b.attn
        for b in (model.hf.model.layers if family == "llama" else model.hf.transformer.h)
    ]
    found = head_outputs(model, paired(model, prompts, most=2), "two")
    assert found.pairs == len(prompts) and len(found.heads) == model.layers * model.heads
    for n, ids in enumerate([*(p.ids for p in prompts), *(p.corrupt for p in prompts)]):
        hooks = [
            m.register_forward_hook(lambda m, x, y, at=at: seen.__setitem__(at, y[0][0]))
            for at, m in enumerate(modules)
        ]
        with torch.no_grad():
            model.hf(torch.tensor([ids]))
        for hook in hooks:
            hook.remove()
        for layer, module in enumerate(modules):
            bias = getattr(module, "o_proj" if family == "llama" else "c_proj").bias
            mine = found.written[n, layer * model.heads : (layer + 1) * model.heads].sum(0)
            mine = mine if bias is None else mine + bias.detach()
            torch.testing.assert_close(mine, seen[layer][3:5].mean(0), atol=2e-5, rtol=1e-4)
    n = len(prompts)
    expected = [
        np.mean([float((found.written[i, h] - found.written[n + i, h]).norm()) for i in range(n)])
        for h in range(len(found.heads))
    ]
    np.testing.assert_allclose(paired_norm(found), expected, rtol=1e-5)
    assert set(output_weights(model)) == set(range(model.layers))


def test_codes_of_a_layer_are_what_a_head_adds_to_active_features():
    class Toy:
        """Reads z of two heads of three numbers; feature 0 reads head 0, feature 1 both, feature 2 never fires."""

        W_enc = torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 2, 0], [0, 0, 0], [0, 0, 1]])

        def encode(self, z):
            return (z @ self.W_enc - torch.tensor([0.0, 0, 99])).relu()

    z = torch.tensor([[[1.0, 0, 0], [0, 0, 5]], [[-2.0, 0, 0], [3, 0, 5]]])
    heads, features = layer_encoders({1: Toy()})(HeadOutputs(z={0: z, 1: z}, written=torch.zeros(2, 4, 7)), 0)
    assert heads == [(1, 0), (1, 1)]
    assert features.tolist() == [[[1, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 6, 0]]]
    with pytest.raises(OptionError, match="layer 2 does not exist"):
        layer_encoders({2: Toy()})(HeadOutputs(z={0: z}, written=z), 0)


def test_a_planted_circuit_end_to_end(copying):
    """Heads of a planted retrieval circuit, known by activation patching or named; saved and read back."""
    from interp.circuits.activation_patching import activation_patching

    model, where, prompts = copying
    patched = activation_patching(model, prompts)
    assert where["retrieval"] in true_heads(model, patched, 2)
    coder = shared_dictionary(features=53, examples=8, steps=60, rate=1e-2)
    result = code_circuits(model, prompts, patched, coder=coder, position="end", size=2, trials=1, draws=10)
    assert len(result.table) == model.layers * model.heads and result.table["true"].sum() == 2
    assert result.manifest["settings"]["truth"] == {"kind": "circuits.activation_patching", "size": 2}
    strongest = result.table.sort_values("paired_norm").iloc[-1]
    assert (strongest["layer"], strongest["head"]) == where["retrieval"]


def test_what_is_refused(pairs_of):
    model, prompts = tiny("llama"), pairs_of(3, 11)
    with pytest.raises(OptionError, match="at least one head"):
        code_circuits(model, prompts, [])
    with pytest.raises(EditError, match="do not exist"):
        code_circuits(model, prompts, [(0, 99)])
    with pytest.raises(OptionError, match="trials"):
        identify(planted("codes"), TRUE, shared_dictionary(), trials=0)
    with pytest.raises(OptionError, match="some must be"):
        identify(planted("codes"), ALL, shared_dictionary(features=3, steps=2), trials=1, draws=2)
    import pandas as pd

    table = pd.DataFrame(
        {
            "layer": [0],
            "head": [1],
            "score": [1.0],
            "spread": [0.0],
            "control": [0.0],
            "site": ["z"],
            "position": ["all"],
        }
    )
    with pytest.raises(OptionError, match="20 strongest"):
        true_heads(model, Result(kind="circuits.x", table=table, manifest={}), 20)
