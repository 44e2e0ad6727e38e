"""Attention entropy: what a model's heads have, what bounds it, what keeps it from collapsing or overloading in training."""

from __future__ import annotations

from interp.entropy.bound import centred_norm as centred_norm
from interp.entropy.bound import entropy_bound as entropy_bound
from interp.entropy.bound import extremal_row as extremal_row
from interp.entropy.callbacks import EntropyCallback as EntropyCallback
from interp.entropy.callbacks import lightning_callback as lightning_callback
from interp.entropy.detector import Alarm as Alarm
from interp.entropy.detector import Detector as Detector
from interp.entropy.detector import Rules as Rules
from interp.entropy.monitor import Monitor as Monitor
from interp.entropy.norms import QKNorm as QKNorm
from interp.entropy.norms import SoftCap as SoftCap
from interp.entropy.norms import add_qk_norm as add_qk_norm
from interp.entropy.norms import soft_cap as soft_cap
from interp.entropy.penalties import OverloadPenalty as OverloadPenalty
from interp.entropy.penalties import entropy_maximisation as entropy_maximisation
from interp.entropy.penalties import overload_penalty as overload_penalty
from interp.entropy.penalties import target_penalty as target_penalty
from interp.entropy.projections import query_keys as query_keys
from interp.entropy.regimes import regime_shares as regime_shares
from interp.entropy.regimes import regimes as regimes
from interp.entropy.report import report as report
from interp.entropy.rows import EntropyRows as EntropyRows
from interp.entropy.rows import collecting as collecting
from interp.entropy.rows import measure as measure
from interp.entropy.schedules import LearnedTemperature as LearnedTemperature
from interp.entropy.schedules import Ramp as Ramp
from interp.entropy.schedules import ScheduledTemperature as ScheduledTemperature
from interp.entropy.sigma_reparam import SigmaReparam as SigmaReparam
from interp.entropy.sigma_reparam import convert as convert
from interp.entropy.sigma_reparam import plain_state as plain_state
from interp.entropy.sigma_reparam import remove as remove
from interp.entropy.sigma_reparam import spectral_norms as spectral_norms
from interp.entropy.spectral import qk_norm_product as qk_norm_product
from interp.entropy.spectral import qk_spectral_norm as qk_spectral_norm
from interp.entropy.writers import ParquetWriter as ParquetWriter
from interp.entropy.writers import TensorBoardWriter as TensorBoardWriter
from interp.entropy.writers import WandbWriter as WandbWriter

__all__ = [
    "Alarm",
    "Detector",
    "EntropyCallback",
    "EntropyRows",
    "LearnedTemperature",
    "Monitor",
    "OverloadPenalty",
    "ParquetWriter",
    "QKNorm",
    "Ramp",
    "Rules",
    "ScheduledTemperature",
    "SigmaReparam",
    "SoftCap",
    "TensorBoardWriter",
    "WandbWriter",
    "add_qk_norm",
    "centred_norm",
    "collecting",
    "convert",
    "entropy_bound",
    "entropy_maximisation",
    "extremal_row",
    "lightning_callback",
    "measure",
    "overload_penalty",
    "plain_state",
    "qk_norm_product",
    "qk_spectral_norm",
    "query_keys",
    "regime_shares",
    "regimes",
    "remove",
    "report",
    "soft_cap",
    "spectral_norms",
    "target_penalty",
]
