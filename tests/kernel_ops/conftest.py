"""What the kernel tests share: the folder `support` on the path, poisoned memory, and the parameter `backend`.

`support` holds plain modules with names of their own (kernel_cases, kernel_definition, kernel_checks), because under
importlib mode a test file cannot import its neighbour.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "support"))
pytest.register_assert_rewrite("kernel_checks")

BACKENDS = ("portable", "cpu", "triton")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend but the reference. Triton is skipped where it cannot run; the other two run wherever the tests do."""
    from kernel_checks import available

    ok, why = available(request.param)
    if not ok:
        said = f"backend {request.param}: {why}"
        pytest.skip(said) if request.param == "triton" else pytest.fail(said[:2000])
    return request.param


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Every fresh torch.empty (of Python and C++) is full of NaN or of the largest integer: unwritten output is seen."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
