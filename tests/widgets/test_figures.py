"""Plotly figures hold the numbers that they are given, in the right places, and text as text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from report_cases import HEADS, LAYERS, frame, values

from interp import display
from interp.errors import OptionError
from interp.maps.attention_map import AttentionMap
from interp.maps.source import MapSource
from interp.widgets.figures import plain
from interp_kernels import Mask

N, D = 307, 5


@pytest.fixture(scope="module")
def dense() -> np.ndarray:
    """The causal attention map of `amap`, in float64."""
    generator = torch.Generator().manual_seed(11)
    q, k = (torch.randn(N, D, generator=generator).double() for _ in range(2))
    scores = (0.5 * q @ k.T).masked_fill(torch.ones(N, N, dtype=torch.bool).triu(1), -torch.inf)
    return scores.softmax(-1).numpy()


@pytest.fixture(scope="module")
def amap() -> AttentionMap:
    """A head whose tokens look like markup."""
    generator = torch.Generator().manual_seed(11)
    q, k = (torch.randn(N, D, generator=generator) for _ in range(2))
    scores = (0.5 * q @ k.T).masked_fill(torch.ones(N, N, dtype=torch.bool).triu(1), -torch.inf)
    source = MapSource(
        q=q[None, None],
        k=k[None, None],
        lse=scores.logsumexp(-1)[None, None],
        mask=Mask.causal(),
        scale=0.5,
        softcap=None,
    )
    tokens = [f"<b>{i}\n" for i in range(N)]
    return AttentionMap(source, layer=3, head=2, row_tokens=tokens, col_tokens=tokens)


def test_the_heads_of_a_statistic() -> None:
    figure = display.plot("heads", frame().sample(frac=1, random_state=5), "induction_mass")
    (heat,) = figure.data
    assert isinstance(figure, go.Figure)
    assert heat.z.dtype == np.float32
    np.testing.assert_allclose(heat.z, values("induction_mass").T, rtol=1e-6)
    assert list(heat.x) == [str(layer) for layer in LAYERS]
    assert list(heat.y) == [str(head) for head in range(HEADS)]
    assert heat.colorbar.title.text == "probability"
    assert figure.layout.yaxis.autorange == "reversed", "head 0 at the top, as in the report"


def test_the_theme_is_the_template() -> None:
    light, dark = (display.plot("heads", frame(), theme=theme) for theme in ("light", "dark"))
    assert light.layout.template.layout.paper_bgcolor != dark.layout.template.layout.paper_bgcolor


def test_a_rectangle_of_exact_weights(amap: AttentionMap, dense: np.ndarray) -> None:
    figure = display.plot("map", amap, rows=(100, 131), cols=(90, 127))
    (heat,) = figure.data
    expected = dense[100:131, 90:127]
    np.testing.assert_allclose(np.nan_to_num(heat.z), expected, atol=1e-6)
    assert (np.isnan(heat.z) == (expected == 0)).all(), "hidden cells are blank"
    assert (list(heat.y), list(heat.x)) == (list(range(100, 131)), list(range(90, 127)))
    assert "exact weights" in figure.layout.title.text
    assert figure.layout.xaxis.ticktext[1] == "&lt;b&gt;91↵"


@pytest.mark.parametrize(("pool", "join"), [("mean", np.mean), ("max", np.max)])
def test_a_map_too_large_for_cells_is_pooled_and_says_so(
    amap: AttentionMap, dense: np.ndarray, pool: str, join: object
) -> None:
    figure = display.plot("map", amap, pool=pool)
    (heat,) = figure.data
    assert heat.z.shape == (256, 256)
    edges = [i * N // 256 for i in range(257)]
    at = (200, 51)
    block = dense[edges[at[0]] : edges[at[0] + 1], edges[at[1]] : edges[at[1] + 1]]
    assert heat.z[at] == pytest.approx(join(block), rel=1e-4)
    assert heat.y[200] == edges[200]
    assert f"{pool} of exact weights" in figure.layout.title.text
    assert figure.layout.xaxis.ticktext is None


def test_text_cannot_be_markup() -> None:
    assert plain('<a href="x">&amp;</a>\n') == '&lt;a href="x"&gt;&amp;amp;&lt;/a&gt;↵'


def test_wrong_choices_are_named(amap: AttentionMap) -> None:
    with pytest.raises(OptionError, match=r"'sinks'.*entropy, effective_keys"):
        display.plot("heads", frame(), "sinks")
    with pytest.raises(OptionError, match=r"several texts.*run\[0\]"):
        display.plot("heads", frame().loc[lambda t: t.index.repeat(2)])
    with pytest.raises(OptionError, match=r"theme.*light, dark"):
        display.plot("heads", frame(), theme="blue")
    with pytest.raises(OptionError, match=r"'tree'.*heads, map"):
        display.plot("tree", frame())


def test_the_door_loads_the_widgets_only_when_it_is_used(tmp_path: Path) -> None:
    code = "import sys, interp.display; print(sorted({'plotly', 'pandas', 'interp.widgets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
