"""Calibration of heads: searches on one side of a task, tests on the other, and files that `interp.load` applies."""

from __future__ import annotations

from interp.calibration.controls import RandomKeys as RandomKeys
from interp.calibration.methods import METHODS as METHODS
from interp.calibration.methods import Method as Method
from interp.calibration.methods import act as act
from interp.calibration.methods import temperature as temperature
from interp.calibration.methods import var as var
from interp.calibration.methods import zerotune as zerotune
from interp.calibration.report import calibrate as calibrate
from interp.calibration.saved import save_calibration as save_calibration
from interp.calibration.search import Selection as Selection
from interp.calibration.search import search as search
from interp.calibration.tasks import TASKS as TASKS
from interp.calibration.tasks import CalibrationTask as CalibrationTask

__all__ = [
    "METHODS",
    "TASKS",
    "CalibrationTask",
    "Method",
    "RandomKeys",
    "Selection",
    "act",
    "calibrate",
    "save_calibration",
    "search",
    "temperature",
    "var",
    "zerotune",
]
