"""Interventions: frozen objects for `with model.edit(...)`."""

from __future__ import annotations

from interp.interventions.ablate import AblateHeads as AblateHeads

__all__ = ["AblateHeads"]
