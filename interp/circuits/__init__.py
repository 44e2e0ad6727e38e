"""Circuits: which heads carry an answer, along which paths: patching, attribution, knock-out, and the overlap of two tasks."""

from __future__ import annotations

from interp.circuits.activation_patching import activation_patching as activation_patching
from interp.circuits.attribution_patching import attribution_patching as attribution_patching
from interp.circuits.coders import layer_encoders as layer_encoders
from interp.circuits.coders import shared_dictionary as shared_dictionary
from interp.circuits.codes import code_circuits as code_circuits
from interp.circuits.direct import direct_logit_attribution as direct_logit_attribution
from interp.circuits.knockout import knockout_sweep as knockout_sweep
from interp.circuits.overlap import overlap as overlap
from interp.circuits.path_patching import path_patching as path_patching

__all__ = [
    "activation_patching",
    "attribution_patching",
    "code_circuits",
    "direct_logit_attribution",
    "knockout_sweep",
    "layer_encoders",
    "overlap",
    "path_patching",
    "shared_dictionary",
]
