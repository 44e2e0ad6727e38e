"""Autoencoders in files, as SAELens 6 writes them: a folder of `cfg.json` and `sae_weights.safetensors` (and `sparsity.safetensors`).

What SAELens wrote is read, and written back byte for byte; what is written here, SAELens reads. Folders of SAELens before 6 are read too.
`load` takes any file that this package knows; see `interp.saes.foreign` for the others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp.errors import CorruptFileError, OptionError, OutputError, UnsupportedModelError
from interp.saes.architectures import shapes
from interp.saes.config import BY_BATCH, CHOOSES_K, DTYPES, SAEConfig
from interp.saes.core import SAE
from interp.saes.foreign import load_dictionary_learning, load_kissane

CONFIG, WEIGHTS, SPARSITY = "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"
VERSION = "6.54.12"
"""The version of SAELens whose format this is; SAELens takes files that name none for older than 6."""
SMALLEST_DENSITY = 1e-10
"""Added to a feature's density before its logarithm is taken, as SAELens does."""
SCALED = "expected_average_only_in"
OLD_NAMES = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
OLD_METADATA = (
    "model_name", "hook_name", "model_class_name", "hook_head_index", "model_from_pretrained_kwargs", "prepend_bos",
    "exclude_special_tokens", "neuronpedia_id", "context_size", "seqpos_slice", "dataset_path", "sae_lens_version",
    "sae_lens_training_version",
)  # fmt: skip


def load(path: str | Path, *, scale: float | None = None) -> SAE:
    """Read an autoencoder: a folder of SAELens or of dictionary_learning, or Kissane's `NAME.pt` beside `NAME_cfg.json`.

    Args:
        path: folder or file.
        scale: factor by which inputs were multiplied in training, for files that say that there was one but not which.

    Raises:
        CorruptFileError: a file is missing or damaged, or its weights do not fit its configuration.
        UnsupportedModelError: an architecture or a normalisation that is not known here, or no such kind of file.
        OptionError: `scale` is missing, or given where there is none.
    """
    path = Path(path)
    if (path / CONFIG).is_file():
        return _load_saelens(path, scale)
    if scale is not None:
        raise OptionError("scale is for folders of SAELens whose inputs were scaled in training; this is none")
    if (path / "ae.pt").is_file():
        return load_dictionary_learning(path)
    if path.suffix == ".pt" and path.is_file():
        return load_kissane(path)
    raise UnsupportedModelError(
        f"{path.name} holds no autoencoder; wanted a folder with {CONFIG} and {WEIGHTS} (SAELens) or with ae.pt and config.json "
        "(dictionary_learning), or a file NAME.pt beside NAME_cfg.json (Kissane); nothing else is read"
    )


def save(sae: SAE, folder: str | Path, *, density: Tensor | None = None) -> Path:
    """Write an autoencoder as SAELens does. Returns the folder.

    Args:
        sae: the autoencoder; batch kinds only after `SAE.with_threshold`.
        folder: where to; files of the same names are replaced.
        density: share of tokens on which each feature fires, [d_sae]; written as its logarithm to base 10.

    Raises:
        OptionError: a batch kind, which has no place in the format.
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    if sae.config.architecture in BY_BATCH:
        raise OptionError(f"{sae.config.architecture} is saved with a threshold: save(sae.with_threshold(t), ...)")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: w.detach().cpu().contiguous() for name, w in sae.weights.items()}, folder / WEIGHTS)
        if density is not None:
            save_file({"sparsity": (density.detach().cpu().float() + SMALLEST_DENSITY).log10()}, folder / SPARSITY)
        (folder / CONFIG).write_text(json.dumps(_record(sae.config)), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write the autoencoder to {folder.name}: {error.strerror or error}") from error
    return folder


def load_density(folder: str | Path) -> Tensor | None:
    """The density of each feature that a folder names, float32 [d_sae]; None if it names none.

    Raises:
        CorruptFileError: the file is damaged.
    """
    path = Path(folder) / SPARSITY
    if not path.exists():
        return None
    try:
        return 10.0 ** load_file(path)["sparsity"].float()
    except (OSError, SafetensorError, KeyError) as error:
        raise CorruptFileError(f"{path.name} holds no densities ({error}); save the autoencoder again") from error


def _record(config: SAEConfig) -> dict[str, Any]:
    """`cfg.json`, its keys in SAELens' order."""
    record = {
        "d_in": config.d_in,
        "d_sae": config.d_sae,
        "dtype": config.dtype,
        "device": "cpu",
        "apply_b_dec_to_input": config.apply_b_dec_to_input,
        "normalize_activations": config.normalize_activations,
        "reshape_activations": config.reshape_activations,
        "metadata": {"sae_lens_version": VERSION, "sae_lens_training_version": VERSION, **config.metadata},
    }
    if config.architecture == "topk":
        record |= {"k": int(config.k or 0), "rescale_acts_by_decoder_norm": config.rescale_acts_by_decoder_norm}
    return {**record, "architecture": config.architecture}


def _load_saelens(folder: Path, scale: float | None) -> SAE:
    try:
        record = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise CorruptFileError(
            f"{folder.name} holds no readable autoencoder ({error}); fetch or save it again"
        ) from error
    if not isinstance(record, dict):
        raise CorruptFileError(f"{folder.name}/{CONFIG}: wanted an object, got {type(record).__name__}")
    version = record.get("sae_lens_version") or record.get("metadata", {}).get("sae_lens_version")
    if not version or int(str(version).split(".")[0]) < 6:
        record = _modern(record)
    _drop_old(weights)
    normalised = record.get("normalize_activations", "none")
    if normalised == SCALED and scale is None:
        raise OptionError(
            f"{folder.name}: its inputs were scaled in training by a factor that the file does not hold; give scale=: "
            "√d_in over the mean norm of z"
        )
    if normalised != SCALED and scale is not None:
        raise OptionError(f"{folder.name}: scale={scale:g} was given, but its inputs were not scaled in training")
    try:
        config = _config(record | ({"normalize_activations": "none"} if normalised == SCALED else {}), folder.name)
        wrong = sorted(set(shapes(config)) ^ set(weights))
        if wrong:
            raise CorruptFileError(
                f"{folder.name}: weights {', '.join(wrong)} are missing or unknown for {config.architecture}"
            )
        sae = SAE(config, weights)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{folder.name}: configuration and weights do not fit: {error}") from error
    return sae if scale is None else sae.unscaled(scale)


def _config(record: dict[str, Any], name: str) -> SAEConfig:
    architecture = record["architecture"]
    if architecture not in ("standard", "gated", "topk", "jumprelu"):
        raise UnsupportedModelError(
            f"{name}: an autoencoder of architecture {architecture!r}; known are standard, gated, topk and jumprelu "
            "(as which SAELens saves batchtopk and matryoshka_batchtopk)"
        )
    if record.get("normalize_activations", "none") not in ("none", "layer_norm", "constant_norm_rescale"):
        raise UnsupportedModelError(
            f"{name}: inputs normalised by {record['normalize_activations']!r}, which is not in its weights; save it folded"
        )
    dtype = str(record.get("dtype", "float32")).removeprefix("torch.")
    return SAEConfig(
        architecture=architecture,
        d_in=record["d_in"],
        d_sae=record["d_sae"],
        k=record.get("k", 100) if architecture in CHOOSES_K else None,
        apply_b_dec_to_input=record.get("apply_b_dec_to_input", True),
        normalize_activations=record.get("normalize_activations", "none"),
        rescale_acts_by_decoder_norm=architecture in CHOOSES_K and record.get("rescale_acts_by_decoder_norm", False),
        reshape_activations=record.get("reshape_activations", "none"),
        dtype=dtype if dtype in DTYPES else "float32",
        metadata=record.get("metadata", {}),
    )


def _modern(old: dict[str, Any]) -> dict[str, Any]:
    """The record of a SAELens before 6 in the words of 6."""
    record = {OLD_NAMES.get(name, name): value for name, value in old.items()}
    kwargs = record.get("activation_fn_kwargs") or {}
    if record.get("activation_fn") == "topk" and kwargs.get("k") is not None:
        record |= {"architecture": "topk", "k": kwargs["k"]}
    record.setdefault("architecture", "standard")
    by_heads = "hook_z" in str(record.get("hook_name", ""))
    record.setdefault("reshape_activations", "hook_z" if by_heads else "none")
    normalised = record.get("normalize_activations") or "none"
    record["normalize_activations"] = SCALED if normalised is True else normalised
    return record | {"metadata": {name: record[name] for name in OLD_METADATA if name in record}}


def _drop_old(weights: dict[str, Tensor]) -> None:
    """Take out what older versions wrote beside the weights. Raises UnsupportedModelError if it means something."""
    scaling = weights.pop("scaling_factor", None)
    if scaling is not None and not bool(torch.allclose(scaling, torch.ones_like(scaling))):
        raise UnsupportedModelError(
            "this autoencoder was fine-tuned with a scaling factor per feature, which is not known here"
        )
    if "log_threshold" in weights:
        weights["threshold"] = weights.pop("log_threshold").exp()
