"""Head taxonomy: what each attention head does, scored with controls, from streaming statistics or from the weights."""

from __future__ import annotations

from interp.heads.causal import causal_retrieval as causal_retrieval
from interp.heads.confirm import confirm as confirm
from interp.heads.copying import copying as copying
from interp.heads.deployment import deployment as deployment
from interp.heads.duo_gates import GateTraining as GateTraining
from interp.heads.duo_gates import train_gates as train_gates
from interp.heads.embedding import embedding as embedding
from interp.heads.features import features as features
from interp.heads.flexprefill import flexprefill as flexprefill
from interp.heads.labels import Rules as Rules
from interp.heads.patterns import patterns as patterns
from interp.heads.positional import duplicate_token as duplicate_token
from interp.heads.positional import induction as induction
from interp.heads.positional import positional as positional
from interp.heads.positional import previous_token as previous_token
from interp.heads.positional_text import positional_text as positional_text
from interp.heads.qrhead import qrhead as qrhead
from interp.heads.report import load_report as load_report
from interp.heads.report import report as report
from interp.heads.retrieval import retrieval as retrieval
from interp.heads.streaming import streaming as streaming
from interp.heads.streaming import streaming_heads as streaming_heads
from interp.heads.succession_attention import succession_attention as succession_attention
from interp.heads.successor import successor as successor
from interp.heads.successor_probe import successor_probe as successor_probe
from interp.heads.weights import read_weights as read_weights

__all__ = [
    "GateTraining",
    "Rules",
    "causal_retrieval",
    "confirm",
    "copying",
    "deployment",
    "duplicate_token",
    "embedding",
    "features",
    "flexprefill",
    "induction",
    "load_report",
    "patterns",
    "positional",
    "positional_text",
    "previous_token",
    "qrhead",
    "read_weights",
    "report",
    "retrieval",
    "streaming",
    "streaming_heads",
    "succession_attention",
    "successor",
    "successor_probe",
    "train_gates",
]
