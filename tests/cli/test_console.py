"""Untrusted text on a terminal: nothing of it is markup, nothing of it steers; and the words of progress."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from interp.batch.events import Event
from interp.cli.console import print_table, printable, say
from interp.cli.main import app
from interp.cli.options import number_list, word_list
from interp.cli.progress import duration, progress_line, watching
from interp.errors import OptionError
from interp.maps.thumbnail import Thumbnail, thumbnails_to_bytes

ODD = ["[red]", "[/]", "[link=http://x]y", ":smile:", "<script>", "\x1b[31m", "\x07", "\n", "\u202e", "\u2028", "é☃"]


def test_odd_tokens_are_shown_literally(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("[bold]title", ("token", "n"), [[token, i] for i, token in enumerate(ODD)], numbers=("n",))
    shown = capsys.readouterr().out
    for words in (
        "[bold]title",
        "[red]",
        "[/]",
        "[link=http://x]y",
        ":smile:",
        "<script>",
        "\\x1b[31m",
        "\\x07",
        "\\n",
        "\\u202e",
        "é☃",
    ):
        assert words in shown, words
    for character in "\x1b\x07\u202e\u2028":
        assert character not in shown, repr(character)


def test_sentences_too(capsys: pytest.CaptureFixture[str]) -> None:
    say("cannot read [red]\x1b[2J.txt")
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err == "cannot read [red]\\x1b[2J.txt\n"


def test_printable_leaves_plain_text_alone() -> None:
    assert printable("naïve [x] \\n 東") == "naïve [x] \\n 東"


def test_tokens_of_pictured_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.zeros((2, 3), dtype=np.float32)
    weights[1, 2], weights[0, 0], weights[1, 0] = 0.75, 0.5, 0.25
    picture = Thumbnail(
        layer=4,
        head=7,
        statistic="induction_mass",
        rows=(10, 12),
        cols=(3, 6),
        pool="exact",
        weights=weights,
        row_tokens=["[red]", "\x1b[31m"],
        col_tokens=["[/red]", "b", "[bold]"],
    )
    (tmp_path / "parts").mkdir()
    for ending, content in zip((".safetensors", ".json"), thumbnails_to_bytes([picture]), strict=True):
        (tmp_path / "parts" / f"maps{ending}").write_bytes(content)
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    result = CliRunner().invoke(app, ["show", str(tmp_path), "--maps"])
    assert result.exit_code == 0, result.stderr
    rows = [
        [c.strip() for c in line.strip("│").split("│")] for line in result.stdout.splitlines() if line.startswith("│")
    ]
    assert rows == [
        ["4.7", "induction_mass", "11 -> 5", "\\x1b[31m", "[bold]", "0.750"],
        ["4.7", "induction_mass", "10 -> 3", "[red]", "[/red]", "0.500"],
        ["4.7", "induction_mass", "11 -> 3", "\\x1b[31m", "[/red]", "0.250"],
    ]


@pytest.mark.parametrize(
    ("text", "numbers"), [("0", [0]), ("0-2,5", [0, 1, 2, 5]), (" 3 , 1-1", [3, 1]), ("10-12", [10, 11, 12])]
)
def test_number_lists(text: str, numbers: list[int]) -> None:
    assert number_list(text, "--layers") == numbers
    assert number_list(None, "--layers") is None


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "1,,2", "1.5", "²"])
def test_wrong_number_lists(text: str) -> None:
    with pytest.raises(OptionError, match="--layers must be numbers and ranges"):
        number_list(text, "--layers")


def test_word_lists() -> None:
    assert word_list("a, b,") == ["a", "b"]
    assert word_list(None) is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, "?"), (0.4, "0:00"), (65.0, "1:05"), (3599.6, "1:00:00"), (90061.0, "25:01:01")]
)
def test_durations(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_speed_counts_this_session_only() -> None:
    event = Event(
        kind="shard", key="k", shards=3, shards_total=5, tokens=3000, tokens_total=5000, measured=1000, seconds=4.0
    )
    assert event.tokens_per_second == 250
    assert event.seconds_left == 8
    assert progress_line(event) == "3,000 of 5,000 tokens, 3 of 5 shards, 250 tokens/s, 0:08 left"
    record = event.record()
    assert (record["event"], record["seconds_left"], record["tokens_per_second"]) == ("shard", 8, 250)
    assert "kind" not in record


def test_unknown_length_and_first_moment() -> None:
    event = Event(kind="plan", key="k", tokens=7)
    assert event.tokens_per_second is None
    assert event.seconds_left is None
    assert progress_line(event) == "7 tokens, 0 shards"


def test_streams(capsys: pytest.CaptureFixture[str]) -> None:
    events = [Event(kind=kind, key="k", message="word") for kind in ("plan", "context", "notice", "shard", "done")]  # type: ignore[arg-type]
    for as_json, quiet in ((False, False), (True, False), (False, True), (True, True)):
        with watching("x", as_json=as_json, quiet=quiet) as watch:
            for event in events:
                watch(event)
        streams = capsys.readouterr()
        assert len(streams.out.splitlines()) == (3 if as_json else 0)
        # Contexts and shards that come fast are not worth a line each.
        assert len(streams.err.splitlines()) == (0 if quiet else 3)
