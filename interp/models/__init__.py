"""Models: loading them, hooking their attention, and small ones for tests."""

from __future__ import annotations

__all__: list[str] = []
