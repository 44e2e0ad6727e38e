"""Reading a model in Hugging Face's layout: `config.json`, safetensors weights, tokenizer files.

transformers reports a damaged file in many ways; the files are looked at first, so that the message names the file and says
what to do.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from interp.errors import CorruptFileError, ModelNotFoundError, OfflineError, UnsupportedModelError
from interp.models.architecture import Task, choose_task
from interp.models.cache import file_sha256
from interp.models.hub import Place
from interp.models.source import Preprocessor

_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", *_INDEXES)
_TOKENIZER = {
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
}
_PROCESSOR = {"preprocessor_config.json", "processor_config.json"}

_log = logging.getLogger(__name__)


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers from drawing progress bars while it reads or writes weights; downloads still draw theirs."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def folder_place(folder: Path) -> Place:
    """Describe a local folder, having checked what can be checked without loading.

    Raises:
        ModelNotFoundError: it holds no model in Hugging Face's layout.
        CorruptFileError: a JSON or safetensors file cannot be read, or weight files are missing.
    """
    files = frozenset(path.name for path in folder.iterdir() if path.is_file())
    if "config.json" not in files:
        raise ModelNotFoundError(
            f"{folder} has no config.json, so it is not a folder written by save_pretrained{_hint(files)}. "
            f"It holds: {', '.join(sorted(files)[:8]) or 'no files'}"
        )
    for name in sorted(files):
        if name.endswith(".json"):
            _check_json(folder / name)
        elif name.endswith(".safetensors"):
            _check_safetensors(folder / name)
    _check_weights(str(folder), files)
    for index in sorted(files.intersection(_INDEXES)):
        shards = set(json.loads((folder / index).read_text(encoding="utf-8")).get("weight_map", {}).values())
        if shards - files:
            raise CorruptFileError(
                f"{folder} lacks weight files that {index} names: {', '.join(sorted(shards - files))}. Copy them there."
            )
    return Place(where=str(folder), revision=None, files=files, local=True)


def _check_weights(where: str, files: frozenset[str]) -> None:
    """Raise unless there are weights that transformers reads."""
    if not files.intersection(_WEIGHTS):
        raise ModelNotFoundError(
            f"{where} has no weights that transformers reads ({' or '.join(_WEIGHTS[:2])}){_hint(files)}."
        )


def _hint(files: frozenset[str]) -> str:
    """Say what to do where the files are of another format."""
    packed = sorted(name for name in files if name.endswith(".gguf"))
    return f"; give the path of a .gguf file itself, such as {packed[0]}" if packed else ""


def _check_json(path: Path) -> None:
    """Raise unless the file is JSON."""
    try:
        json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptFileError(f"{path} is not valid JSON ({error}). Download or copy it again.") from error


def _check_safetensors(path: Path) -> None:
    """Raise unless the file's header is whole and the file as long as it says."""
    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise CorruptFileError(
            f"{path} is damaged or cut short ({path.stat().st_size:,} bytes; {error}). Download or copy it again."
        ) from error


def weights_sha256(folder: Path) -> str:
    """Hash a folder's weights: the file's own SHA-256, or that of the lines "name hash" of several files (1 s per 1.5 GB)."""
    paths = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    hashes = {path.name: file_sha256(path) for path in paths}
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in hashes.items()).encode()).hexdigest()


def read_place(
    place: Place, *, dtype: torch.dtype, trust_remote_code: bool, task: str | None
) -> tuple[PreTrainedModel, Preprocessor | None]:
    """Read the model at a place, and its tokenizer or processor where there is one.

    Args:
        place: a folder that was checked, or a commit on the hub.
        dtype: of the weights.
        trust_remote_code: run the code that comes with the model.
        task: a key of `interp.models.architecture.TASKS`, or None to follow the configuration.

    Raises:
        CorruptFileError: files that are damaged, or do not fit each other.
        OfflineError: the hub stopped answering.
        UnsupportedModelError: transformers has no class for the model, or cannot build it here.
    """
    _check_weights(place.where, place.files)
    config = _read_config(place, trust_remote_code)
    chosen = choose_task(config, task=task)
    try:
        with without_bars():
            hf, report = chosen.auto.from_pretrained(
                place.where,
                dtype=dtype,
                revision=place.revision,
                local_files_only=place.local,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
    except (ImportError, ValueError, NotImplementedError) as error:
        raise UnsupportedModelError(f"the model in {place.where} cannot be built: {error}") from error
    except SafetensorError as error:
        raise CorruptFileError(f"the weights of {place.where} are damaged ({error}). Download them again.") from error
    except OSError as error:
        raise _from_oserror(place, error) from error
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _DAMAGE):
            raise
        raise CorruptFileError(
            f"the weights of {place.where} are damaged or do not fit its config.json ({error}). Download both again."
        ) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        _log.warning(
            "%s lacks %d weights, which were drawn at random: %s ... Outputs that depend on them mean nothing.",
            place.where,
            len(missing),
            ", ".join(missing[:3]),
        )
    return hf.eval(), _read_tokenizer(place, chosen, trust_remote_code)


_DAMAGE = ("size mismatch", "ignore_mismatched_sizes", "PytorchStreamReader", "loading state_dict")
"""What transformers and torch say of weights that are damaged or of another shape than the configuration's."""


def _read_config(place: Place, trust_remote_code: bool) -> PreTrainedConfig:
    """Read config.json, telling an unknown architecture from a damaged file."""
    try:
        return AutoConfig.from_pretrained(
            place.where,
            revision=place.revision,
            local_files_only=place.local,
            trust_remote_code=trust_remote_code,
        )
    except OSError as error:
        raise _from_oserror(place, error) from error
    except StrictDataclassError as error:
        raise CorruptFileError(
            f"{place.where}/config.json holds a value that its architecture cannot have: {error}"
        ) from error
    except (ValueError, TypeError, KeyError, ImportError) as error:
        if "trust_remote_code" in str(error):
            raise UnsupportedModelError(
                f"the model in {place.where} runs its own Python code. Read that code, and pass trust_remote_code=True "
                "if you trust it."
            ) from error
        raise UnsupportedModelError(
            f"transformers does not know the architecture that {place.where}/config.json names: {error} "
            "A newer transformers may know it; a model that you can build yourself goes to interp.wrap(model, tokenizer)."
        ) from error


def _from_oserror(place: Place, error: OSError) -> CorruptFileError | OfflineError:
    """Say what an error in reading a file means: damage in a folder, trouble with the network otherwise."""
    if place.local:
        return CorruptFileError(f"a file of {place.where} is missing or cannot be read: {error}")
    return OfflineError(f"fetching {place.where} from the hub failed: {error} Run it again; what has arrived is kept.")


def _read_tokenizer(place: Place, task: Task, trust_remote_code: bool) -> Preprocessor | None:
    """Read the tokenizer or processor whose files are there; None where there is none."""
    has_tokenizer, has_processor = bool(place.files & _TOKENIZER), bool(place.files & _PROCESSOR)
    if task.name == "image-classification":
        auto = AutoImageProcessor if has_processor else None
    elif task.name == "speech-seq2seq" and has_processor:
        auto = AutoProcessor
    else:
        auto = AutoTokenizer if has_tokenizer else None
    if auto is None:
        _log.info("%s has no tokenizer or processor files", place.where)
        return None
    try:
        return auto.from_pretrained(
            place.where,
            revision=place.revision,
            local_files_only=place.local,
            trust_remote_code=trust_remote_code,
        )
    except ImportError as error:
        _log.warning("%s is loaded without its %s: %s", place.where, auto.__name__.removeprefix("Auto"), error)
        return None
    except OSError as error:
        raise _from_oserror(place, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(f"the tokenizer files of {place.where} cannot be read: {error}") from error
