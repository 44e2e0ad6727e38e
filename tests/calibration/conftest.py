"""The folder `support` on the path, and the models that the tests of this folder share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))


@pytest.fixture(scope="session")
def models():
    """Tiny models by family: grouped heads with rotary positions; learned positions; a sliding window and soft caps."""
    import interp

    return {family: interp.tiny(family) for family in ("llama", "gpt2", "gemma2")}


@pytest.fixture(scope="session")
def broken():
    """A planted copying model whose copying head is nearly uniform (its queries are 0.01 times what they should be), and where that head is."""
    from calibration_prompts import weaken

    from interp.models.planted import planted

    model, places = planted("retrieval", seed=5)
    weaken(model, places["retrieval"], 0.01)
    return model, places["retrieval"]
