"""The dense definitions of tests/models/support on the path: under importlib mode a test file cannot import its neighbour."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "models" / "support"))
pytest.register_assert_rewrite("attention_truth", "statistic_truth")
