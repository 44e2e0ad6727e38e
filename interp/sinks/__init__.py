"""Attention sinks: the metric of Gu et al., sinks behind the first token, massive activations, no-op heads, learned sinks."""

from __future__ import annotations

from interp.sinks.alpha import alphas as alphas
from interp.sinks.alpha import sink_rates as sink_rates
from interp.sinks.detect import hidden_sinks as hidden_sinks
from interp.sinks.hidden import massive_activations as massive_activations
from interp.sinks.hidden import norms as norms
from interp.sinks.report import report as report
from interp.sinks.streaming_loss import streaming_loss as streaming_loss

__all__ = ["alphas", "hidden_sinks", "massive_activations", "norms", "report", "sink_rates", "streaming_loss"]
