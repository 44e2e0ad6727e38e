"""The installed command in processes of its own: signals, speed of --help, colours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = "the cat sat on the mat, and the dog sat on the cat. " * 120
COMMAND = [sys.executable, "-c", "from interp.cli.main import main; main()"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


@pytest.mark.parametrize("words", [["scan", "--help"], ["show", "nowhere"], ["report", "nowhere"]])
def test_answers_that_need_no_model_import_no_torch(words: list[str]) -> None:
    code = (
        "import sys\nfrom interp.cli.main import main\n"
        f"sys.argv[1:] = {words!r}\n"
        "try:\n    main()\nexcept SystemExit:\n    print({'torch', 'transformers', 'datasets'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.medium
def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")

    def words(out: str) -> list[str]:
        options = [
            "--text",
            str(tmp_path / "a.txt"),
            "--out",
            str(tmp_path / out),
            "--context",
            "128",
            "--per-shard",
            "4",
            "--json",
        ]
        return [*COMMAND, "scan", "tiny/llama", *options]

    with subprocess.Popen(
        words("cut"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as first:
        assert first.stdout is not None and first.stderr is not None
        seen = [json.loads(first.stdout.readline())["event"] for _ in range(2)]
        assert seen == ["plan", "shard"]
        first.send_signal(signal.SIGINT)
        events = [json.loads(line) for line in first.stdout]
        said = first.stderr.read()
        assert first.wait() == signal.SIGINT + 128
    assert events[-1]["event"] == "interrupted"
    assert 1 <= events[-1]["shards"] < events[-1]["shards_total"]
    assert "finishing this shard" in said
    assert "Traceback" not in said
    assert not (tmp_path / "cut" / "stats.parquet").exists()

    for out in ("cut", "whole"):
        done = subprocess.run(words(out), capture_output=True, text=True, env=environment(), check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["event"] == "done"
    assert (tmp_path / "cut" / "stats.parquet").read_bytes() == (tmp_path / "whole" / "stats.parquet").read_bytes()


def test_no_colour_codes_in_pipes(tmp_path: Path) -> None:
    words = [*COMMAND, "show", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "\x1b" not in done.stderr
    assert done.stdout == ""
    forced = subprocess.run(words, capture_output=True, text=True, env=environment(FORCE_COLOR="1"), check=False)
    assert "\x1b" in forced.stderr
    both = subprocess.run(
        words, capture_output=True, text=True, env=environment(FORCE_COLOR="1", NO_COLOR="1"), check=False
    )
    assert "\x1b[31m" not in both.stderr and "\x1b[1;31m" not in both.stderr
