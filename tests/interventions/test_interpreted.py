"""Interventions on the Triton backend, in its interpreter: TRITON_INTERPRET is read at import, hence a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.medium
def test_outputs_equal_the_definition_on_triton():
    pytest.importorskip("triton", reason="Triton is not installed")
    script = Path(__file__).parent / "support" / "triton_play.py"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    errors = json.loads(done.stdout.splitlines()[-1])
    assert len(errors) == 2 and max(errors.values()) <= 1e-5, errors
