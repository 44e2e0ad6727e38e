"""`load_by_words`: a model by settings that are plain words, as commands and the recipes of jobs have them."""

from __future__ import annotations

from typing import Final, get_args

import torch

from interp.capture.call import BackendChoice
from interp.errors import OptionError
from interp.models.hooked import HookedModel
from interp.models.load import load

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BACKENDS: Final = get_args(BackendChoice)


def load_by_words(
    name: str,
    *,
    dtype: str,
    device: str,
    backend: str,
    threads: int | None,
    revision: str | None,
    offline: bool,
) -> HookedModel:
    """Load a model, choose its kernels, and set torch's threads for this process.

    Args:
        name: as `interp.load` takes it.
        dtype: one of `DTYPES`.
        device: "cpu", "cuda", "cuda:1" ...
        backend: of the kernels, one of `BACKENDS`.
        threads: of torch; None leaves them as they are.
        revision: of a hub model.
        offline: ask nobody.

    Raises:
        OptionError: an impossible value.
        InterpError: as `interp.load`.
    """
    if dtype not in DTYPES:
        raise OptionError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    chosen = next((known for known in BACKENDS if known == backend), None)
    if chosen is None:
        raise OptionError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    if threads is not None:
        torch.set_num_threads(threads)
    model = load(name, dtype=DTYPES[dtype], device=device, revision=revision, offline=offline)
    model.backend = chosen
    return model
