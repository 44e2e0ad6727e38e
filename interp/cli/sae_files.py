"""What the commands that read an autoencoder's file share: its argument, and the layer that it is of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.errors import OptionError

Autoencoder = Annotated[
    Path, typer.Argument(metavar="SAE", help="Folder of SAELens or dictionary_learning, or a .pt file of Kissane's.")
]
OfLayer = Annotated[int | None, typer.Option("--layer", help="Layer whose z it reads; what its file says if left out.")]


def layer_of(metadata: Mapping[str, Any], given: int | None) -> int:
    """The layer that was named, or that the file names.

    Raises:
        OptionError: neither.
    """
    own = metadata.get("interp", {}).get("layer")
    name = str(metadata.get("hook_name") or "").split(".")
    if own is None and len(name) > 1 and name[0] == "blocks" and name[1].isdecimal():
        own = int(name[1])
    chosen = own if given is None else given
    if chosen is None:
        raise OptionError("the file does not say which layer it is of; give --layer L")
    return int(chosen)
