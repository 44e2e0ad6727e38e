"""Which transformers class a configuration is loaded with, by transformers' own tables of architectures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    PreTrainedConfig,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
)

from interp.errors import OptionError, UnsupportedModelError


@dataclass(frozen=True, kw_only=True)
class Task:
    """One kind of model head: its Auto class and the classes that each model type has for it."""

    name: str
    auto: Any
    classes: Mapping[Any, str | tuple[str, ...]]

    def has_class(self, name: str) -> bool:
        """Tell whether a class of that name is one for this task."""
        return any(name == value or (isinstance(value, tuple) and name in value) for value in self.classes.values())


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(name="causal-lm", auto=AutoModelForCausalLM, classes=MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
        Task(name="seq2seq-lm", auto=AutoModelForSeq2SeqLM, classes=MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
        Task(name="speech-seq2seq", auto=AutoModelForSpeechSeq2Seq, classes=MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES),
        Task(name="masked-lm", auto=AutoModelForMaskedLM, classes=MODEL_FOR_MASKED_LM_MAPPING_NAMES),
        Task(
            name="image-classification",
            auto=AutoModelForImageClassification,
            classes=MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        ),
    )
}
"""Every task by name; the names are what `interp.load(..., task=)` takes."""

_ENCODER_DECODER_ORDER = ("seq2seq-lm", "speech-seq2seq")
_DECODER_ORDER = ("causal-lm", "masked-lm", "image-classification")
_ENCODER_ORDER = ("masked-lm", "image-classification", "causal-lm")


def choose_task(config: PreTrainedConfig, *, task: str | None = None) -> Task:
    """Choose the class that a model is loaded with.

    In this order: the `task` asked for; the task of the class that the weights were saved from (`config.architectures`);
    the first task that has a class for the model type. Encoder-decoders go before decoders, and encoders (BERT also has a
    causal class) are masked language models unless the configuration says that it is a decoder.

    Raises:
        OptionError: `task` is none of `TASKS`.
        UnsupportedModelError: no task, or not the one asked for, has a class for this model.
    """
    kind, saved = config.model_type, list(config.architectures or [])
    if task is not None:
        if task not in TASKS:
            raise OptionError(f"task must be one of {', '.join(TASKS)}; got {task!r}")
        if kind not in TASKS[task].classes and not _has_code(config, TASKS[task]):
            possible = [name for name, row in TASKS.items() if kind in row.classes]
            raise UnsupportedModelError(
                f"a model of type {kind!r} has no class for task {task!r}; possible: {', '.join(possible) or 'none'}"
            )
        return TASKS[task]
    for row in TASKS.values():
        if any(row.has_class(name) for name in saved) or _has_code(config, row):
            return row
    # a model type in the masked table is an encoder, whatever other classes it has
    order = _ENCODER_ORDER if kind in TASKS["masked-lm"].classes else _DECODER_ORDER
    if getattr(config, "is_decoder", False):
        order = _DECODER_ORDER
    if getattr(config, "is_encoder_decoder", False):
        order = _ENCODER_DECODER_ORDER
    for name in order:
        if kind in TASKS[name].classes:
            return TASKS[name]
    raise UnsupportedModelError(
        f"no language-model or image-classification class of transformers fits a model of type {kind!r} "
        f"(architectures: {', '.join(saved) or 'not given'}). Load it with its own class and pass it to interp.wrap(model, "
        "tokenizer), which works for every model whose attention goes through transformers' attention interface."
    )


def _has_code(config: PreTrainedConfig, task: Task) -> bool:
    """Tell whether the model brings its own class for a task (run only with `trust_remote_code=True`)."""
    return task.auto.__name__ in (getattr(config, "auto_map", None) or {})
