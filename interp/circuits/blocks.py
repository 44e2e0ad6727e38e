"""The MLPs of a decoder's blocks, and the few hooks that circuit tools put on both.

Hooks are context managers and leave nothing behind. Nothing here knows a model family: the MLP is the block's child of one of the usual names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from torch import Tensor, nn

from interp.capture.sites import unwrapped
from interp.errors import UnsupportedModelError
from interp.models.blocks import decoder_blocks
from interp.models.hooked import HookedModel

MLPS: Final = ("mlp", "fc2", "feed_forward", "block_sparse_moe")
"""Names that the last module of an MLP has in a block."""
Change = Callable[[Tensor], Tensor]


def mlps_of(model: HookedModel) -> list[nn.Module]:
    """The module of each block whose output the MLP adds to the stream.

    Raises:
        UnsupportedModelError: a block has none of a known name.
    """
    found = []
    for block in decoder_blocks(model):
        inner = unwrapped(block)
        name = next((name for name in MLPS if isinstance(getattr(inner, name, None), nn.Module)), None)
        if name is None:
            raise UnsupportedModelError(
                f"{type(inner).__name__} has no MLP under a known name ({', '.join(MLPS)}); add its name to interp.circuits.blocks.MLPS"
            )
        found.append(getattr(inner, name))
    return found


@contextmanager
def entering(module: nn.Module, change: Change) -> Iterator[None]:
    """Change the stream that a block is given."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def leaving(changes: Mapping[nn.Module, Change]) -> Iterator[None]:
    """Change what modules give (the first of a tuple)."""

    def hook(module: nn.Module, _: object, output: Any) -> Any:
        if isinstance(output, tuple):
            return (changes[module](output[0]), *output[1:])
        return changes[module](output)

    handles = [module.register_forward_hook(hook) for module in changes]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
