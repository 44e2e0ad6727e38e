"""sigmaReparam (Zhai et al. 2023, arXiv 2303.06296, section 3.2): every linear layer's weight is W_hat = (gamma / sigma(W)) W.

sigma(W) is the largest singular value, by one power iteration per training step, gamma a learned scalar, which is then the spectral norm of
W_hat: attention logits can grow only as fast as gamma does, which keeps the entropy bound (`interp.entropy.bound`) from falling. The gradient
goes through sigma = u^T W v but not through u and v, which move in training mode with gradients on and only then: reading a weight, evaluating
and monitoring change nothing. sigma is float32 at least, autocast or not.

`convert` changes a model in place by torch's own parametrizations, `remove` puts the plain weights back. Checkpoints load both ways: one of the plain
model into a converted one by `load_state_dict` as usual, one of a converted model into a plain one through `plain_state`. Convert before
building the optimizer, DDP or torch.compile, which hold on to the parameters they were given.

Where paper and released code differ: the code starts gamma at sigma(W) in PyTorch (`start="spectral"`, the default here: the function of the model
is unchanged) and at 1 in JAX (`start="one"`). One scalar per layer means one for a joint query-key-value projection; `parts` or
`split_fused=True` gives each its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers.pytorch_utils import Conv1D

from interp.errors import OptionError, ShapeError

Start = Literal["spectral", "one"]
Where = Callable[[str, nn.Module], bool]
FUSED = ("c_attn", "in_proj", "qkv")
"""Names of joint projections whose output is queries, keys and values in three equal parts."""
_HELD = ".parametrizations."


class SigmaReparam(nn.Module):
    """The parametrization of one weight; `convert` registers it.

    Attributes:
        gamma: learned, [parts].
        u, v: singular vectors as far as the power iteration has come, [parts, out / parts] and [parts, in], float32 at least.
    """

    u: Tensor
    v: Tensor

    def __init__(
        self, weight: Tensor, *, parts: int = 1, outputs: Literal["first", "last"] = "first", start: Start
    ) -> None:
        """Find the singular vectors of a weight.

        Args:
            weight: [out, in ...], or [in, out] with outputs="last".
            parts: equal parts of the output that are normed apart.
            outputs: which axis of the weight is the output's; "last" for transformers' Conv1D.
            start: where gamma starts, sigma(W) or 1.

        Raises:
            OptionError: the weight is zero, so that W / sigma(W) is not defined.
            ShapeError: its output does not have `parts` equal parts.
        """
        super().__init__()
        self.parts = parts
        self.outputs: Literal["first", "last"] = outputs
        u, v = self._singular_vectors(weight.detach())
        self.register_buffer("u", u)
        self.register_buffer("v", v)
        sigma = self.sigma(weight.detach())
        self.gamma = nn.Parameter((sigma if start == "spectral" else torch.ones_like(sigma)).to(weight.dtype))

    def forward(self, weight: Tensor) -> Tensor:
        """W_hat, in the weight's shape and dtype; one power iteration in training mode with gradients on."""
        if self.training and torch.is_grad_enabled():
            self._iterate(weight)
        matrix = self._matrix(weight)
        scaled = matrix * (self.gamma.to(matrix) / self.sigma(weight).to(matrix))[:, None, None]
        flat = scaled.flatten(0, 1)
        return (flat.T if self.outputs == "last" else flat).reshape(weight.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The stored weight of a weight that is assigned: itself, so that a model keeps the weights it was converted with."""
        return weight

    def sigma(self, weight: Tensor) -> Float[Tensor, " part"]:
        """u^T W v of every part; float32 at least, differentiable in the weight."""
        matrix = self._matrix(weight).to(self.u.dtype)
        with torch.autocast(matrix.device.type, enabled=False):
            # Clones, because the next iteration writes into u and v while this graph may still want them.
            return torch.einsum("po,poi,pi->p", self.u.clone(), matrix, self.v.clone())

    @torch.no_grad()
    def reset(self, weight: Tensor, *, gamma: bool) -> None:
        """Take the singular vectors of another weight, and with `gamma` its spectral norm, so that W_hat is that weight."""
        u, v = self._singular_vectors(weight)
        self.u.copy_(u)
        self.v.copy_(v)
        if gamma:
            self.gamma.copy_(self.sigma(weight))

    @torch.no_grad()
    def _iterate(self, weight: Tensor) -> None:
        matrix = self._matrix(weight).to(self.u.dtype)
        with torch.autocast(matrix.device.type, enabled=False):
            self.u.copy_(nn.functional.normalize(torch.einsum("poi,pi->po", matrix, self.v), dim=1))
            self.v.copy_(nn.functional.normalize(torch.einsum("poi,po->pi", matrix, self.u), dim=1))

    def _matrix(self, weight: Tensor) -> Tensor:
        """The weight as [parts, out / parts, in]."""
        outputs_first = weight.T if self.outputs == "last" else weight.flatten(1)
        if outputs_first.shape[0] % self.parts:
            raise ShapeError(f"sigmaReparam: {outputs_first.shape[0]} outputs do not make {self.parts} equal parts")
        return outputs_first.unflatten(0, (self.parts, -1))

    def _singular_vectors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        matrix = self._matrix(weight)
        left, size, right = torch.linalg.svd(
            matrix.to(torch.promote_types(matrix.dtype, torch.float32)), full_matrices=False
        )
        if not bool((size[:, 0] > 0).all()):
            raise OptionError(
                "sigmaReparam: a weight is all zero, so W / sigma(W) is not defined; initialise it, or leave it out with where="
            )
        return left[:, :, 0].contiguous(), right[:, 0].contiguous()


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What `convert` did.

    Attributes:
        names: converted weights, in the order of the model.
        skipped: weights that were left alone because several modules share them (a tied unembedding), or they were converted already.
    """

    names: tuple[str, ...]
    skipped: tuple[str, ...]


def convert(
    model: nn.Module, *, where: Where | None = None, start: Start = "spectral", split_fused: bool = False
) -> Converted:
    """Reparametrise the linear layers of a model in place: nn.Linear, convolutions, transformers' Conv1D, nn.MultiheadAttention's inputs.

    Args:
        model: any module.
        where: (name, module) -> whether to convert it; None converts all.
        start: where gamma starts: "spectral" leaves the model's function as it is, "one" makes every spectral norm 1.
        split_fused: norm the three equal parts of joint query-key-value projections (`FUSED`) apart.

    Returns:
        Which weights were converted and which were not.

    Raises:
        OptionError: a weight is all zero, nothing was found to convert, or an unknown start.
    """
    if start not in ("spectral", "one"):
        raise OptionError(f"start must be spectral or one; got {start!r}")
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    names, skipped, found = list[str](), list[str](), list[tuple[nn.Module, str, str, SigmaReparam]]()
    for path, module in list(model.named_modules()):
        if where is not None and not where(path, module):
            continue
        for key in _weights(module):
            name = f"{path}.{key}" if path else key
            if parametrize.is_parametrized(module, key) or owners[id(getattr(module, key))] > 1:
                skipped.append(name)
                continue
            parts = 3 if split_fused and _is_fused(path, key) else 1
            outputs: Literal["first", "last"] = "last" if isinstance(module, Conv1D) else "first"
            try:
                made = SigmaReparam(getattr(module, key), parts=parts, outputs=outputs, start=start)
            except (OptionError, ShapeError) as error:
                raise type(error)(f"{name}: {error}") from error
            names.append(name)
            found.append((module, key, name, made))
    if not found:
        raise OptionError(
            "sigmaReparam found no linear layer to convert; look at where=, and at what was converted before"
        )
    for module, key, _, made in found:
        # Unsafe only means that torch does not check the dtype and shape, which `forward` keeps; the check would iterate once.
        parametrize.register_parametrization(module, key, made.train(module.training), unsafe=True)
        _accept_plain(module, key)
    return Converted(names=tuple(names), skipped=tuple(skipped))


def remove(model: nn.Module) -> tuple[str, ...]:
    """Put plain weights in place of reparametrised ones; the model's function in evaluation mode stays the same to the bit. Returns their names."""
    names = list[str]()
    for path, module in list(model.named_modules()):
        for key, made in list(_reparametrised(module)):
            made.eval()
            parametrize.remove_parametrizations(module, key, leave_parametrized=True)
            names.append(f"{path}.{key}" if path else key)
    return tuple(names)


def spectral_norms(model: nn.Module) -> dict[str, tuple[float, ...]]:
    """gamma, the spectral norm of W_hat as far as the power iteration has converged, of every converted weight and part."""
    found = {}
    for path, module in model.named_modules():
        for key, made in _reparametrised(module):
            found[f"{path}.{key}" if path else key] = tuple(made.gamma.detach().float().tolist())
    return found


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict that the model would have after `remove`: plain names, the weights W_hat; the model itself is left as it is."""
    state = {name: x for name, x in model.state_dict().items() if _HELD not in f".{name}"}
    with torch.no_grad():
        for path, module in model.named_modules():
            for key, _ in _reparametrised(module):
                state[f"{path}.{key}" if path else key] = getattr(module, key).detach().clone()
    return state


def _weights(module: nn.Module) -> tuple[str, ...]:
    """Names of the weights of one module that are linear layers."""
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | Conv1D):
        return ("weight",)
    if isinstance(module, nn.MultiheadAttention):
        joint = (
            ("in_proj_weight",)
            if module.in_proj_weight is not None
            else ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        )
        return joint
    return ()


def _is_fused(path: str, key: str) -> bool:
    name = path.rsplit(".", 1)[-1]
    return key == "in_proj_weight" or any(fused in name for fused in FUSED)


def _reparametrised(module: nn.Module) -> list[tuple[str, SigmaReparam]]:
    if not parametrize.is_parametrized(module):
        return []
    held: Any = module.parametrizations
    return [(key, made) for key, chain in held.items() for made in chain if isinstance(made, SigmaReparam)]


def _accept_plain(module: nn.Module, key: str) -> None:
    """Let a checkpoint of the plain model load: its weight becomes the stored weight, with its own singular vectors and spectral norm."""

    def rename(owner: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
        made = dict(_reparametrised(owner)).get(key)
        if made is None or prefix + key not in state:
            return
        weight: Tensor = state.pop(prefix + key)
        fresh = SigmaReparam(weight, parts=made.parts, outputs=made.outputs, start="spectral")
        inside = f"{prefix}parametrizations.{key}."
        state[inside + "original"] = weight
        state.update({f"{inside}0.{name}": x for name, x in fresh.state_dict().items()})

    module.register_load_state_dict_pre_hook(rename)
