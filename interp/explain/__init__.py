"""Checks of attention as explanation: removal tests, rollout, norm-weighted attention, gradient x attention, rank agreement, an honesty panel."""

from __future__ import annotations

from interp.explain.agreement import agreement as agreement
from interp.explain.faithfulness import faithfulness as faithfulness
from interp.explain.gradient import gradient as gradient
from interp.explain.norms import norms as norms
from interp.explain.panel import panel as panel
from interp.explain.question import Question as Question
from interp.explain.question import ask as ask
from interp.explain.ranking import METHODS as METHODS
from interp.explain.rollout import rollout as rollout

__all__ = [
    "METHODS",
    "Question",
    "agreement",
    "ask",
    "faithfulness",
    "gradient",
    "norms",
    "panel",
    "rollout",
]
