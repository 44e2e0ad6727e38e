"""`Readout`: the logits of chosen rows only, from the states that a model's head reads.

A text of N tokens has logits [N, vocabulary], which is 200 MB at N = 1,024 and 49,152 tokens; its last states are [N, d]. So states are kept
and compared a few rows at a time.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextvars import Context
from typing import Any

import torch
from torch import Tensor

from interp.errors import UnsupportedModelError
from interp.models.hooked import HookedModel

ROWS = 256
"""Rows whose logits are held at a time: 50 MB at a vocabulary of 49,152."""
TOLERANCE, HALF_TOLERANCE = 1e-3, 1e-2
"""Largest relative error (Frobenius norm) of our logits against the model's own; the second for bfloat16 and float16."""


class Readout:
    """Last states of a decoder and their logits. Building one runs the model on three tokens, outside every intervention, as a proof.

    Args:
        model: a decoder whose head is a linear map of the last states (with a soft cap behind it or not).

    Raises:
        UnsupportedModelError: the model is no such decoder.
    """

    def __init__(self, model: HookedModel) -> None:
        self.model = model
        self.head: Any = model.hf.get_output_embeddings()
        if model.is_encoder_decoder or self.head is None or model.hf.base_model is model.hf:
            raise UnsupportedModelError(
                f"{type(model.hf).__name__} is no decoder with an unembedding; answers and texts are scored on those"
            )
        text = model.hf.config.get_text_config()
        self._cap: float | None = getattr(text, "final_logit_softcapping", None)
        Context().run(self._prove)

    def states(self, ids: Tensor) -> Tensor:
        """States that the head reads, [B, N, d], of texts of one length, int64 [B, N]; with gradients if they are enabled."""
        base = self.model.hf.base_model
        extra = {"use_cache": False} if "use_cache" in inspect.signature(base.forward).parameters else {}
        return base(input_ids=ids.to(self.model.device), **extra).last_hidden_state

    def logits(self, states: Tensor) -> Tensor:
        """Logits [..., vocabulary] of states [..., d], float32 or wider."""
        logits = self.head(states)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return logits if self._cap is None else self._cap * torch.tanh(logits / self._cap)

    def log_probs(self, states: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Log-probabilities of states [n, d], at most `ROWS` rows at a time: (rows, [rows, vocabulary])."""
        for first in range(0, len(states), ROWS):
            rows = slice(first, min(first + ROWS, len(states)))
            yield rows, self.logits(states[rows]).log_softmax(-1)

    @torch.no_grad()
    def _prove(self) -> None:
        embed: Any = self.model.hf.get_input_embeddings()
        vocabulary = embed.weight.shape[0]
        ids = torch.tensor([[(1 + k) * vocabulary // 5 for k in range(3)]], device=self.model.device)
        own = self.model.hf(input_ids=ids).logits.double()
        ours = self.logits(self.states(ids)).double()
        allowed = TOLERANCE if self.model.dtype in (torch.float32, torch.float64) else HALF_TOLERANCE
        error = float((own - ours).norm() / own.norm()) if own.shape == ours.shape else float("inf")
        if not error < allowed:
            raise UnsupportedModelError(
                f"{type(self.model.hf).__name__}: its logits are not its last states times its unembedding "
                f"(relative error {error:.2g}); answers and texts cannot be scored on it"
            )
