"""From Hugging Face's mask functions to the kernels' structural `Mask`.

transformers describes a mask as a function of (batch, head, query, key) indices, built by nesting a few factories. We read the structure
off the nesting (causal, bidirectional, sliding window, chunks, packed documents, padding), then compare the result with the function
itself on sampled index pairs. Whatever we do not recognise, or what fails the comparison, becomes a dense mask: slower, never wrong.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import masking_utils

from interp.capture.placed import PlacedMask
from interp_kernels import Mask, dense_bias

CHECKED_PAIRS = 512


class _UnknownMaskFunction(Exception):
    """A mask function that is not built from the factories we know."""


def structural_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = masking_utils.causal_mask_function,
    attention_mask: Tensor | None = None,
    device: torch.device | str = "cpu",
    **rest: Any,
) -> Mask:
    """The mask function registered with transformers under our name: same arguments as its own, returns a `Mask`."""
    offset = int(q_offset) - int(kv_offset)
    padding = None if attention_mask is None else attention_mask[:, kv_offset : kv_offset + kv_length].bool()
    if padding is not None and padding.shape[1] < kv_length:
        # Keys past the given mask are slots that hold nothing yet (static caches), as in transformers' own padding.
        padding = torch.nn.functional.pad(padding, (0, kv_length - padding.shape[1]))
    try:
        mask = _structure(mask_function, offset, int(kv_offset), batch_size, q_length, kv_length)
        _compare(mask, mask_function, batch_size, q_length, kv_length, int(q_offset), int(kv_offset), device)
    except _UnknownMaskFunction:
        mask = _dense(mask_function, batch_size, q_length, kv_length, int(q_offset), int(kv_offset), device, rest)
    mask = mask if padding is None else with_padding(mask, padding, q_length)
    if not kv_offset:
        return mask
    start = torch.zeros(1, dtype=torch.long) if attention_mask is None else attention_mask.bool().long().argmax(1)
    return PlacedMask.of(mask, int(kv_offset), start)


def with_padding(mask: Mask, real: Tensor, queries: int) -> Mask:
    """Hide the keys where `real` (bool [B, Nk]) is False: as left and right padding where they lie at the ends, else as documents.

    Padding in the middle keeps the key positions; it is expressed as a document of its own, which a mask can have once.
    """
    real = real.bool()
    if bool(real.all()):
        return mask
    n = real.shape[1]
    place = torch.arange(n, device=real.device).expand_as(real)
    some = real.any(1)
    left = torch.where(some, torch.where(real, place, n).amin(1), n)
    last = torch.where(real, place, -1).amax(1)
    contiguous = real.sum(1) == torch.where(some, last - left + 1, 0)
    if bool(contiguous.all()):
        return mask.padded(left=left, right=torch.where(some, n - 1 - last, 0))
    key_ids = torch.where(real, 0, -1)
    if mask.query_documents is not None and mask.key_documents is not None:
        nowhere = int(torch.minimum(mask.query_documents.amin(), mask.key_documents.amin())) - 1
        return replace(mask, key_documents=torch.where(real, mask.key_documents, nowhere))
    return mask.documents(torch.zeros(real.shape[0], queries, dtype=key_ids.dtype, device=real.device), key_ids)


def as_dense(mask: Any, sizes: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> Any:
    """A structural mask as the additive tensor [B or 1, H or 1, Nq, Nk] of eager attention; anything else as is. `sizes`: B, H, Nq, Nk."""
    return dense_bias(mask, *sizes, dtype, device) if isinstance(mask, Mask) else mask


def _structure(function: Callable[..., Any], offset: int, kv_offset: int, batch: int, queries: int, keys: int) -> Mask:
    """Read a mask off the factories that built `function`."""
    parts = list(_flatten(function))
    kinds = [kind for kind, _ in parts]
    if kinds.count("causal") + kinds.count("bidirectional") == 0:
        raise _UnknownMaskFunction
    mask = Mask.causal(offset=offset) if "causal" in kinds else Mask.full(offset=offset)
    for kind, held in parts:
        if kind == "window" and mask.is_causal:
            mask = replace(mask, window=min(held, mask.window or held))
        elif kind == "two-sided window" and not mask.is_causal:
            mask = replace(mask, window=held + 1)
        elif kind == "documents":
            if mask.query_documents is not None or queries != keys:
                raise _UnknownMaskFunction
            mask = mask.documents(held)
        elif kind == "chunks":
            size, left = held
            if mask.query_documents is not None:
                raise _UnknownMaskFunction
            # Chunks are counted from the first token, keys that a cache has dropped included.
            place = torch.arange(keys, device=left.device) + kv_offset - left.reshape(-1, 1)
            rows = torch.arange(queries, device=left.device) + offset + kv_offset - left.reshape(-1, 1)
            ids = [torch.div(x, size, rounding_mode="floor").expand(batch, -1) for x in (rows, place)]
            mask = mask.documents(*ids)
        elif kind not in ("causal", "bidirectional"):
            raise _UnknownMaskFunction
    return mask


def _flatten(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    """The conditions that `function` joins by AND, as (kind, what it holds)."""
    if function is masking_utils.causal_mask_function:
        return [("causal", None)]
    if function is masking_utils.bidirectional_mask_function:
        return [("bidirectional", None)]
    if getattr(function, "__module__", None) != masking_utils.__name__:
        raise _UnknownMaskFunction
    held = inspect.getclosurevars(function).nonlocals
    match function.__qualname__.partition(".")[0]:
        case "and_masks":
            return [part for inner in held["mask_functions"] for part in _flatten(inner)]
        case "sliding_window_overlay":
            return [("window", int(held["sliding_window"]))]
        case "sliding_window_bidirectional_overlay":
            return [("two-sided window", int(held["sliding_window"]))]
        case "packed_sequence_mask_function":
            return [("documents", held["packed_sequence_mask"])]
        case "remap_positions_for_packed_sequence":
            # Within one document positions differ by the same amount as indices, so causality and windows carry over.
            return _flatten(held["mask_function"])
        case "chunked_overlay":
            return [("chunks", (int(held["chunk_size"]), held["left_padding"]))]
        case _:
            raise _UnknownMaskFunction


def _compare(
    mask: Mask,
    function: Callable[..., Any],
    batch: int,
    queries: int,
    keys: int,
    q_offset: int,
    kv_offset: int,
    device: torch.device | str,
) -> None:
    """Compare `mask` with transformers' function on sampled pairs near and far from the diagonal; a difference makes it unknown."""
    generator = torch.Generator().manual_seed(0)
    i = torch.randint(queries, (CHECKED_PAIRS,), generator=generator)
    near = (i + q_offset - kv_offset + torch.randint(-3, 4, i.shape, generator=generator)).clamp(0, keys - 1)
    edge = (i + q_offset - kv_offset - (mask.window or 0) + torch.randint(-2, 3, i.shape, generator=generator)).clamp(
        0, keys - 1
    )
    far = torch.randint(keys, (CHECKED_PAIRS,), generator=generator)
    i, j = i.repeat(3).to(device), torch.cat([near, edge, far]).to(device)
    for b in range(batch):
        wanted = function(torch.full_like(i, b), torch.zeros_like(i), i + q_offset, j + kv_offset)
        if not torch.equal(wanted.expand_as(i).bool(), mask.sees(b, i, j, queries, keys)):
            raise _UnknownMaskFunction


def _dense(
    function: Callable[..., Any],
    batch: int,
    queries: int,
    keys: int,
    q_offset: int,
    kv_offset: int,
    device: torch.device | str,
    rest: dict[str, Any],
) -> Mask:
    """The dense mask that transformers itself would make for scaled_dot_product_attention, without padding."""
    seen = masking_utils.sdpa_mask(
        batch_size=batch,
        q_length=queries,
        kv_length=keys,
        q_offset=q_offset,
        kv_offset=kv_offset,
        mask_function=function,
        allow_is_causal_skip=False,
        use_vmap=bool(rest.get("use_vmap", False)),
        device=device,
    )
    if seen is None:
        raise RuntimeError("transformers made no mask although skipping was ruled out; please report the model")
    return Mask.dense(seen)
