"""`structural_mask` against the masks that transformers itself makes, entry by entry; and that known structures stay structure."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, masking_utils
from transformers.masking_utils import (
    and_masks,
    bidirectional_mask_function,
    blockwise_overlay,
    causal_mask_function,
    chunked_causal_mask_function,
    find_packed_sequence_indices,
    or_masks,
    packed_sequence_compatibility_function,
    sdpa_mask,
    sliding_window_bidirectional_mask_function,
    sliding_window_causal_mask_function,
    sliding_window_overlay,
)

from interp.capture.attend import IMPLEMENTATION, register
from interp.capture.masks import as_dense, structural_mask, with_padding
from interp_kernels import Mask

ZERO = torch.zeros(1, dtype=torch.long)


def seen(mask, batch, queries, keys):
    """Bool [B, Nq, Nk] of a structural mask."""
    bias = as_dense(mask, (batch, 1, queries, keys), torch.float32, torch.device("cpu"))
    return (bias > torch.finfo(torch.float32).min / 2).expand(batch, 1, queries, keys)[:, 0]


def both(function, *, batch=1, queries=13, keys=None, q_offset=0, kv_offset=0, attention_mask=None, use_vmap=False):
    """Our mask and transformers' bool [B, Nq, Nk] for the same call."""
    kwargs = dict(batch_size=batch, q_length=queries, kv_length=queries if keys is None else keys, q_offset=q_offset,
                  kv_offset=kv_offset, mask_function=function, attention_mask=attention_mask, device="cpu",
                  use_vmap=use_vmap)  # fmt: skip
    theirs = sdpa_mask(**kwargs, allow_is_causal_skip=False)
    assert theirs is not None
    return structural_mask(**kwargs, dtype=torch.float32, config=None), theirs[:, 0]


def agree(function, *, structural=True, **sizes):
    ours, theirs = both(function, **sizes)
    assert torch.equal(seen(ours, *theirs.shape), theirs)
    assert ours.is_dense is not structural
    return ours


# ---------------------------------------------------------------------- the structures that are known
@pytest.mark.parametrize("window", [1, 2, 5, 13, 40])
def test_sliding_windows(window):
    assert agree(sliding_window_causal_mask_function(window), batch=2).window == window
    agree(sliding_window_bidirectional_mask_function(window), batch=2)


@pytest.mark.parametrize("chunk", [1, 3, 5, 13, 29])
@pytest.mark.parametrize("left", [0, 1, 4, 7])
def test_chunks(chunk, left):
    agree(chunked_causal_mask_function(chunk, torch.tensor([left, 0])), batch=2)
    agree(chunked_causal_mask_function(chunk, torch.tensor([left])), q_offset=9, kv_offset=4, queries=5, keys=10)


def test_chunks_with_padding_on_the_left_and_in_the_middle():
    real = torch.ones(2, 13, dtype=torch.bool)
    real[0, :4] = False
    real[1, [5, 6]] = False
    agree(chunked_causal_mask_function(5, torch.tensor([4, 0])), batch=2, attention_mask=real)


def test_plain_causal_and_bidirectional():
    assert agree(causal_mask_function, batch=3).is_causal
    assert not agree(bidirectional_mask_function, batch=3).is_causal
    agree(bidirectional_mask_function, queries=7, keys=11)


@pytest.mark.parametrize("inner", [causal_mask_function, sliding_window_causal_mask_function(3)])
def test_packed_documents(inner):
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]])
    packed = find_packed_sequence_indices(positions)
    mask = agree(packed_sequence_compatibility_function(inner, positions, packed), batch=2)
    assert mask.query_documents is not None


def test_a_cache_before_the_rows():
    agree(causal_mask_function, queries=1, keys=30, q_offset=29)
    agree(causal_mask_function, queries=3, keys=33, q_offset=30)
    # Sliding layers drop keys: one token after 29 with a window of 8, then three tokens more.
    agree(sliding_window_causal_mask_function(8), queries=1, keys=8, q_offset=29, kv_offset=22)
    agree(sliding_window_causal_mask_function(8), queries=3, keys=10, q_offset=30, kv_offset=23)
    # A tensor as offset, as static caches give it.
    agree(causal_mask_function, queries=2, keys=19, q_offset=torch.tensor(11))


def test_padding_with_dropped_keys_is_cut_from_where_the_keys_begin():
    real = torch.ones(2, 30, dtype=torch.bool)
    real[0, :25] = False
    real[1, 28:] = False
    agree(sliding_window_causal_mask_function(8), batch=2, queries=1, keys=8, q_offset=29, kv_offset=22,
          attention_mask=real)  # fmt: skip


def test_slots_of_a_static_cache_that_hold_nothing_are_hidden():
    agree(
        causal_mask_function, batch=2, queries=5, keys=31, q_offset=0, attention_mask=torch.ones(2, 5, dtype=torch.bool)
    )
    agree(
        causal_mask_function, batch=1, queries=2, keys=31, q_offset=5, attention_mask=torch.ones(1, 7, dtype=torch.bool)
    )


# ---------------------------------------------------------------------- padding
PADDINGS = {
    "none": ["1111111"],
    "right": ["1111100", "1000000"],
    "left": ["0000011", "0111111"],
    "both": ["0011100", "1111111"],
    "middle": ["1101011", "1111111", "0110110"],
    "nothing real": ["0000000", "0011000"],
    "nothing real in the middle": ["0000000", "1011000"],
}


@pytest.mark.parametrize("name", list(PADDINGS))
@pytest.mark.parametrize(
    "function",
    [causal_mask_function, bidirectional_mask_function, sliding_window_causal_mask_function(3)],
    ids=["causal", "bidirectional", "window"],
)
def test_padding(name, function):
    real = torch.tensor([[c == "1" for c in row] for row in PADDINGS[name]])
    mask = agree(function, batch=len(real), queries=7, attention_mask=real)
    if name == "none":
        assert mask.left is None and mask.right is None and mask.query_documents is None
    assert (mask.query_documents is not None) == ("middle" in name), "padding at the ends is no document"


def test_integers_as_padding():
    real = torch.tensor([[0, 0, 1, 1, 1, 1, 0]])
    assert torch.equal(seen(with_padding(Mask.causal(), real, 7), 1, 7, 7),
                       seen(with_padding(Mask.causal(), real.bool(), 7), 1, 7, 7))  # fmt: skip


# ---------------------------------------------------------------------- what is not known becomes dense
def test_masks_of_ones_own_become_dense():
    def even(batch, head, q, k):
        return (k % 2 == 0) | (k == q)

    agree(and_masks(causal_mask_function, even), structural=False)
    agree(or_masks(causal_mask_function, even), structural=False)
    agree(or_masks(causal_mask_function, even), structural=False, use_vmap=True, batch=2)
    agree(even, structural=False, q_offset=3, kv_offset=1)


def test_blocks_that_see_each_other_become_dense():
    blocks = torch.tensor([[-1, -1, 0, 0, 0, -1, 1, 1, -1, -1, -1, 2, 2]])
    agree(or_masks(causal_mask_function, blockwise_overlay(blocks)), structural=False)


def test_a_dense_mask_keeps_its_padding():
    def odd(batch, head, q, k):
        return k % 2 == 1

    real = torch.ones(2, 13, dtype=torch.bool)
    real[0, :3] = False
    real[1, [4, 9]] = False
    agree(and_masks(causal_mask_function, odd), structural=False, batch=2, attention_mask=real)


def test_a_one_sided_window_without_causality_is_not_taken_for_a_two_sided_one():
    agree(and_masks(sliding_window_overlay(12), bidirectional_mask_function), structural=False, queries=13)


def test_documents_that_do_not_follow_the_positions_are_found_out():
    positions = torch.tensor([[0, 3, 1, 2, 6, 5, 4, 0, 2, 1, 3, 4, 5]])
    documents = torch.tensor([[0] * 7 + [1] * 6])
    agree(packed_sequence_compatibility_function(causal_mask_function, positions, documents), structural=False)


# ---------------------------------------------------------------------- properties
@st.composite
def calls(draw):
    batch, queries = draw(st.sampled_from([1, 2, 3])), draw(st.integers(1, 11))
    q_offset = draw(st.integers(0, 9))
    kv_offset = draw(st.integers(0, q_offset))
    keys = draw(st.integers(queries + q_offset - kv_offset, queries + q_offset - kv_offset + 5))
    kind = draw(st.sampled_from(["causal", "window", "chunk", "bidirectional", "two-sided"]))
    size = draw(st.integers(1, 12))
    left = torch.tensor(draw(st.lists(st.integers(0, 5), min_size=batch, max_size=batch)))
    function = {
        "causal": causal_mask_function,
        "window": sliding_window_causal_mask_function(size),
        "chunk": chunked_causal_mask_function(size, left),
        "bidirectional": bidirectional_mask_function,
        "two-sided": sliding_window_bidirectional_mask_function(size),
    }[kind]
    known = draw(st.integers(max(kv_offset, 1), kv_offset + keys))
    bits = draw(st.lists(st.lists(st.booleans(), min_size=known, max_size=known), min_size=batch, max_size=batch))
    padding = draw(st.sampled_from([None, torch.tensor(bits, dtype=torch.bool)]))
    return function, dict(batch=batch, queries=queries, keys=keys, q_offset=q_offset, kv_offset=kv_offset,
                          attention_mask=padding)  # fmt: skip


@given(calls())
def test_any_call_gives_transformers_mask(call):
    function, sizes = call
    agree(function, **sizes)


# ---------------------------------------------------------------------- through transformers' own front door
def config(implementation):
    return LlamaConfig(hidden_size=20, num_attention_heads=5, num_hidden_layers=1, vocab_size=31, sliding_window=4,
                       attention_chunk_size=5, attn_implementation=implementation)  # fmt: skip


@pytest.mark.parametrize(
    "create", ["causal", "sliding_window_causal", "chunked_causal", "bidirectional", "bidirectional_sliding_window"]
)
@pytest.mark.parametrize("padded", [False, True])
def test_transformers_mask_makers_give_structure(create, padded):
    register()
    maker = getattr(masking_utils, f"create_{create}_mask")
    embeds = torch.zeros(2, 11, 20)
    real = torch.ones(2, 11, dtype=torch.long)
    if padded:
        real[0, :3] = 0
    kwargs = {"inputs_embeds": embeds, "attention_mask": real, "past_key_values": None}
    ours = maker(config=config(IMPLEMENTATION), **kwargs)
    theirs = maker(config=config("eager"), **kwargs)
    assert isinstance(ours, Mask) and not ours.is_dense
    # Only a bidirectional mask that hides nothing is left out by eager attention.
    assert (theirs is None) == (create == "bidirectional" and not padded)
    wanted = torch.ones(2, 11, 11, dtype=torch.bool) if theirs is None else theirs[:, 0] == 0
    assert torch.equal(seen(ours, 2, 11, 11), wanted)


def test_positions_that_start_again_are_packed_documents():
    register()
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1]])
    kwargs = {"inputs_embeds": torch.zeros(1, 11, 20), "attention_mask": None, "past_key_values": None,
              "position_ids": positions}  # fmt: skip
    ours = masking_utils.create_causal_mask(config=config(IMPLEMENTATION), **kwargs)
    theirs = masking_utils.create_causal_mask(config=config("eager"), **kwargs)
    assert not ours.is_dense and ours.query_documents is not None
    assert torch.equal(seen(ours, 1, 11, 11), theirs[:, 0] == 0)


@pytest.mark.parametrize("extra", ["and", "or"])
def test_functions_of_ones_own_through_the_front_door(extra):
    register()

    def near_start(batch, head, q, k):
        return k < 2

    kwargs = {"inputs_embeds": torch.zeros(2, 11, 20), "attention_mask": torch.ones(2, 11), "past_key_values": None,
              f"{extra}_mask_function": near_start}  # fmt: skip
    ours = masking_utils.create_causal_mask(config=config(IMPLEMENTATION), **kwargs)
    theirs = masking_utils.create_causal_mask(config=config("eager"), **kwargs)
    assert ours.is_dense
    assert torch.equal(seen(ours, 2, 11, 11), theirs[:, 0] == 0)
