"""The C++ backend of `attention`: one fused sweep on the CPU with every statistic; float32 sums, O(N) memory.

bfloat16 inputs are multiplied as they are where the processor gains by it (`cpp_ops.bfloat16_path`): logits, sums and
statistics in float32, only the weights of the product with v rounded to bfloat16. Elsewhere they are widened to float32
first (exact, O(N)), as float16 is everywhere. Either way lse and the statistics carry no rounding of the weights.
Numbers do not depend on the number of threads. Gradients reach q, k, v and the sink logits through out, lse and entropy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from interp_kernels import cpp_ops
from interp_kernels.attention.api import AttentionCall
from interp_kernels.flatten import FlatCollect, FlatProblem, features, servable

_NAMES = (
    "entropy",
    "row_max",
    "logit_moments",
    "prob_square",
    "distance",
    "key_sets",
    "rest_mass",
    "rest_entropy",
    "match",
    "windows",
    "offsets",
    "topk_index",
    "topk_prob",
    "sink_logit_mass",
)


def supports(call: AttentionCall) -> tuple[bool, str]:
    """Whether this backend can serve the call, and why not. Builds the kernels at its first use."""
    ok, why = servable(call.problem)
    if ok and call.v.shape[3] == 0:
        return False, "an axis is empty"
    return cpp_ops.ready() if ok else (ok, why)


def run(call: AttentionCall) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """out in q's dtype, lse and statistics in float32."""
    p = call.problem
    widen = p.q.dtype != torch.bfloat16 or cpp_ops.bfloat16_path() == "widened"
    flat = FlatProblem.of(p, widen=widen)
    wish = FlatCollect.of(call.collect, p.queries, p.keys)
    out, lse, _, *rest = torch.ops.interp_kernels_cpu.attention(
        flat.q,
        flat.k,
        features(call.v, widen=widen),
        flat.scale,
        flat.softcap,
        None if p.sink_logits is None else p.sink_logits.float().contiguous(),
        flat.mask,
        flat.mask_ints,
        flat.edit,
        wish.tensors,
        wish.wish,
        wish.sets,
        wish.topk,
        wish.topk_rows,
        wish.windows,
        wish.offsets,
    )
    # Only the entropy has a gradient here; the others must not seem to have one.
    stats = {name: x if name == "entropy" else x.detach() for name, x in zip(_NAMES, rest, strict=True) if x.ndim > 1}
    if wish.place is not None:
        stats |= {name: stats[name].index_select(2, wish.place) for name in ("topk_index", "topk_prob")}
    return out.to(p.q.dtype), lse, stats
