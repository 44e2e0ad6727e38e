"""Copies results into data/results as data/results/README.md asks: tables, manifests with command and commit, small arrays.

.venv/bin/python tools/keep_results.py FOLDER NAME --command "interp heads report smollm2-135m --out runs/heads"

FOLDER holds one result, or several at any depth (a head report with its parts), or what `interp entropy train` wrote; NAME is the folder under
data/results. Arrays of more than --limit bytes, and an experiment's runs beyond its first seed, are left out, and the manifest names them: the
command makes them again.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

from interp.entropy.experiments.kept import keep
from interp.results import Result

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Read the command line and copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument(
        "--command", required=True, help="the command line that wrote FOLDER, from the root of the checkout"
    )
    parser.add_argument("--commit", help="of the code that ran; the present one if left out")
    parser.add_argument("--limit", type=int, default=200_000, help="bytes of an array")
    given = parser.parse_args()
    commit = (
        given.commit
        or subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.strip()
    )
    target = ROOT / "data" / "results" / given.name
    if (given.folder / "outcomes.csv").exists():
        shutil.rmtree(target, ignore_errors=True)
        keep(given.folder, target, facts={"command": given.command, "commit": commit})
        print(f"an experiment in data/results/{given.name}")
        return
    found = sorted(table.parent for table in given.folder.rglob("table.parquet"))
    if not found:
        parser.error(f"no result lies in {given.folder}")
    shutil.rmtree(target, ignore_errors=True)
    for place in found:
        result = Result.load(place)
        small = {name: x for name, x in result.arrays.items() if x.nbytes <= given.limit}
        left = {name: list(x.shape) for name, x in result.arrays.items() if name not in small}
        record = {"command": given.command, "commit": commit, "arrays_left_out": left}
        kept = Result(kind=result.kind, table=result.table, manifest={**result.manifest, "kept": record}, arrays=small)
        kept.save(target / place.relative_to(given.folder))
    print(f"{len(found)} results in data/results/{given.name}")


if __name__ == "__main__":
    main()
