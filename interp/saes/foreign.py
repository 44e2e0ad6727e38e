"""Autoencoders of two other code bases: Kissane et al.'s attention-output releases, and dictionary_learning.

Both come as `.pt` files, which are read by `torch.load(weights_only=True)` alone: tensors and plain containers, no code.

Kissane: NAME.pt (W_enc, b_enc, W_dec, b_dec) beside NAME_cfg.json (act_size, dict_size, act_name ...); standard, z of all heads.
dictionary_learning (0.1): a folder of ae.pt and config.json; `trainer.dict_class` there names the class, whose conventions differ:

    AutoEncoder, AutoEncoderNew      standard; the latter's encoder does not take the decoder's bias off
    GatedAutoEncoder                 gated; features in units of the decoder's norms, so these are folded in
    AutoEncoderTopK                  topk
    JumpReluAutoEncoder              jumprelu; no bias off, norms folded in
    BatchTopKSAE, Matryoshka...      jumprelu with their one threshold
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from interp.errors import CorruptFileError, UnsupportedModelError
from interp.saes.config import Architecture, SAEConfig
from interp.saes.core import SAE

Stored = Mapping[str, Tensor]

CONTEXT_OF_KISSANE = 128


def load_kissane(path: Path) -> SAE:
    """Read NAME.pt beside NAME_cfg.json.

    Raises:
        CorruptFileError: a file is missing or damaged, or they do not fit.
    """
    config_path = path.with_name(f"{path.stem}_cfg.json")
    stored, record = _tensors(path), _json(config_path)
    metadata = {
        "model_name": record.get("model_name"),
        "hook_name": record.get("act_name"),
        "context_size": record.get("seq_len", CONTEXT_OF_KISSANE),
        "prepend_bos": True,
    }
    return _built(
        path.name,
        lambda: SAE(
            SAEConfig(
                architecture="standard",
                d_in=record["act_size"],
                d_sae=record["dict_size"],
                reshape_activations="hook_z" if "hook_z" in str(record.get("act_name")) else "none",
                metadata=metadata,
            ),
            {name: stored[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")},
        ),
    )


def load_dictionary_learning(folder: Path) -> SAE:
    """Read a folder of ae.pt and config.json.

    Raises:
        CorruptFileError: a file is missing or damaged, or they do not fit.
        UnsupportedModelError: a class that is not known here.
    """
    stored, record = _tensors(folder / "ae.pt"), _json(folder / "config.json").get("trainer", {})
    name = record.get("dict_class")
    if name not in CLASSES:
        raise UnsupportedModelError(f"{folder.name}: dict_class {name!r}; known classes are {', '.join(CLASSES)}")
    layer = record.get("layer")
    metadata = {
        "model_name": record.get("lm_name"),
        "hook_name": record.get("submodule_name") or (None if layer is None else f"layer {layer}"),
        "dict_class": name,
    }
    return _built(folder.name, lambda: CLASSES[name](stored, metadata))


# ---------------------------------------------------------------------- the classes of dictionary_learning
def _standard(stored: Stored, metadata: Mapping[str, Any]) -> SAE:
    weights = _linear(stored) | {"b_enc": stored["encoder.bias"], "b_dec": stored["bias"]}
    return _sae("standard", weights, metadata)


def _standard_new(stored: Stored, metadata: Mapping[str, Any]) -> SAE:
    weights = _linear(stored) | {"b_enc": stored["encoder.bias"], "b_dec": stored["decoder.bias"]}
    return _sae("standard", weights, metadata, apply_b_dec_to_input=False)


def _gated(stored: Stored, metadata: Mapping[str, Any]) -> SAE:
    weights = _linear(stored) | {
        "b_dec": stored["decoder_bias"],
        "b_gate": stored["gate_bias"],
        "b_mag": stored["mag_bias"],
        "r_mag": stored["r_mag"],
    }
    return _sae("gated", weights, metadata).folded()


def _topk(stored: Stored, metadata: Mapping[str, Any]) -> SAE:
    weights = _linear(stored) | {"b_enc": stored["encoder.bias"], "b_dec": stored["b_dec"]}
    return _sae("topk", weights, metadata, k=int(stored["k"]))


def _batchtopk(stored: Stored, metadata: Mapping[str, Any]) -> SAE:
    weights = _linear(stored) | {"b_enc": stored["encoder.bias"], "b_dec": stored["b_dec"]}
    return _sae("jumprelu", weights | {"threshold": _threshold(stored)}, metadata)


def _matryoshka(stored: Stored, metadata: Mapping[str, Any]) -> SAE:
    return _sae("jumprelu", {**_named(stored), "threshold": _threshold(stored)}, metadata)


def _jumprelu(stored: Stored, metadata: Mapping[str, Any]) -> SAE:
    weights = {**_named(stored), "threshold": stored["threshold"]}
    return _sae("jumprelu", weights, metadata, apply_b_dec_to_input=False).folded()


CLASSES: Final[Mapping[str, Callable[[Stored, Mapping[str, Any]], SAE]]] = {
    "AutoEncoder": _standard,
    "AutoEncoderNew": _standard_new,
    "AutoEncoderTopK": _topk,
    "BatchTopKSAE": _batchtopk,
    "GatedAutoEncoder": _gated,
    "JumpReluAutoEncoder": _jumprelu,
    "MatryoshkaBatchTopKSAE": _matryoshka,
}


def _linear(stored: Stored) -> dict[str, Tensor]:
    """The two maps of torch's Linear layers, which are transposed."""
    return {"W_enc": stored["encoder.weight"].T, "W_dec": stored["decoder.weight"].T}


def _named(stored: Stored) -> dict[str, Tensor]:
    return {name: stored[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}


def _threshold(stored: Stored) -> Tensor:
    """One threshold for every feature; it is negative where training never set it, which keeps all that ReLU keeps."""
    features = stored["decoder.weight"].shape[1] if "decoder.weight" in stored else len(stored["W_dec"])
    return torch.full((features,), max(float(stored["threshold"]), 0.0))


def _sae(
    architecture: Architecture,
    weights: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    *,
    k: int | None = None,
    apply_b_dec_to_input: bool = True,
) -> SAE:
    d_in, d_sae = weights["W_enc"].shape
    config = SAEConfig(
        architecture=architecture,
        d_in=d_in,
        d_sae=d_sae,
        k=k,
        apply_b_dec_to_input=apply_b_dec_to_input,
        metadata=metadata,
    )
    return SAE(config, weights)


# ---------------------------------------------------------------------- reading
def _tensors(path: Path) -> Stored:
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises for a damaged or an unsafe file differs by version
        raise CorruptFileError(
            f"{path.name} is no file of plain tensors ({type(error).__name__}); files that hold code are not read"
        ) from error
    if not isinstance(stored, dict) or not all(isinstance(x, Tensor) for x in stored.values()):
        raise CorruptFileError(f"{path.name}: wanted tensors by name, as state_dict() gives them")
    return stored


def _json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptFileError(f"{path.name} beside the weights cannot be read ({error}); fetch it as well") from error
    if not isinstance(record, dict):
        raise CorruptFileError(f"{path.name}: wanted an object, got {type(record).__name__}")
    return record


def _built(name: str, build: Callable[[], SAE]) -> SAE:
    try:
        return build()
    except (KeyError, ValueError) as error:
        raise CorruptFileError(f"{name}: weights and configuration do not fit: {error}") from error
