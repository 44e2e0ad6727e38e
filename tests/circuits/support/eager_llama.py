"""The tiny Llama as transformers runs it, eager and in float64, with heads patched by hooks on its projections: an independent implementation.

q, k and v are patched before the rotary embedding, z at the input of W_O.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager

import torch

from interp.models.toy import tiny_parts


def eager(seed=0):
    hf = tiny_parts("llama", seed=seed).hf.double()
    hf.set_attn_implementation("eager")
    return hf


def projection(hf, layer, kind):
    attention = hf.model.layers[layer].self_attn
    return {"z": attention.o_proj, "q": attention.q_proj, "k": attention.k_proj, "v": attention.v_proj}[kind]


@contextmanager
def hooked(module, kind, change):
    """Change [B, N, H * D] at the input of W_O (z) or the output of another projection."""
    if kind == "z":
        handle = module.register_forward_pre_hook(lambda _, args: (change(args[0]),))
    else:
        handle = module.register_forward_hook(lambda _, args, out: change(out))
    try:
        yield
    finally:
        handle.remove()


def values(hf, ids, kind="z"):
    """Layer -> [1, N, H * D] of a plain run."""
    found = {}
    with ExitStack() as stack:
        for layer in range(len(hf.model.layers)):
            stack.enter_context(
                hooked(projection(hf, layer, kind), kind, lambda x, layer=layer: found.setdefault(layer, x.clone()))
            )
        with torch.no_grad():
            hf(torch.tensor([ids]))
    return found


def put(source, head, places, size):
    """A change that copies a head's slice at some positions from `source`."""

    def change(x):
        x = x.clone()
        x[:, places, head * size : (head + 1) * size] = source[:, places, head * size : (head + 1) * size]
        return x

    return change


def difference(hf, ids, prompt):
    with torch.no_grad():
        logits = hf(torch.tensor([ids])).logits[0, -1]
    return float(logits[prompt.answer[0]] - logits[prompt.wrong[0]])
