"""Norm-weighted attention in O(N) memory: what a key adds to a row is p_ij W_O^h v_j, and its norm is not its weight.

Kobayashi et al. 2020 (arXiv 2004.10102), v with its bias; residual stream and norms of the block (their 2021 paper) are not in it. With
n_j = ||W_O^h v_j|| a scalar of the key:

    received by key j        sum_i p_ij n_j = n_j times the received mass
    top keys of a row        those of the row under the key bias ln n_j: softmax(s + ln n) has lse', and p_ij n_j = p'_ij exp(lse'_i - lse_i)
    heads together           ||sum_h p^h_ij W_O^h v^h_j||^2 = sum_{h,h'} p^h_ij p^h'_ij G_j[h, h'],  G_j[h, h'] = (W_O^h v^h_j) . (W_O^h' v^h'_j)

W_O is the weight of the module that reads the head outputs of the very pass that is measured, so no layout is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.capture.call import Attended, AttentionCall, Collect
from interp.capture.sweep import column_sums
from interp.errors import OptionError
from interp.explain.question import Target, Text, ask, calls_of, map_rows
from interp.models.hooked import HookedModel
from interp.models.outputs import output_weights
from interp.results import Result
from interp.tasks.prompt import generator

SOURCE = "Kobayashi et al. 2020 (arXiv 2004.10102)"


def norms(
    model: HookedModel, prompt: Text, target: Target = None, *, top: int = 10, draws: int = 5, seed: int = 0
) -> Result:
    """Norm-weighted against plain attention, of every head and of each layer's heads together.

    Args:
        model, prompt, target: see `interp.explain.question.ask`; nothing here depends on the target, which is recorded only.
        top: strongest keys of every row to keep.
        draws: shuffles of the norms for the control, at least 2.
        seed: of the shuffles.

    Returns:
        Result "explain.norms", a row for each head: score, the total variation distance in the last row between the plain weights and the
        norm-weighted ones scaled to sum 1 (0 = the map shows what is read); control, the same with the norms of the visible keys
        shuffled, mean over draws, and spread, their standard deviation; first_weight and first_norm, the first token's share in the last row.
        Arrays: "weights" and "weighted" [layer, head, key], the last row plain and p_ij n_j; "received" [layer, head, key]; "together"
        [layer, key], the last row with heads summed as vectors; "key_norms" [layer, head, key]; "top_index", "top_norm" [layer, head, row, top].

    Raises:
        OptionError: top below 1 or fewer than two draws.
        UnsupportedModelError: no module reads the head outputs as they are (gated outputs).
    """
    if top < 1 or draws < 2:
        raise OptionError(f"wanted top >= 1 and draws >= 2, got {top} and {draws}")
    question = ask(model, prompt, target)
    calls = calls_of(model, question.ids)
    outputs = output_weights(model)
    rows: list[dict[str, Any]] = []
    parts: dict[str, list[Tensor]] = {}
    for layer, (call, attended) in calls.items():
        sizes = key_norms(call, outputs[layer])
        plain = map_rows(call, attended, [question.row])[:, 0].double()
        weighted = plain * sizes.double()
        index, norm = top_keys(call, attended, sizes, min(top, call.keys))
        everyone = torch.ones(1, call.queries, dtype=torch.bool, device=sizes.device)
        found = {
            "weights": plain,
            "weighted": weighted,
            "received": column_sums(call, attended, rows=everyone)["received"][0, :, 0] * sizes,
            "together": together(call, attended, outputs[layer], [question.row])[0],
            "key_norms": sizes,
            "top_index": index,
            "top_norm": norm,
        }
        for name, x in found.items():
            parts.setdefault(name, []).append(x.cpu())
        for head in range(call.heads):
            p, n = plain[head].cpu().numpy(), sizes[head].double().cpu().numpy()
            shares = p * n / (p * n).sum()
            shuffled = [_distance(p, n, generator(seed, (layer * call.heads + head) * draws + d)) for d in range(draws)]
            rows.append(
                {
                    "layer": layer,
                    "head": head,
                    "score": 0.5 * np.abs(p / p.sum() - shares).sum(),
                    "spread": np.std(shuffled, ddof=1),
                    "control": np.mean(shuffled),
                    "first_weight": p[0],
                    "first_norm": shares[0],
                }
            )
    manifest = model.manifest() | {
        "method": "norms",
        "source": SOURCE,
        "question": question.record(model),
        "settings": {"top": top, "draws": draws},
        "seed": seed,
    }
    arrays = {name: torch.stack(x).numpy() for name, x in parts.items()}
    return Result(kind="explain.norms", table=pd.DataFrame(rows), manifest=manifest, arrays=arrays)


@torch.no_grad()
def key_norms(call: AttentionCall, output: Tensor) -> Tensor:
    """n_j = ||W_O^h v_j|| of one text: W_O [head, value, d] to [head, key], in the working dtype."""
    v, w = call.ungrouped().v[0].to(call.work_dtype), output.to(call.work_dtype)
    square = torch.einsum("hnv,hvu,hnu->hn", v, torch.einsum("hvd,hud->hvu", w, w), v)
    return square.clamp(min=0).sqrt()


@torch.no_grad()
def together(call: AttentionCall, attended: Attended, output: Tensor, rows: Sequence[int]) -> Tensor:
    """||sum_h p^h_ij W_O^h v^h_j|| of some rows of one text, [row, key]: from the H x H products G_j of each key, never an N x N map."""
    v, w = call.ungrouped().v[0].to(call.work_dtype), output.to(call.work_dtype)
    heads = range(call.heads)
    # [H, H, N], a head at a time: W_O^h' W_O^h^T is value x value.
    products = torch.stack(
        [torch.einsum("nv,gvu,gnu->gn", v[h], torch.einsum("vd,gud->gvu", w[h], w), v) for h in heads]
    )
    found = []
    for row in rows:
        p = map_rows(call, attended, [row])[:, 0].to(products)
        found.append(torch.einsum("hn,hgn,gn->n", p, products, p).clamp(min=0).sqrt())
    return torch.stack(found)


@torch.no_grad()
def top_keys(call: AttentionCall, attended: Attended, sizes: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k keys of every row with the largest p_ij n_j of one text: keys (int64, -1 for none) and values, [head, row, k].

    Keys of norm 0 have the value 0 and come last.
    """
    # A finite floor: a bias of -inf would hide a key that weighs nothing, and a row of such keys would be empty.
    bias = sizes.clamp(min=torch.finfo(sizes.dtype).tiny).log()[None]
    biased = call.with_edit(key_bias=bias).attend(Collect(topk=k))
    index, share = biased.stats["topk_index"][0], biased.stats["topk_prob"][0]
    scale = (biased.lse - attended.lse).exp().nan_to_num()[0]
    return index, share * scale[..., None].to(share)


def _distance(p: np.ndarray, n: np.ndarray, draw: np.random.Generator) -> float:
    """Total variation between weights and weights times shuffled norms."""
    seen = np.flatnonzero(p > 0)
    other = n.copy()
    other[seen] = draw.permutation(n[seen])
    return float(0.5 * np.abs(p / p.sum() - p * other / (p * other).sum()).sum())
