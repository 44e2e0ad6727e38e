"""Prompts with known answers, and the text that measurements are made on."""

from __future__ import annotations

from interp.tasks import corpus as corpus

__all__ = ["corpus"]
