"""Head outputs of paired prompts, and encoders that give each of them sparse features: what the codes of `interp.circuits.codes` are read off.

`shared_dictionary` is the encoder of O'Neill and Bui 2024 (arXiv 2405.12522): one small autoencoder for what all heads write,

    f = ReLU((x - b) E),  x̂ = f D + b,  columns of E and rows of D of norm 1,   loss = mean (x - x̂)^2 + sparsity x mean f

fitted anew to a few examples of all heads. `layer_encoders` takes autoencoders that exist: those of z of whole layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from interp.capture.call import Attended, AttentionCall
from interp.circuits.pairs import Pairs, marked
from interp.errors import OptionError
from interp.interventions.where import Head
from interp.models.hooked import HookedModel
from interp.models.outputs import output_weights

Scale = Literal["none", "unit"]
FEATURES, EXAMPLES, STEPS, RATE, SPARSITY = 200, 10, 500, 1e-3, 0.02
"""Of the paper's released code."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadOutputs:
    """What every head gave on each example, mean over some of its tokens; float32, positives first, then their negatives in the same order.

    Attributes:
        z: by layer, before W_O, [2 x pair, head, d_head].
        written: in the residual basis, z_h W_O[h], [2 x pair, all heads, d].
    """

    z: Mapping[int, Tensor]
    written: Tensor

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return len(self.written) // 2

    @property
    def heads(self) -> list[Head]:
        """All heads in the order of `written`."""
        return [(layer, h) for layer, z in self.z.items() for h in range(z.shape[1])]


Coder = Callable[[HeadOutputs, int], tuple[list[Head], Tensor]]
"""(outputs, seed) -> the heads that can be coded, and their features, 0 or more, [2 x pair, head, feature]."""


@runtime_checkable
class Encoder(Protocol):
    """An autoencoder of z of one layer, such as `interp.saes.SAE`."""

    @property
    def W_enc(self) -> Tensor:
        """[head x d_head, feature]."""
        ...

    def encode(self, z: Tensor, /) -> Tensor:
        """Features [..., feature] of z [..., head x d_head]."""
        ...


@torch.no_grad()
def head_outputs(model: HookedModel, groups: Sequence[Pairs], label: str) -> HeadOutputs:
    """Run clean and corrupted prompts and keep the mean of each head's output over the tokens that a label names.

    Args:
        model: a decoder.
        groups: of `interp.circuits.pairs.paired`.
        label: "all", or a row or key set of the prompts.

    Raises:
        UnsupportedModelError: what a head writes cannot be told.
    """
    weights = output_weights(model)
    count = sum(len(pairs.numbers) for pairs in groups)
    z: dict[int, Tensor] = {}
    for pairs in groups:
        share = marked(pairs, label).float()
        share = share / share.sum(1, keepdim=True)
        for first, ids in ((0, pairs.clean), (count, pairs.corrupt)):
            rows = torch.tensor(pairs.numbers) + first

            def take(call: AttentionCall, attended: Attended, rows: Tensor = rows, share: Tensor = share) -> None:
                mean = torch.einsum("bhnd,bn->bhd", attended.out.float(), share.to(attended.out.device)).cpu()
                z.setdefault(call.site.layer, torch.zeros(2 * count, *mean.shape[1:]))[rows] = mean

            model.probe(ids.tolist(), take)
    z = dict(sorted(z.items()))
    written = [torch.einsum("nhe,hed->nhd", x, weights[layer].float().cpu()) for layer, x in z.items()]
    return HeadOutputs(z=z, written=torch.cat(written, 1))


def shared_dictionary(
    *,
    features: int = FEATURES,
    examples: int = EXAMPLES,
    steps: int = STEPS,
    rate: float = RATE,
    sparsity: float = SPARSITY,
    scale: Scale = "none",
) -> Coder:
    """The paper's encoder, fitted to what all heads write on a few examples.

    Args:
        features: size of the dictionary.
        examples: drawn without replacement from positives and negatives together.
        steps: of Adam on all of them at once.
        rate: its learning rate.
        sparsity: weight of the L1 loss.
        scale: "none" takes vectors as they are; "unit" brings each to norm √d first, so that a head's size cannot decide its code.

    Raises:
        OptionError: sizes below 1, or a negative weight.
    """
    if min(features, examples, steps) < 1 or rate <= 0 or sparsity < 0:
        raise OptionError("wanted features, examples and steps of at least 1, a rate above 0, a sparsity of at least 0")

    def code(outputs: HeadOutputs, seed: int) -> tuple[list[Head], Tensor]:
        x = outputs.written
        if scale == "unit":
            x = x.shape[-1] ** 0.5 * normalize(x, dim=-1)
        draw = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(x), generator=draw)[:examples]
        encode = _fitted(x[chosen].flatten(0, 1), features, steps, rate, sparsity, draw)
        return outputs.heads, encode(x)

    return code


def layer_encoders(encoders: Mapping[int, Encoder]) -> Coder:
    """Codes from autoencoders of z of some layers: a head's features are what it adds (z_h . W_enc[h], 0 or more) to those that are active.

    Args:
        encoders: by layer. Heads of other layers get no code.

    Raises:
        OptionError: none given.
    """
    if not encoders:
        raise OptionError("encoders: give an autoencoder for at least one layer")

    @torch.no_grad()
    def code(outputs: HeadOutputs, seed: int) -> tuple[list[Head], Tensor]:
        found, heads = [], []
        for layer, encoder in sorted(encoders.items()):
            if layer not in outputs.z:
                raise OptionError(f"encoders: layer {layer} does not exist; layers are 0 to {max(outputs.z)}")
            z = outputs.z[layer]
            active = encoder.encode(z.flatten(1)) > 0
            columns = encoder.W_enc.detach().float().unflatten(0, (z.shape[1], -1))
            found.append(torch.einsum("nhe,hef->nhf", z, columns).clamp(min=0) * active[:, None])
            heads += [(layer, h) for h in range(z.shape[1])]
        width = max(x.shape[-1] for x in found)
        return heads, torch.cat([torch.nn.functional.pad(x, (0, width - x.shape[-1])) for x in found], 1)

    return code


def top_codes(features: Tensor, k: int) -> Tensor:
    """Numbers of the k largest features that are above 0, int64 [..., k], ties to the lowest; -1 where there are fewer."""
    order = torch.argsort(features, dim=-1, descending=True, stable=True)[..., :k]
    return torch.where(features.gather(-1, order) > 0, order, -1)


def paired_norm(outputs: HeadOutputs) -> np.ndarray:
    """The baseline that needs no codes: mean over pairs of the norm of what a head writes on a positive less on its negative, [head]."""
    n = outputs.pairs
    return (outputs.written[:n] - outputs.written[n:]).norm(dim=-1).mean(0).double().numpy()


def _fitted(
    x: Tensor, features: int, steps: int, rate: float, sparsity: float, draw: torch.Generator
) -> Callable[[Tensor], Tensor]:
    """The encoder of an autoencoder fitted to x [n, d]."""
    encoder = torch.randn(x.shape[1], features, generator=draw).requires_grad_()
    decoder = encoder.detach().T.clone().requires_grad_()
    bias = torch.zeros(x.shape[1], requires_grad=True)

    def encode(y: Tensor) -> Tensor:
        return ((y - bias) @ normalize(encoder, dim=0)).relu()

    optimiser = torch.optim.Adam([encoder, decoder, bias], lr=rate)
    with torch.enable_grad():
        for _ in range(steps):
            f = encode(x)
            loss = (x - f @ normalize(decoder, dim=1) - bias).square().mean() + sparsity * f.mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    @torch.no_grad()
    def code(y: Tensor) -> Tensor:
        return encode(y)

    return code
