"""Importing changes nothing, and `import interp` is quick: seen from fresh processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

IMPORT_INTERP = """
import json, os, sys
hook, env, path = sys.excepthook, dict(os.environ), list(sys.path)
import interp
print(json.dumps({
    "heavy": sorted({"torch", "transformers", "transformer_lens", "pandas", "plotly", "IPython"} & set(sys.modules)),
    "excepthook kept": sys.excepthook is hook, "environment kept": dict(os.environ) == env,
    "path kept": sys.path == path,
}))
"""

IMPORT_KERNELS = """
import json, os, sys, torch, torch.nn.functional as F
def state():
    return [sys.excepthook, torch.Tensor.backward, torch.Tensor.__init__, torch.empty, torch.get_default_dtype(),
            torch.get_num_threads(), F.scaled_dot_product_attention, torch.cuda.is_initialized(), dict(os.environ)]
before = state()
import interp_kernels
print(json.dumps({"kept": [a is b or a == b for a, b in zip(before, state(), strict=True)],
                  "triton loaded": "triton" in sys.modules, "interp loaded": "interp" in sys.modules}))
"""


def run(code: str, cwd: Path) -> tuple[dict[str, Any], str]:
    """Run code in a new interpreter away from the checkout; give its one line of JSON and its standard error."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120, check=True
    )
    (line,) = done.stdout.splitlines()
    return json.loads(line), done.stderr


def test_importing_interp_is_light_and_has_no_effect(tmp_path: Path) -> None:
    said, errors = run(IMPORT_INTERP, tmp_path)
    assert said == {"heavy": [], "excepthook kept": True, "environment kept": True, "path kept": True}
    assert errors == ""


def test_importing_interp_takes_less_than_a_second(tmp_path: Path) -> None:
    code = (
        "import json, time\nstart = time.perf_counter()\nimport interp\n"
        "print(json.dumps({'seconds': time.perf_counter() - start}))"
    )
    # The best of three: another process may have the processor.
    assert min(run(code, tmp_path)[0]["seconds"] for _ in range(3)) < 1.0


def test_importing_the_kernels_has_no_effect(tmp_path: Path) -> None:
    said, errors = run(IMPORT_KERNELS, tmp_path)
    assert said == {"kept": [True] * 9, "triton loaded": False, "interp loaded": False}
    assert errors == ""


def test_the_command_answers_help_without_loading_torch(tmp_path: Path) -> None:
    code = (
        "import json, sys\nfrom interp.cli.main import main\n"
        "print(json.dumps({'torch': 'torch' in sys.modules, 'callable': callable(main)}))"
    )
    assert run(code, tmp_path)[0] == {"torch": False, "callable": True}
