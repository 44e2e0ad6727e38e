"""Run as a script with TRITON_INTERPRET=1: the definitions of a few interventions against the Triton kernels, interpreted on the CPU.

Prints one JSON object: case -> largest error. All stages of the kernel's edits at once, a structural mask, and ACT (columns and key sets too).
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
    edits = {name: (test_definitions.CASES[name].make(),) for name in ("streaming", "act_of_the_paper")}
    edits["all stages"] = tuple(test_mechanism.all_stages(interp.interventions))
    errors = {}
    for name, chosen in edits.items():
        definition = test_mechanism.staged if name == "all stages" else test_definitions.CASES[name].definition
        errors[name] = largest_error(play(model, ids, chosen, backend="triton", steps=1), definition)
    print(json.dumps(errors))


if __name__ == "__main__":
    main()
