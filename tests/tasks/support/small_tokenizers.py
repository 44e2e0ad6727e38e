"""Tokenizers small enough to work their answers out by hand, one of each kind that tasks have to deal with."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

DIGITS = {"one": r"\d", "two": r"\d{2}|\d", "three": r"\d{1,3}", "all": r" ?\d+"}
"""How runs of digits are cut: SmolLM2 and Gemma, nearly GPT-2, Llama 3, and a whole year as one token."""


def words(texts: Iterable[str], *, digits: str = "one") -> PreTrainedTokenizerFast:
    """Words with the space before them (as byte-pair tokenizers have them), signs and digits; all that the texts hold, from id 2."""
    pattern = rf"{DIGITS[digits]}| ?[^\W\d]+| ?[^\w\s]|\s"
    found = dict.fromkeys(piece for text in texts for piece in re.findall(pattern, text))
    core = Tokenizer(WordLevel({"<unk>": 0, "<s>": 1} | {w: i + 2 for i, w in enumerate(found)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token="<s>")


def metaspace(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Words between spaces, a space put before every text (as SentencePiece does)."""
    found = dict.fromkeys(f"▁{word}" for text in texts for word in text.split(" "))
    core = Tokenizer(WordLevel({"<unk>": 0} | {w: i + 1 for i, w in enumerate(found)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    core.decoder = decoders.Metaspace(prepend_scheme="always")
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


class WithoutOffsets:
    """A tokenizer of words with the space before them that gives no offsets; "ab" before "cd" merges to one token."""

    is_fast = False
    bos_token_id = None
    all_special_ids: tuple[int, ...] = ()

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def __call__(self, text, **options):
        pieces = re.findall(r" ?abcd| ?\w+|[^\w]", text)
        return {"input_ids": [self._ids.setdefault(piece, len(self._ids)) for piece in pieces]}

    def decode(self, token_ids, **options):
        names = {i: piece for piece, i in self._ids.items()}
        return "".join(names[i] for i in token_ids)

    def __len__(self) -> int:
        return len(self._ids)
