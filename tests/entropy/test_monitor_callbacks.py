"""The monitor inside transformers' Trainer, and under an interface like Lightning's."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F


def test_trainer_steps_are_optimiser_steps(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    import interp
    from interp.entropy.callbacks import EntropyCallback

    hf = interp.tiny("llama").release()
    hf.set_attn_implementation("sdpa")
    texts = [{"input_ids": (ids := torch.randint(5, 200, (11,))), "labels": ids} for _ in range(16)]
    callback = EntropyCallback(every=2)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=5, report_to=[],
        logging_strategy="no", save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    Trainer(model=hf, args=arguments, train_dataset=texts, callbacks=[callback]).train()
    monitor = callback.monitor
    assert monitor is not None
    assert [r.step for r in monitor.readings] == [0, 2, 4]
    assert monitor.frame["layer"].nunique() == hf.config.num_hidden_layers
    assert not any(m._forward_hooks for m in hf.modules())


def test_trainer_stops_on_a_chosen_alarm(tmp_path: Path) -> None:
    from interp.entropy.callbacks import EntropyCallback
    from interp.entropy.detector import Rules

    model = nn.TransformerEncoderLayer(12, 3, 17, dropout=0.0, batch_first=True)
    # Every entropy is below 1, so under these rules every head has collapsed from the start.
    callback = EntropyCallback(every=1, rules=Rules(collapsed=1.0, collapsed_rest=1.0), stop_on=("collapse",))
    control = SimpleNamespace(should_training_stop=False)
    callback.on_train_begin(None, None, control, model=model)
    callback.on_step_begin(None, SimpleNamespace(global_step=0), control)
    model(torch.randn(2, 5, 12))
    callback.on_step_end(None, None, control)
    assert control.should_training_stop


def test_lightning_is_asked_for_in_words_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.entropy import callbacks
    from interp.errors import OptionError

    monkeypatch.setattr(callbacks, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match="pip install lightning"):
        callbacks.lightning_callback()


def test_the_lightning_form_measures_training_steps_that_never_call_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning itself is not needed: its hooks are called in the order that its loop calls them."""
    from interp.entropy import callbacks

    fake: Any = ModuleType("lightning.pytorch")
    fake.Callback = object
    monkeypatch.setattr(callbacks, "find_spec", lambda name: object())
    monkeypatch.setattr(callbacks, "import_module", lambda name: fake)
    callback = callbacks.lightning_callback(every=2)
    module = nn.MultiheadAttention(12, 3, batch_first=True)
    trainer = SimpleNamespace(global_step=0, should_stop=False)
    callback.on_train_start(trainer, module)
    for step in range(3):
        trainer.global_step = step
        callback.on_train_batch_start(trainer, module, None, step)
        x = torch.randn(2, 5, 12)
        q, k, v = (F.linear(x, w).unflatten(-1, (3, 4)).transpose(1, 2) for w in module.in_proj_weight.chunk(3))
        loss = F.scaled_dot_product_attention(q, k, v).square().mean()
        callback.on_before_backward(trainer, module, loss)
        loss.backward()
        callback.on_train_batch_end(trainer, module, None, None, step)
    callback.on_train_end(trainer, module)
    assert [r.step for r in callback.monitor.readings] == [0, 2]
    assert all(r.loss is not None for r in callback.monitor.readings)
