"""Interventions: frozen objects for `with model.edit(...)`."""

from __future__ import annotations

from interp.interventions.ablate import AblateHeads as AblateHeads
from interp.interventions.act import ACT as ACT
from interp.interventions.answers import AnswerScores as AnswerScores
from interp.interventions.answers import answer_scores as answer_scores
from interp.interventions.bias import LogBias as LogBias
from interp.interventions.bias import pasta as pasta
from interp.interventions.bias import zero_tuning as zero_tuning
from interp.interventions.effects import answer_effects as answer_effects
from interp.interventions.effects import generation_effects as generation_effects
from interp.interventions.effects import text_effects as text_effects
from interp.interventions.gate import GateHeads as GateHeads
from interp.interventions.gate import RouteHeads as RouteHeads
from interp.interventions.knockout import DeleteEdges as DeleteEdges
from interp.interventions.knockout import KnockOut as KnockOut
from interp.interventions.patterns import FreezePattern as FreezePattern
from interp.interventions.patterns import PatchPattern as PatchPattern
from interp.interventions.patterns import ReplacePattern as ReplacePattern
from interp.interventions.patterns import queries_and_keys as queries_and_keys
from interp.interventions.relocate import relocated as relocated
from interp.interventions.saved import from_json as from_json
from interp.interventions.saved import to_json as to_json
from interp.interventions.schedule import Schedule as Schedule
from interp.interventions.sinks import InjectSink as InjectSink
from interp.interventions.sinks import RemoveSinks as RemoveSinks
from interp.interventions.sinks import delete_tokens as delete_tokens
from interp.interventions.streaming import Streaming as Streaming
from interp.interventions.streaming_cache import cache_bytes as cache_bytes
from interp.interventions.streaming_cache import streaming_cache as streaming_cache
from interp.interventions.target_entropy import TargetEntropy as TargetEntropy
from interp.interventions.temperature import Temperature as Temperature
from interp.interventions.values import ScaleValues as ScaleValues
from interp.interventions.var import VAR as VAR

__all__ = [
    "ACT",
    "VAR",
    "AblateHeads",
    "AnswerScores",
    "DeleteEdges",
    "FreezePattern",
    "GateHeads",
    "InjectSink",
    "KnockOut",
    "LogBias",
    "PatchPattern",
    "RemoveSinks",
    "ReplacePattern",
    "RouteHeads",
    "ScaleValues",
    "Schedule",
    "Streaming",
    "TargetEntropy",
    "Temperature",
    "answer_effects",
    "answer_scores",
    "cache_bytes",
    "delete_tokens",
    "from_json",
    "generation_effects",
    "pasta",
    "queries_and_keys",
    "relocated",
    "streaming_cache",
    "text_effects",
    "to_json",
    "zero_tuning",
]
