"""Prompts with known answers, and the text that measurements are made on."""

from __future__ import annotations

from interp.tasks import coloured_objects as coloured_objects
from interp.tasks import corpus as corpus
from interp.tasks import documents as documents
from interp.tasks import greater_than as greater_than
from interp.tasks import ioi as ioi
from interp.tasks import mqar as mqar
from interp.tasks import needle as needle
from interp.tasks import ordinals as ordinals
from interp.tasks import passkey as passkey
from interp.tasks import prompt as prompt
from interp.tasks import repeated as repeated
from interp.tasks import succession as succession
from interp.tasks.prompt import Prompt as Prompt

__all__ = [
    "Prompt",
    "coloured_objects",
    "corpus",
    "documents",
    "greater_than",
    "ioi",
    "mqar",
    "needle",
    "ordinals",
    "passkey",
    "prompt",
    "repeated",
    "succession",
]
