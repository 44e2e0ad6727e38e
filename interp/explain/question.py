"""`Question`: one text, and the next token that is to be explained; and the calls of one forward pass over it.

Every check of this package explains f(x) = p(target | text), the probability of one token behind the last one of a text, as ERASER does for the
predicted class (DeYoung et al. 2020, arXiv 1911.03429). Scores of tokens stand on the text's own positions; the row of the last token is "the row".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from interp.capture.call import Attended, AttentionCall
from interp.capture.sweep import column_sums, weights_at
from interp.errors import InputDataError, OptionError, UnsupportedModelError
from interp.models.hooked import HookedModel
from interp.tasks.prompt import Prompt

Text = str | Sequence[int] | Prompt
Target = str | int | None
Call = tuple[AttentionCall, Attended]
"""One layer's finished call on one text."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A text and the token to explain.

    Attributes:
        ids: the text.
        target: token behind it.
        predicted: whether the target is the model's own choice.
    """

    ids: tuple[int, ...]
    target: int
    predicted: bool

    @property
    def row(self) -> int:
        """The last position, whose output predicts the target."""
        return len(self.ids) - 1

    def record(self, model: HookedModel) -> dict[str, Any]:
        """For manifests."""
        joined = ",".join(map(str, self.ids))
        return {
            "tokens": len(self.ids),
            "token_ids_sha256": hashlib.sha256(joined.encode()).hexdigest(),
            "target": self.target,
            "target_token": model.tokens([self.target])[0],
            "target_is": "the model's prediction" if self.predicted else "given",
        }


def ask(model: HookedModel, prompt: Text, target: Target = None) -> Question:
    """Make a question.

    Args:
        model: a causal decoder.
        prompt: text, token ids, or a `Prompt` (its `ids`).
        target: token id, or a text of which the first token counts (written as it continues the prompt, so mostly with a leading space);
            None takes the model's prediction.

    Raises:
        UnsupportedModelError: not a causal decoder with a head.
        InputDataError: a text of fewer than two tokens, or an empty target.
        OptionError: a token outside the vocabulary.
    """
    if model.is_encoder_decoder or model.hf.get_output_embeddings() is None:
        raise UnsupportedModelError(
            f"{type(model.hf).__name__} does not predict a next token from one text; explanations need a decoder"
        )
    given = prompt.ids if isinstance(prompt, Prompt) else model.encode(prompt) if isinstance(prompt, str) else prompt
    ids = tuple(int(x) for x in given)
    if len(ids) < 2:
        raise InputDataError(f"a text of {len(ids)} token(s) has nothing to remove; give at least two tokens")
    if target is None:
        return Question(ids=ids, target=int(log_probabilities(model, ids).argmax()), predicted=True)
    token = target
    if isinstance(token, str):
        said = model.encode(token, bos=False)
        if not said:
            raise InputDataError(f"the target {token!r} has no token; give the text that should follow, or a token id")
        token = said[0]
    size = int(model.hf.config.get_text_config().vocab_size)
    if not 0 <= token < size:
        raise OptionError(f"target: the vocabulary has the tokens 0 to {size - 1}, got {token}")
    return Question(ids=ids, target=int(token), predicted=False)


def log_probabilities(model: HookedModel, ids: Sequence[int]) -> Tensor:
    """Natural log-probabilities of the next token, float64 [vocabulary], under the interventions in force."""
    logits = model.run(list(ids), collect=[], keep="none", logits="last").logits
    if logits is None:
        raise UnsupportedModelError(f"{type(model.hf).__name__} gives no logits")
    return logits.double().log_softmax(-1)


@torch.no_grad()
def calls_of(model: HookedModel, ids: Sequence[int]) -> dict[int, Call]:
    """The finished attention calls of one text by layer, O(N) memory each; interventions in force are in them.

    Raises:
        UnsupportedModelError: a layer that sees later tokens.
    """
    found: dict[int, Call] = {}
    model.probe(list(ids), lambda call, attended: found.update({call.site.layer: (call, attended)}))
    if any(not call.mask.is_causal and not call.mask.is_dense for call, _ in found.values()):
        raise UnsupportedModelError("these explanations are defined for causal attention; this model sees later tokens")
    return dict(sorted(found.items()))


def weighted_columns(call: AttentionCall, attended: Attended, weights: Tensor) -> Tensor:
    """sum_i w_i p_ij of one text: w [N], 0 or more, to [head, key], the dtype of the kernel's sums; O(N) memory.

    The key-major sweep sums exp(s_ij - lse_i) over rows, so that a row's weight goes into its lse: w_i p_ij = exp(s_ij - (lse_i - ln w_i)).
    """
    counted = weights > 0
    shifted = attended.lse - torch.where(counted, weights, 1.0).log().to(attended.lse)
    swept = column_sums(call, replace(attended, lse=shifted), rows=counted[None])
    return swept["received"][0, :, 0]


def map_rows(call: AttentionCall, attended: Attended, rows: Sequence[int]) -> Tensor:
    """Some rows of every head's map of one text: [head, row, key]; 0 where hidden."""
    at = torch.as_tensor(list(rows), device=call.q.device)
    i = at.repeat_interleave(call.keys)
    j = torch.arange(call.keys, device=call.q.device).repeat(len(at))
    found = [weights_at(call, attended, i, j, head=head) for head in range(call.heads)]
    return torch.stack(found).view(call.heads, len(at), call.keys)
