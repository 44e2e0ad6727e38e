"""Repeated random tokens: structure by definition, draws by seed, the forms of the literature by their numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from interp.errors import InputDataError, OptionError
from interp.models.planted import planted_parts
from interp.models.toy import byte_tokenizer
from interp.tasks import repeated as r

SMALL = r.Repetition(length=5, repeats=3, bos=True)


def test_blocks_rows_and_offsets() -> None:
    (prompt,) = r.prompts(byte_tokenizer(), SMALL, samples=1)
    ids, block = prompt.ids, prompt.ids[1:6]
    assert ids == (byte_tokenizer().bos_token_id, *block, *block, *block)
    assert prompt.answer == block[:1]
    assert dict(prompt.key_sets) == {"bos": (0, 1), "first": (1, 6)}
    assert prompt.rows["first"] == (1, 2, 3, 4, 5)
    assert prompt.rows["later"] == tuple(range(6, 16))
    assert prompt.meta["offsets"] == {"previous": 1, "duplicate": 5, "induction": 4}
    for row, following in zip(prompt.rows["later"], prompt.next_tokens("later"), strict=True):
        assert ids[row - 5] == ids[row]
        assert ids[row - 4] == following
        assert ids[row - 1] in block or row == 1


def test_without_bos_the_first_block_begins_at_once() -> None:
    (prompt,) = r.prompts(byte_tokenizer("bos"), replace(SMALL, bos=False), samples=1)
    assert len(prompt.ids) == 15
    assert dict(prompt.key_sets) == {"first": (0, 5)}
    assert prompt.rows["later"] == tuple(range(5, 15))


def test_draws_follow_seed_and_sample() -> None:
    tokenizer = byte_tokenizer()
    few, many, other = (r.prompts(tokenizer, SMALL, samples=n, seed=s) for n, s in ((3, 1), (7, 1), (3, 2)))
    assert few == many[:3]
    assert len({p.ids for p in [*many, *other]}) == 10


def test_distinct_blocks_and_blocks_with_replacement() -> None:
    everything = r.prompts(byte_tokenizer(), replace(SMALL, length=256), samples=1)[0]
    assert sorted(everything.ids[1:257]) == list(range(7, 263))
    assert len(set(r.prompts(byte_tokenizer(), replace(SMALL, length=256, distinct=False), samples=1)[0].ids)) < 200


def test_ids_are_clipped_and_common_and_rare_ones_dropped() -> None:
    tokenizer = byte_tokenizer()
    drawn = {i for p in r.prompts(tokenizer, r.Repetition(length=10, ids=(250, 9999)), samples=9) for i in p.ids}
    assert drawn <= set(range(250, 263))
    assert len(drawn) == 13
    # a tenth of 256 ordinary ids is 25 at each end
    drawn = {i for p in r.prompts(tokenizer, r.Repetition(length=206, drop=0.1), samples=2) for i in p.ids}
    assert drawn == set(range(32, 238))


def test_a_range_outside_a_small_vocabulary_gives_way_and_says_so() -> None:
    (prompt,) = r.prompts(byte_tokenizer(), r.TRANSFORMER_LENS, samples=1)
    assert prompt.meta["whole_vocabulary"]
    assert set(prompt.ids) <= set(range(7, 263))
    assert not r.prompts(byte_tokenizer(), SMALL, samples=1)[0].meta["whole_vocabulary"]


def test_forms_of_the_literature() -> None:
    assert (r.OLSSON.length, r.OLSSON.repeats, r.OLSSON.bos) == (25, 4, True)
    assert (r.TRANSFORMER_LENS.length, r.TRANSFORMER_LENS.repeats, r.TRANSFORMER_LENS.bos) == (50, 2, False)
    assert r.TRANSFORMER_LENS.ids == (1000, 9999)
    assert (r.RAZOR.length, r.RAZOR.repeats) == (2500, 4)


def test_planted_models_have_no_bos() -> None:
    tokenizer = planted_parts("sink")[0].tokenizer
    with pytest.raises(OptionError, match="no BOS"):
        r.prompts(tokenizer)
    (prompt,) = r.prompts(tokenizer, replace(r.OLSSON, bos=False), samples=1)
    assert 0 not in prompt.ids


@pytest.mark.parametrize("sizes", [{"length": 1}, {"length": 9, "repeats": 1}, {"length": 9, "drop": 0.5}])
def test_sizes_out_of_range(sizes) -> None:
    with pytest.raises(OptionError):
        r.Repetition(**sizes)


def test_a_block_longer_than_the_vocabulary_needs_repetition() -> None:
    with pytest.raises(InputDataError, match="256 ordinary tokens, too few for a block of 300"):
        r.prompts(byte_tokenizer(), r.Repetition(length=300))
    assert len(r.prompts(byte_tokenizer(), r.Repetition(length=300, distinct=False), samples=1)[0].ids) == 600
