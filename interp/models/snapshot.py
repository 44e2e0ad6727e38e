"""`Snapshot`: a model's module tree and configs as they are now, to be put back later exactly as they were."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedConfig


class Snapshot:
    """Remembers every module's attributes (submodules, parameters, buffers, hooks, patched methods) and every config's values.

    Containers are copied one level deep, tensors and modules are kept as the objects they are, so `restore` gives back the same
    parameters under the same names.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = [(module, _shallow(vars(module))) for module in model.modules()]
        configs = {
            id(c): c for module, _ in self._modules for c in vars(module).values() if isinstance(c, PreTrainedConfig)
        }
        self._configs = [(config, _shallow(vars(config))) for config in configs.values()]

    def restore(self) -> None:
        """Put every module and config back."""
        for owner, state in (*self._modules, *self._configs):
            vars(owner).clear()
            vars(owner).update(_shallow(state))


def _shallow(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value.copy() if isinstance(value, dict | list | set) else value for name, value in state.items()}
