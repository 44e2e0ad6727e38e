"""Models whose heads are known by construction, for testing detectors: GPT-2 with hand-set weights.

The residual stream is a set of orthogonal slots (in a random basis orthogonal to the all-ones vector, so that LayerNorm only
scales it): `token`, a one-hot code; `position`, the cosines and sines of ten frequencies, whose product for two places depends
on their distance alone and is 1 at distance 0 and at most 0.73 elsewhere; `first`, which tells place 0 from the others;
`previous` and `copy`, which are empty until a head writes them. MLPs are zero and the unembedding reads `copy`.

What a head of each kind attends to (masses above 0.95 on random tokens, in float32 and float64):

- previous: the token before (the first token attends to itself); writes its code to `previous`.
- duplicate: the earlier occurrences of the current token, in equal parts; itself where there is none.
- sink: the first token.
- uniform: every visible token equally, to the last bit of the logits.
- induction: the tokens that followed earlier occurrences of the current one, in equal parts (it compares the current token with
  the `previous` slot: K-composition with the previous-token head, Elhage et al. 2021, "A Mathematical Framework for
  Transformer Circuits"); every token but the first, nearly equally, where there is none.
- retrieval: attends as induction does, and copies what it finds to the output, so that generation continues a repeated text.

All other heads have small random weights: nearly uniform attention, hardly any output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from interp.errors import OptionError
from interp.models.hooked import HookedModel, wrap
from interp.models.source import LoadedParts, ModelSource

VOCAB = 97
"""Number of tokens: "<pad>", "w1" ... "w96"."""
LAYERS, HEADS, SIZE = 3, 5, 120
"""Number of layers, heads in each, and dimensions of each head."""
POSITIONS = 1024
"""Longest text in tokens."""

_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)
_WAVES = 2 * len(_PRIMES)
_HIDDEN = HEADS * SIZE
_SLOTS = {"token": VOCAB, "position": _WAVES, "first": 2, "previous": VOCAB, "copy": VOCAB}
_NEEDS_PREVIOUS = ("induction", "retrieval")

_MATCH = 64.0
"""Attention logit of an equal token, or of the wanted distance."""
_AVOID = 30.0
"""How far the duplicate head's logit of the token itself is lowered; enough for every other distance to win."""
_SINK = 40.0
"""Attention logit of the first token in the sink head, and minus that in the induction heads."""
_OUTPUT = 12.0
"""Logit of a token that the retrieval head copies with all its weight."""


@dataclass(frozen=True, kw_only=True)
class _Circuit:
    """What a planted head computes, as maps from the slots' coordinates to its own.

    Attributes:
        query: [slots, size]; `key` and `value` likewise.
        key: see `query`.
        bias: [size], added to the query.
        value: see `query`, or None for a weak random one.
        output: [size, slots], or None with `value`.
    """

    query: Tensor
    key: Tensor
    bias: Tensor
    value: Tensor | None = None
    output: Tensor | None = None


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float64)


def _slot(name: str) -> slice:
    """Return the coordinates of a slot."""
    start = 0
    for slot, width in _SLOTS.items():
        if slot == name:
            return slice(start, start + width)
        start += width
    raise KeyError(name)


def _read(slot: str, *, at: int = 0, factor: float = 1.0) -> Tensor:
    """Return the map [slots, size] that puts a slot at coordinates `at` and on, times `factor`."""
    read = _zeros(sum(_SLOTS.values()), SIZE)
    width = _SLOTS[slot]
    read[_slot(slot), at : at + width] = factor * torch.eye(width, dtype=torch.float64)
    return read


def _frequencies() -> Tensor:
    """Return the ten frequencies in radians per token: pi times the fractional part of the square roots of the primes."""
    return torch.pi * torch.tensor(_PRIMES, dtype=torch.float64).sqrt().frac()


def _code(places: Tensor) -> Tensor:
    """Return the position code [places, waves], of unit norm."""
    angles = places[:, None].double() * _frequencies()
    return torch.cat([angles.cos(), angles.sin()], dim=-1) / len(_PRIMES) ** 0.5


def _shift(places: int) -> Tensor:
    """Return the rotation [waves, waves] that takes (from the right) the code of i to that of i + places."""
    angles = places * _frequencies()
    cos, sin = angles.cos().diag(), angles.sin().diag()
    return torch.cat([torch.cat([cos, sin], dim=1), torch.cat([-sin, cos], dim=1)], dim=0)


def _share(logit: float) -> float:
    """Return the factor on query and on key that gives a product of unit codes this attention logit."""
    return (logit * SIZE**0.5) ** 0.5


def _previous() -> _Circuit:
    factor = _share(_MATCH)
    query = _read("position", factor=factor)
    query[_slot("position"), :_WAVES] = query[_slot("position"), :_WAVES] @ _shift(-1)
    output = _read("previous").T
    return _Circuit(
        query=query, key=_read("position", factor=factor), bias=_zeros(SIZE), value=_read("token"), output=output
    )


def _duplicate() -> _Circuit:
    match, avoid = _share(_MATCH), _share(_AVOID)
    query = _read("token", factor=match) + _read("position", at=VOCAB, factor=-avoid)
    key = _read("token", factor=match) + _read("position", at=VOCAB, factor=avoid)
    return _Circuit(query=query, key=key, bias=_zeros(SIZE))


def _sink() -> _Circuit:
    bias = _zeros(SIZE)
    bias[0] = _share(_SINK)
    return _Circuit(query=0.0 * _read("token"), key=_read("first", factor=_share(_SINK)), bias=bias)


def _uniform() -> _Circuit:
    return _Circuit(query=0.0 * _read("token"), key=0.0 * _read("token"), bias=_zeros(SIZE))


def _induction() -> _Circuit:
    factor, avoid = _share(_MATCH), _share(_SINK)
    bias = _zeros(SIZE)
    # place 0 attends to itself in the previous-token head, so its `previous` slot holds a token that nothing precedes
    bias[VOCAB] = -avoid
    key = _read("previous", factor=factor) + _read("first", at=VOCAB, factor=avoid)
    return _Circuit(query=_read("token", factor=factor), key=key, bias=bias)


def _retrieval() -> _Circuit:
    attends = _induction()
    return _Circuit(
        query=attends.query, key=attends.key, bias=attends.bias, value=_read("token"), output=_read("copy").T
    )


_CIRCUITS: dict[str, tuple[int, Callable[[], _Circuit]]] = {
    "previous": (0, _previous),
    "duplicate": (0, _duplicate),
    "sink": (0, _sink),
    "uniform": (0, _uniform),
    "induction": (1, _induction),
    "retrieval": (1, _retrieval),
}
"""Layer and circuit of every kind."""
PLANTED = tuple(_CIRCUITS)
"""The kinds of heads that can be planted. Layer 2 holds random heads only."""


def planted_parts(*heads: str, seed: int = 0) -> tuple[LoadedParts, dict[str, tuple[int, int]]]:
    """Build a GPT-2 with the named heads planted, without attaching anything.

    Args:
        heads: the kinds to plant, of `PLANTED`; none means all. Induction and retrieval bring the previous-token head that they read.
        seed: of the basis, of the heads' places in their layers and of the random heads.

    Returns:
        The model (3 layers, 5 heads, vocabulary 97) with a tokenizer of words "w1" ... "w96", and {kind: (layer, head)}.

    Raises:
        OptionError: a kind that is none of `PLANTED`.
    """
    unknown = sorted(set(heads) - set(_CIRCUITS))
    if unknown:
        raise OptionError(f"heads must be among {', '.join(PLANTED)}; got {', '.join(unknown)}")
    wanted = set(heads or _CIRCUITS)
    if wanted.intersection(_NEEDS_PREVIOUS):
        wanted.add("previous")
    generator = torch.Generator().manual_seed(seed)
    slots = [torch.randperm(HEADS, generator=generator).tolist() for _ in range(LAYERS)]
    places = {kind: (layer, slots[layer].pop()) for kind, (layer, _) in _CIRCUITS.items() if kind in wanted}
    with torch.random.fork_rng(devices=[]):
        hf = GPT2LMHeadModel(_config())
    _fill(hf, places, generator)
    source = ModelSource(name=f"planted-{seed}", kind="toy")
    return LoadedParts(hf=hf.eval(), tokenizer=_word_tokenizer(), source=source), places


def planted(*heads: str, seed: int = 0) -> tuple[HookedModel, dict[str, tuple[int, int]]]:
    """Build a hooked GPT-2 with the named heads planted; see `planted_parts`."""
    parts, places = planted_parts(*heads, seed=seed)
    return wrap(parts.hf, parts.tokenizer, source=parts.source), places


def _config() -> GPT2Config:
    return GPT2Config(
        vocab_size=VOCAB,
        n_positions=POSITIONS,
        n_embd=_HIDDEN,
        n_layer=LAYERS,
        n_head=HEADS,
        n_inner=1,
        layer_norm_epsilon=1e-12,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )


def _word_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of words between spaces: "w7" is token 7."""
    words = {"<pad>": 0} | {f"w{i}": i for i in range(1, VOCAB)}
    core = Tokenizer(WordLevel(words, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=POSITIONS, pad_token="<pad>")


@torch.no_grad()
def _fill(hf: GPT2LMHeadModel, places: dict[str, tuple[int, int]], generator: torch.Generator) -> None:
    """Set every weight of the model, computing in float64."""
    basis = _basis(generator)
    first = _zeros(POSITIONS, 2)
    first[0, 0], first[1:, 1] = 1.0, 1.0
    hf.transformer.wte.weight.copy_(basis[:, _slot("token")].T)
    hf.transformer.wpe.weight.copy_(
        _code(torch.arange(POSITIONS)) @ basis[:, _slot("position")].T + first @ basis[:, _slot("first")].T
    )
    # squared norm of the stream that each LayerNorm sees: token, position and first, then what was written
    writes = ["previous" in places, "retrieval" in places, False]
    squares = [3.0 + sum(writes[:layer]) for layer in range(LAYERS + 1)]
    blocks: Any = hf.transformer.h
    for layer, block in enumerate(blocks):
        unscale = (squares[layer] / _HIDDEN) ** 0.5
        for weight in block.mlp.parameters():
            weight.zero_()
        attention = block.attn
        attention.c_attn.bias.zero_()
        attention.c_proj.bias.zero_()
        taken = {head: kind for kind, (at, head) in places.items() if at == layer}
        for head in range(HEADS):
            mine = slice(head * SIZE, (head + 1) * SIZE)
            query, key, value, output = _weak(generator)
            if head in taken:
                circuit = _CIRCUITS[taken[head]][1]()
                query, key = unscale * basis @ circuit.query, unscale * basis @ circuit.key
                attention.c_attn.bias[mine] = circuit.bias.float()
                if circuit.value is not None and circuit.output is not None:
                    value, output = unscale * basis @ circuit.value, circuit.output @ basis.T
            for part, weight in enumerate((query, key, value)):
                attention.c_attn.weight[:, part * _HIDDEN :][:, mine] = weight.float()
            attention.c_proj.weight[mine] = output.float()
    unscale = (squares[LAYERS] / _HIDDEN) ** 0.5
    hf.lm_head.weight.copy_(_OUTPUT * unscale * basis[:, _slot("copy")].T)


def _basis(generator: torch.Generator) -> Tensor:
    """Return orthonormal columns [hidden, slots], each orthogonal to the all-ones vector that LayerNorm removes."""
    count = sum(_SLOTS.values())
    draw = torch.randn(_HIDDEN, count + 1, generator=generator, dtype=torch.float64)
    draw[:, 0] = 1.0
    return torch.linalg.qr(draw).Q[:, 1:]


def _weak(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw a head whose attention logits have a standard deviation near 0.3 and whose output has a norm near 0.05."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    small = (0.3 / _HIDDEN) ** 0.5
    query, key = small * draw(_HIDDEN, SIZE), small * draw(_HIDDEN, SIZE)
    value, output = draw(_HIDDEN, SIZE) / _HIDDEN**0.5, 0.05 / (_HIDDEN * SIZE) ** 0.5 * draw(SIZE, _HIDDEN)
    return query, key, value, output
