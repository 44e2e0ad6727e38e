"""`Snapshot`: a model's module tree and configs as they are now, to be put back later exactly as they were."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedConfig


class Snapshot:
    """Remembers every module's attributes (submodules, parameters, buffers, hooks, patched methods) and every config's values.

    Containers are remembered one level deep and restored in place, because others hold them too (the handle of a hook that was there
    before removes it from the very dict it was put in). Tensors and modules are kept as the objects they are, so `restore` gives back
    the same parameters under the same names.
    """

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        configs = {id(c): c for module in modules for c in vars(module).values() if isinstance(c, PreTrainedConfig)}
        self._owners = [(owner, _remember(vars(owner))) for owner in (*modules, *configs.values())]

    def restore(self) -> None:
        """Put every module and config back."""
        for owner, state in self._owners:
            vars(owner).clear()
            vars(owner).update({name: _refill(value, content) for name, (value, content) in state.items()})


def _remember(state: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (x, x.copy() if isinstance(x, dict | list | set) else None) for name, x in state.items()}


def _refill(value: Any, content: Any) -> Any:
    """`value` itself, holding again what it held."""
    if isinstance(value, dict | set):
        value.clear()
        value.update(content)
    elif isinstance(value, list):
        value[:] = content
    return value
