"""The monitor on models in training: what it reads, when, what it leaves alone, and where it writes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, SIZE = 15, 3, 5


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (HEADS, SIZE)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.split(p(x)) for p in (self.q_proj, self.k_proj, self.v_proj))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=0.1).transpose(1, 2).flatten(2)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Attention() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x.square().mean()


def train(model: nn.Module, steps: int, each: Callable[[float], None] | None = None) -> list[float]:
    torch.manual_seed(7)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(steps):
        loss = model(torch.randn(4, 7, WIDTH))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if each is not None:
            each(losses[-1])
    return losses


def model_of(seed: int) -> Model:
    torch.manual_seed(seed)
    return Model()


def test_training_is_the_same_to_the_bit_with_and_without() -> None:
    from interp.entropy.monitor import Monitor

    plain, watched = model_of(0), model_of(0)
    wanted = train(plain, 9)
    with Monitor(watched, every=2):
        got = train(watched, 9)
    assert got == wanted
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in watched.modules()), "close takes every hook off"


def test_readings_equal_the_dense_definition() -> None:
    from interp.entropy.monitor import Monitor

    model = model_of(1)
    x = torch.randn(4, 7, WIDTH)
    attention = model.layers[0]
    with torch.no_grad():
        q, k, v = (attention.split(p(x)).double() for p in (attention.q_proj, attention.k_proj, attention.v_proj))
    monitor = Monitor(model, every=1, sequences=3)
    model(x).backward()
    monitor.close()
    table = monitor.frame[monitor.frame["layer"] == 0].set_index("head")
    for head in range(HEADS):
        entropies, rests, masses, norms, largest = [], [], [], [], []
        for item in range(3):  # the first three sequences
            s = q[item, head] @ k[item, head].T / math.sqrt(SIZE)
            for i in range(7):
                row = s[i, : i + 1]
                largest.append(row.max())
                if i == 0:
                    continue
                p = row.softmax(0)
                entropies.append(-(p * p.log()).sum() / math.log(i + 1))
                norms.append((row - row.mean()).norm())
                masses.append(p[0])
                if i > 1:
                    rest = p[1:] / p[1:].sum()
                    rests.append(-(rest * rest.log()).sum() / math.log(i))
        found = table.loc[head]
        ordered = np.sort(np.array(entropies))
        np.testing.assert_allclose(found["entropy"], np.mean(entropies), rtol=1e-5)
        for name, share in (("entropy_q10", 0.1), ("entropy_q50", 0.5), ("entropy_q90", 0.9)):
            np.testing.assert_allclose(found[name], ordered[round(share * (len(ordered) - 1))], rtol=1e-5)
        np.testing.assert_allclose(found["rest_q50"], np.sort(rests)[round(0.5 * (len(rests) - 1))], rtol=1e-5)
        np.testing.assert_allclose(found["sink_mass"], np.mean(masses), rtol=1e-5)
        np.testing.assert_allclose(found["rho_q99"], np.sort(norms)[round(0.99 * (len(norms) - 1))], rtol=1e-4)
        np.testing.assert_allclose(found["max_logit"], max(largest), rtol=1e-5)
        values = v[:3, head].norm(dim=-1)
        np.testing.assert_allclose(
            found["sink_output"], np.mean(masses) * values[:, 0].mean() / values.mean(), rtol=1e-5
        )
        w_q, w_k = (
            p.weight.detach().double()[head * SIZE : (head + 1) * SIZE] for p in (attention.q_proj, attention.k_proj)
        )
        np.testing.assert_allclose(found["qk_norm"], torch.linalg.matrix_norm(w_q.T @ w_k, 2), rtol=1e-5)


def test_only_due_training_forwards_count() -> None:
    from interp.entropy.monitor import Monitor

    model = model_of(2)
    with Monitor(model, every=3) as monitor:
        for _ in range(7):
            model(torch.randn(2, 5, WIDTH))
            with torch.no_grad():
                model(torch.randn(2, 5, WIDTH))
            model.eval()
            model(torch.randn(2, 5, WIDTH))
            model.train()
    assert [r.step for r in monitor.readings] == [0, 3, 6]
    assert monitor.frame.groupby("step").size().tolist() == [2 * HEADS] * 3


def test_losses_come_from_note_and_reach_writers_and_listeners(tmp_path: Path) -> None:
    from interp.entropy.monitor import Monitor
    from interp.entropy.writers import ParquetWriter, TensorBoardWriter, WandbWriter

    board: list[tuple[str, float, int]] = []
    logged: list[dict[str, Any]] = []

    class Board:
        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            board.append((tag, scalar_value, global_step))

        def add_text(self, tag: str, text_string: str, global_step: int) -> None:
            raise AssertionError("no alarm was expected")

    class Run:
        def log(self, data: dict[str, Any], step: int | None = None) -> None:
            logged.append(data)

    heard: list[tuple[int, float | None]] = []
    model = model_of(3)
    folder = tmp_path / "readings"
    writers = [ParquetWriter(folder, flush=2), TensorBoardWriter(Board()), WandbWriter(Run())]
    monitor = Monitor(model, every=2, writers=writers)
    monitor.on_reading(lambda reading: heard.append((reading.step, reading.loss)))
    losses = train(model, 6, monitor.note)
    assert len(list(folder.glob("part-*.parquet"))) == 1, "two readings are on disk while the third is held"
    monitor.close()
    assert heard == [(s, losses[s]) for s in (0, 2, 4)]
    pd.testing.assert_frame_equal(pd.read_parquet(folder), monitor.frame)
    assert {tag for tag, _, _ in board} >= {
        "entropy/layer_0",
        "entropy/layer_1",
        "entropy/collapsed_share",
        "entropy/max_logit",
    }
    assert [row["entropy/step"] for row in logged] == [0, 2, 4]


def test_a_forward_that_fails_leaves_no_reading_and_no_hook() -> None:
    from interp.entropy.monitor import Monitor

    model = model_of(4)
    with Monitor(model, every=1) as monitor:
        with pytest.raises(RuntimeError):
            model(torch.randn(2, 5, WIDTH + 1))
        assert not monitor.readings
        assert not any(m._forward_hooks for m in model.layers.modules())
        model(torch.randn(2, 5, WIDTH))
    assert [r.step for r in monitor.readings] == [1]


class ByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = HandAttention()

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x).mean()


class HandAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return (self.proj(x) @ x.mT).softmax(-1) @ x


def test_attention_that_cannot_be_seen_is_warned_of_once() -> None:
    from interp.entropy.monitor import Monitor

    model = ByHand()
    with Monitor(model, every=1) as monitor:
        with pytest.warns(UserWarning, match=r"attention: it attends by hand"):
            model(torch.randn(2, 5, 3))
        model(torch.randn(2, 5, 3))
    assert list(monitor.unseen) == ["attention"]
    assert monitor.frame.empty


@pytest.mark.parametrize("options", [{"every": 0}, {"sequences": 0}, {"spectral": -1}])
def test_numbers_that_make_no_sense_are_refused(options: dict[str, int]) -> None:
    from interp.entropy.monitor import Monitor
    from interp.errors import OptionError

    with pytest.raises(OptionError, match="wanted every >= 1"):
        Monitor(model_of(0), **options)


def test_writing_into_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    from interp.entropy.writers import ParquetWriter
    from interp.errors import OptionError, OutputError

    (tmp_path / "x").write_text("x")
    with pytest.raises(OutputError, match="not empty"):
        ParquetWriter(tmp_path)
    with pytest.raises(OptionError, match="flush"):
        ParquetWriter(tmp_path / "new", flush=0)


def test_torchs_module_gives_spectral_norms_too() -> None:
    from interp.entropy.monitor import Monitor

    class Torch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0].square().mean()

    model = Torch()
    with Monitor(model, every=1) as monitor:
        model(torch.randn(2, 5, WIDTH))
    weight = model.attention.in_proj_weight.detach().double()
    for head, got in enumerate(monitor.frame["qk_norm"]):
        rows = slice(head * SIZE, (head + 1) * SIZE)
        wanted = torch.linalg.matrix_norm(weight[:WIDTH][rows].T @ weight[WIDTH : 2 * WIDTH][rows], 2)
        np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_the_figure_holds_every_layer_and_the_view_grows() -> None:
    from interp.entropy.monitor import Monitor
    from interp.errors import OptionError
    from interp.widgets.views.entropy_view import EntropyView

    model = model_of(5)
    with Monitor(model, every=1) as monitor:
        with pytest.raises(OptionError, match="measured nothing yet"):
            monitor.plot()
        with pytest.raises(OptionError, match="refresh: wanted at least 1, got 0"):
            monitor.view(refresh=0)
        shown, third = monitor.view(), monitor.view(refresh=3)
        losses = train(model, 4, monitor.note)
        figure = monitor.plot()
    assert isinstance(shown, EntropyView), "the project's own widget, which a saved page can show"
    assert shown.data()["step"].unique().tolist() == [0, 1, 2, 3]
    assert third.data()["step"].unique().tolist() == [0, 1, 2], "drawn at every third reading"
    loss, _, heads, *_, entropy, _ = figure.data
    assert len(figure.data) == 3 + 2 * 2
    assert list(loss.x) == [0, 1, 2, 3] and list(loss.y) == losses
    table = monitor.frame[monitor.frame["layer"] == 1]
    np.testing.assert_allclose(entropy.y, table.groupby("step")["entropy"].mean(), rtol=1e-6)
    assert list(heads.y) == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]
    np.testing.assert_array_equal(heads.z[4], table[table["head"] == 1]["entropy"])
    assert figure.layout.title.text == f"step 3, loss {losses[3]:.3f}: 0 of 6 heads collapsed, no alarms"


def test_the_figure_says_the_alarms_and_thins_long_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.entropy.detector import Rules
    from interp.entropy.monitor import Monitor
    from interp.widgets import plots_training

    monkeypatch.setattr(plots_training, "COLUMNS", 7)
    model = model_of(6)
    # Every entropy is below 1, so under these rules every head has collapsed from the start, and the alarm is told once.
    with Monitor(model, every=1, rules=Rules(collapsed=1.0, collapsed_rest=1.0)) as monitor:
        train(model, 11, monitor.note)
        figure = monitor.plot()
    assert list(figure.data[1].x) == [0] and figure.layout.shapes[0].x0 == 0
    assert "6 of 6 heads collapsed, 1 alarm<br>" in figure.layout.title.text
    assert len(figure.data[0].x) == 11 and figure.data[2].z.shape == (6, 7)
    assert figure.data[2].x[-1] == 10, "the last step is always there"


def test_cross_attention_counts_every_row_also_beyond_the_keys() -> None:
    from interp.entropy.monitor import Monitor

    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.attention(x, y, y, need_weights=False)[0].square().mean()

    model, x, y = Cross(), torch.randn(2, 7, WIDTH), torch.randn(2, 5, WIDTH)
    with Monitor(model, every=1) as monitor:
        model(x, y)
    p = model.attention(x, y, y, average_attn_weights=False)[1].double()
    wanted = -(p * p.log()).sum(-1).mean((0, 2)) / math.log(5)
    np.testing.assert_allclose(monitor.frame["entropy"], wanted.detach(), rtol=1e-5)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_vision_transformer_of_transformers_is_read_on_either_implementation(implementation: str) -> None:
    import interp
    from interp.entropy.monitor import Monitor

    hf: Any = interp.tiny("vit").release()
    size = hf.config.image_size
    pixels = torch.randn(2, 3, size, size)
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        maps = hf.eval()(pixel_values=pixels, output_attentions=True).attentions
    hf.set_attn_implementation(implementation)
    with Monitor(hf.train(), every=1) as monitor:
        hf(pixel_values=pixels).logits.sum().backward()
    assert not monitor.unseen
    for layer, p in enumerate(maps):
        p = p.double()
        wanted = -(p * p.log()).sum(-1).mean((0, 2)) / math.log(p.shape[-1])
        found = monitor.frame[monitor.frame["layer"] == layer]["entropy"]
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
