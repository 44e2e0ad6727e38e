"""The folder `support` on the path: under importlib mode a test file cannot import its neighbour."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))
pytest.register_assert_rewrite("small_tokenizers")
