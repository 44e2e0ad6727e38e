"""Head taxonomy: what each attention head does, scored with controls, from streaming statistics or from the weights."""

from __future__ import annotations

from interp.heads.copying import copying as copying
from interp.heads.positional import duplicate_token as duplicate_token
from interp.heads.positional import induction as induction
from interp.heads.positional import positional as positional
from interp.heads.positional import previous_token as previous_token
from interp.heads.positional_text import positional_text as positional_text
from interp.heads.retrieval import retrieval as retrieval
from interp.heads.succession_attention import succession_attention as succession_attention
from interp.heads.successor import successor as successor
from interp.heads.successor_probe import successor_probe as successor_probe
from interp.heads.weights import read_weights as read_weights

__all__ = [
    "copying",
    "duplicate_token",
    "induction",
    "positional",
    "positional_text",
    "previous_token",
    "read_weights",
    "retrieval",
    "succession_attention",
    "successor",
    "successor_probe",
]
