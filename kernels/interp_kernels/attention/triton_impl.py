"""Triton implementation of `attention` (placeholder until its kernels land)."""

from __future__ import annotations

from typing import NoReturn


def supports(call: object) -> tuple[bool, str]:
    """No call is served yet."""
    return False, "the Triton kernels of attention are not written yet"


def run(call: object) -> NoReturn:
    """Never reached: `supports` refuses every call."""
    raise NotImplementedError("the Triton kernels of attention are not written yet")
