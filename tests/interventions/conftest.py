"""The folder `support` on the path, and tiny models that the tests of this folder share (edits leave nothing behind, which is tested too)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))
pytest.register_assert_rewrite("dense_edits")


@pytest.fixture(scope="session")
def models():
    """Tiny models by family: grouped heads with rotary positions; learned positions; a sliding window."""
    import interp

    return {family: interp.tiny(family) for family in ("llama", "gpt2", "mistral")}
