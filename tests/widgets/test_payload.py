"""What the page is given says what the table says: numbers, ranges, definitions, weights."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from report_cases import HEADS, LAYERS, ROWS, STATISTICS, frame, manifest, thumbnails, values

from interp.errors import InputDataError
from interp.widgets.payload import COLUMNS, encode_weights, report_data


def column(packed: Any, n: int = len(LAYERS) * HEADS) -> np.ndarray:
    """Undo the packing of a column, as the page does."""
    if isinstance(packed, str):
        return np.frombuffer(base64.b64decode(packed), dtype="<f4")
    return np.array(packed if isinstance(packed, list) else [packed] * n, dtype=np.float64)


def test_every_number_arrives() -> None:
    data = report_data(frame(), manifest(), [])
    assert (data["layers"], data["heads"]) == (list(LAYERS), list(range(HEADS)))
    assert [s["name"] for s in data["statistics"]] == list(STATISTICS)
    table = frame().rename(columns={"value": "mean"})
    for said in data["statistics"]:
        rows = table[table["statistic"] == said["name"]]
        for name in COLUMNS:
            np.testing.assert_array_equal(
                column(said[name]), rows[name].to_numpy(np.float32), err_msg=f"{said['name']} {name}"
            )


def test_rows_in_any_order_and_heads_that_are_missing() -> None:
    whole = report_data(frame(), manifest(), [])
    shuffled = frame().sample(frac=1, random_state=3)
    undefined = shuffled[~((shuffled["layer"] == LAYERS[3]) & (shuffled["head"] == 4))]
    by_name = {s["name"]: s for s in report_data(undefined, manifest(), [])["statistics"]}
    for said in whole["statistics"]:
        assert by_name[said["name"]]["mean"] == said["mean"], (
            "the head without values was undefined in the whole table too"
        )


def test_ranges_and_colours() -> None:
    by_name = {s["name"]: s for s in report_data(frame(), manifest(), [])["statistics"]}
    for name in STATISTICS:
        known = values(name)[~np.isnan(values(name))].astype(np.float32)
        assert (by_name[name]["low"], by_name[name]["high"]) == (known.min(), known.max())
    # Three decades on a logarithmic scale; the others are linear by declaration.
    assert {name for name, s in by_name.items() if s["log"]} == {"effective_keys"}


def test_a_narrow_range_on_a_logarithmic_scale_has_linear_colours() -> None:
    table = frame(["effective_keys"])
    table["value"] = 10 + table["head"]
    (said,) = report_data(table, manifest(), [])["statistics"]
    assert not said["log"]


def test_rounding_is_no_range_and_nothing_defined_is_said() -> None:
    table = frame(["entropy"])
    table["value"] = 1 + 1e-7 * table["head"]
    (said,) = report_data(table, manifest(), [])["statistics"]
    assert said["low"] == said["high"] == 1
    table["value"] = np.nan
    (said,) = report_data(table, manifest(), [])["statistics"]
    assert (said["low"], said["high"], said["mean"]) == (None, None, None)


def test_counts_beyond_float32_stay_whole_and_equal_ones_are_one_number() -> None:
    table = frame(["entropy"])
    table["count"] = ROWS
    assert report_data(table, manifest(), [])["statistics"][0]["count"] == ROWS
    table["count"] = 2**24 + 1 + table["head"]
    counts = report_data(table, manifest(), [])["statistics"][0]["count"]
    assert counts[:3] == [2**24 + 1, 2**24 + 2, 2**24 + 3]


def test_words_come_from_the_manifest_and_else_from_the_catalogue() -> None:
    said = manifest()
    said["statistics"]["entropy"]["title"] = "entropy of an older version"
    del said["statistics"]["induction_mass"]
    by_name = {s["name"]: s for s in report_data(frame(), said, [])["statistics"]}
    assert by_name["entropy"]["title"] == "entropy of an older version"
    assert by_name["induction_mass"]["title"] == "induction mass"
    assert (by_name["entropy"]["over"], by_name["sink_rate_0.3"]["over"]) == ("queries", "texts")


def test_weights_are_told_to_three_digits_and_hidden_from_small() -> None:
    weights = np.concatenate([[0.0], np.geomspace(1e-9, 1, 4001)])
    codes = encode_weights(weights)
    assert codes[0] == 0
    assert codes[1] == 1
    assert codes[-1] == 65535
    decoded = np.exp(np.log(1e-9) * (1 - (codes[1:].astype(np.float64) - 1) / 65534))
    np.testing.assert_allclose(decoded, weights[1:], rtol=2e-4)
    assert encode_weights(np.array([1e-30]))[0] == 1


def test_maps_know_their_head_and_those_of_unknown_heads_are_left_out() -> None:
    maps = report_data(frame(), manifest(), thumbnails())["maps"]
    assert [m["pool"] for m in maps] == ["mean", "max", "exact"]
    assert {m["head_index"] for m in maps} == {LAYERS.index(5) * HEADS + 1}
    assert maps[2]["high"] == np.float32(0.64)
    few = frame()
    assert report_data(few[few["layer"] != 5], manifest(), thumbnails())["maps"] == []


def test_the_head_of_the_page() -> None:
    data = report_data(frame(), manifest(), [])
    facts = dict(data["facts"])
    assert data["title_text"] == "planted"
    assert facts["layers × heads"] == "7 of 19 × 5"
    assert facts["tokens"] == "1,234"
    assert facts["contexts"] == "3 of up to 512 tokens"
    assert facts["finished"] == "2026-01-02"
    assert facts["versions"] == "interp 0.1.0, torch 2.13.0, transformers 5.23.0"
    assert data["notes"] == []
    cut = manifest(tokens={"tokens": 99, "dropped": {"tokens": 12, "shorter_than": 16}})
    cut["plan"]["max_tokens"] = 99
    data = report_data(frame(), cut, [])
    assert dict(data["facts"])["tokens"] == "99 (the limit)"
    assert data["notes"] == ["12 tokens were left out: ends of texts with fewer than 16 tokens."]
    assert dict(report_data(frame(), {}, [])["facts"]) == {"layers × heads": "7 × 5"}


def test_a_table_that_is_none_is_refused() -> None:
    with pytest.raises(InputDataError, match=r"columns q05, max are missing.*stats\.parquet"):
        report_data(frame().drop(columns=["q05", "max"]), manifest(), [])
    with pytest.raises(InputDataError, match="no rows"):
        report_data(frame().head(0), manifest(), [])
    twice = frame().loc[lambda t: t.index.repeat(2)]
    with pytest.raises(InputDataError, match="twice"):
        report_data(twice, manifest(), [])
