"""Run as a script with TRITON_INTERPRET=1: the definitions of a few interventions against the Triton kernels, interpreted on the CPU.

Prints one JSON object: case -> largest error. All stages of the kernel's edits at once, and a structural mask.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]


def main() -> None:
    import test_definitions
    import test_mechanism
    from dense_edits import largest_error, play

    import interp

    model = interp.tiny("llama")
    ids = model.encode("ab, abc; a b")
    streaming = test_definitions.CASES["streaming"]
    stages = tuple(test_mechanism.all_stages(interp.interventions))
    played = {
        "streaming": (play(model, ids, (streaming.make(),), backend="triton"), streaming.definition),
        "all stages": (play(model, ids, stages, backend="triton", steps=1), test_mechanism.staged),
    }
    print(json.dumps({name: largest_error(*pair) for name, pair in played.items()}))


if __name__ == "__main__":
    main()
