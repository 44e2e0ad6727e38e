"""Capturing attention while a model runs."""

from __future__ import annotations

from interp.capture.run import Capture as Capture
from interp.capture.run import Run as Run

__all__ = ["Capture", "Run"]
