"""OV copying score: does a head raise the logit of the very token it attends to? From the weights alone.

    l_h(s, t) = direct path of head h from token s to the logit of t, less its mean over the whole vocabulary
    score(h)  = mean over tokens s of  max(l_h(s, s), 0) / sum over candidates t of max(l_h(s, t), 0)

Olsson et al. 2022 ("In-context Learning and Induction Heads", arXiv 2209.11895, appendix): share of the logit raise, on the direct path
through a ReLU after centring, that lands on the attended token. The candidates are the 25 random tokens of a sequence, or the whole
vocabulary; the paper's text was not at hand, so both are here and the manifest names which. A head that raises no candidate scores 0.

What stands for the attended token matters more than anything else. With the bare embedding (the paper's direct path) a head that reads what
block 0 has made of a token looks like no copier: SmolLM2-135M's induction head 23.2 scores 0.03 with "embed" and 0.32 with
"embed+attn+mlp", which is therefore the default (the IOI copy score, arXiv 2211.00593, also reads the state after block 0).

`suppression` is the same share of what the head lowers (max(-l, 0)): heads whose pattern is that of induction but whose OV circuit lowers
what they attend to (anti-induction, copy suppression) have a high one. `eigenvalues` is the score of Elhage et al. 2021 ("A Mathematical
Framework for Transformer Circuits"): sum of lambda / sum of |lambda| over the eigenvalues of e W_V W_O W_U, in [-1, 1], from a matrix of
the size of a value vector, over 4,096 random tokens; the division by each token's standard deviation in the norm is left out there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import InputDataError, OptionError
from interp.heads.direct_path import DirectPath, Norms
from interp.heads.parts import Embedding, affine
from interp.heads.tables import head_table, named
from interp.heads.weights import read_weights
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import generator
from interp.tasks.vocabulary import ordinary_ids

Candidates = Literal["sequence", "vocabulary"]
TOKENS = 25
"""Tokens of a sequence (Olsson et al.)."""
DROP = 0.01
"""Share of ordinary ids left out at each end of the numbering, as the most and least common tokens."""
EIGENVALUE_TOKENS = 4096
VOCABULARY_BLOCK = 8192


@torch.no_grad()
def copying(
    model: HookedModel,
    *,
    embedding: Embedding = "embed+attn+mlp",
    norms: Norms = "model",
    candidates: Candidates = "sequence",
    samples: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Score every head of a decoder by how much of the logit raise lands on the attended token.

    Args:
        model: a decoder with a tokenizer.
        embedding: what stands for the attended token, see `interp.heads.parts`; "embed" is the form of Olsson et al.
        norms: see `interp.heads.direct_path`.
        candidates: "sequence", the 25 tokens of a sample (a head that raises logits at random scores about 0.04), or "vocabulary"
            (about 1 / vocabulary; costs one product with the whole unembedding per head).
        samples: sequences of 25 distinct random tokens.
        seed: of the draws; sequence i does not depend on how many there are.
        progress: called with (layers done, layers).

    Returns:
        Result "heads.copying": score in [0, 1]; spread, the standard deviation over sequences; control, the share that lands on the
        sequence's next token instead; suppression in [0, 1]; eigenvalues in [-1, 1]. Arrays: score [sample, layer, head].

    Raises:
        OptionError: an unknown option, or fewer than two samples.
        UnsupportedModelError: a model whose weights cannot be read per head.
    """
    named("embedding", embedding, get_args(Embedding))
    named("norms", norms, get_args(Norms))
    named("candidates", candidates, get_args(Candidates))
    if samples < 2:
        raise OptionError(f"samples must be at least 2 (10 for numbers to report), got {samples}")
    weights = read_weights(model)
    pool = _ordinary(model)
    ids = _draw(pool, samples, seed).to(model.device)
    path = DirectPath(weights, norms)
    x = weights.effective_embedding(ids.flatten(), embedding)
    everything = path.unembedding()
    mean = everything.mean(0)
    chosen = everything[ids.flatten()] - mean
    some = torch.as_tensor(np.random.default_rng(seed).permutation(pool)[:EIGENVALUE_TOKENS], device=model.device)
    circuit = everything[some].T @ weights.effective_embedding(some, embedding)
    shape = (samples, model.layers, model.heads)
    score, control, lowered = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    eigenvalues = np.zeros(shape[1:])
    for layer in range(model.layers):
        values = path.values(layer, x).unflatten(1, (samples, TOKENS))
        outputs = path.outputs(layer)
        readout = (outputs @ chosen.T).unflatten(2, (samples, TOKENS))
        # [head, sample, attended token, candidate]
        raised = torch.einsum("hsae,hesc->hsac", values, readout)
        sums = None
        if candidates == "vocabulary":
            sums = _vocabulary_sums(values, outputs, everything - mean)
        for sign, kept in ((1, score), (-1, lowered)):
            share = _shares(sign * raised, None if sums is None else sums[sign])
            kept[:, layer] = share.diagonal(dim1=-2, dim2=-1).mean(-1).T.cpu().numpy()
            if sign == 1:
                control[:, layer] = share.roll(-1, dims=-1).diagonal(dim1=-2, dim2=-1).mean(-1).T.cpu().numpy()
        eigenvalues[layer] = _eigenvalue_score(path, circuit, layer)
        if progress is not None:
            progress(layer + 1, model.layers)
    table = head_table(
        score,
        control=control.mean(0),
        extra={"suppression": lowered.mean(0), "eigenvalues": eigenvalues},
    )
    settings = {
        "embedding": embedding,
        "norms": norms,
        "candidates": candidates,
        "tokens": TOKENS,
        "samples": samples,
        "drop": DROP,
        "layout": weights.layout.name,
    }
    manifest = model.manifest() | {
        "method": "copying",
        "source": "Olsson et al. 2022 (arXiv 2209.11895), appendix; eigenvalues: Elhage et al. 2021",
        "settings": settings,
        "seed": seed,
    }
    return Result(kind="heads.copying", table=table, manifest=manifest, arrays={"score": score.astype(np.float32)})


def _ordinary(model: HookedModel) -> NDArray[np.int64]:
    """The ids that tokens are drawn from."""
    if model.tokenizer is None:
        raise InputDataError("the copying score draws ordinary tokens of a tokenizer, and this model came without one")
    pool = ordinary_ids(model.tokenizer)
    cut = int(len(pool) * DROP)
    pool = pool[cut : len(pool) - cut]
    if len(pool) < TOKENS:
        raise InputDataError(f"the vocabulary has {len(pool)} ordinary tokens; the copying score needs {TOKENS}")
    return pool


def _draw(pool: NDArray[np.int64], samples: int, seed: int) -> Tensor:
    """Distinct tokens of each sequence: int64 [sample, token]."""
    drawn = [generator(seed, sample).choice(pool, size=TOKENS, replace=False) for sample in range(samples)]
    return torch.as_tensor(np.stack(drawn))


def _shares(raised: Tensor, sums: Tensor | None) -> Tensor:
    """Share of each candidate in what is raised: [head, sample, attended token, candidate], 0 where nothing is."""
    raised = raised.clamp(min=0)
    sums = raised.sum(-1) if sums is None else sums
    return torch.where(sums[..., None] > 0, raised / sums[..., None], 0.0)


def _vocabulary_sums(values: Tensor, outputs: Tensor, centred: Tensor) -> dict[int, Tensor]:
    """Sums of what is raised (1) and lowered (-1) over the whole vocabulary: [head, sample, attended token]."""
    sums = {1: torch.zeros(values.shape[:3]), -1: torch.zeros(values.shape[:3])}
    for head in range(values.shape[0]):
        for rows in centred.split(VOCABULARY_BLOCK):
            logits = values[head].flatten(0, 1) @ (outputs[head] @ rows.T)
            for sign in sums:
                sums[sign][head] += (sign * logits).clamp(min=0).sum(-1).view(values.shape[1:3]).cpu()
    return {sign: x.to(values) for sign, x in sums.items()}


def _eigenvalue_score(path: DirectPath, circuit: Tensor, layer: int) -> NDArray[np.float64]:
    """Sum of eigenvalues over the sum of their absolute values, of each head: [head].

    `circuit` [d, d] is the sum over tokens of (unembedding direction) x (effective embedding): the eigenvalues of the circuit over tokens
    are those of W_O circuit W_V, and further zeros.
    """
    heads = path.weights.layer(layer)
    inputs = circuit if path.norms == "none" else affine(heads.norm, circuit.shape[1]).direction(circuit)
    small = path.outputs(layer) @ inputs @ heads.values.float()[heads.groups]
    eigenvalues = torch.linalg.eigvals(small.double())
    size = eigenvalues.abs().sum(-1)
    return torch.where(size > 0, eigenvalues.real.sum(-1) / size, 0.0).cpu().numpy()
