"""The errors that interp raises on purpose: everything a caller may want to catch derives from `InterpError`.

A message says three things, in this order: what was wrong (naming the argument, file or model), what was expected, and
what to do about it. The command line prints the message without a traceback, so it has to stand on its own. Each class
takes that one message.

Errors that are a misuse of an argument derive from `ValueError` too, so that plain Python code catches them as usual.
"""

from __future__ import annotations

__all__ = [
    "CaptureError",
    "CorruptFileError",
    "EditError",
    "InputDataError",
    "InterpError",
    "ModelNotFoundError",
    "OfflineError",
    "OptionError",
    "OutputError",
    "PlanMismatchError",
    "ShapeError",
    "TooLargeError",
    "UnsupportedModelError",
]


class InterpError(Exception):
    """Base class of every error that interp raises on purpose."""


class ModelNotFoundError(InterpError):
    """No model of that name: no such folder or file, not an installed package's model, not on the hub."""


class CorruptFileError(InterpError):
    """A file is there but is not what it claims to be: cut short, wrong hash or magic number, unreadable header."""


class UnsupportedModelError(InterpError):
    """The model loads, but its architecture, tensor type or attention call is one that interp cannot handle exactly."""


class OfflineError(InterpError):
    """Something had to come from the network, and there is none or it was ruled out."""


class OptionError(InterpError, ValueError):
    """An argument has a value that is not one of the possible ones; the message lists those."""


class ShapeError(InterpError, ValueError):
    """A tensor has the wrong rank, axis length or dtype, or several tensors do not fit each other."""


class TooLargeError(InterpError, ValueError):
    """The request needs more memory than its limit; the message says how much, and how to ask for less or force it."""


class CaptureError(InterpError):
    """Capturing failed or is not faithful: a layer did not call our attention, or what was asked for was not kept."""


class EditError(InterpError):
    """An intervention does not fit the model or another intervention, or had no effect where it must have one."""


class InputDataError(InterpError):
    """A text file, dataset or column cannot be read, is empty, or does not hold text."""


class OutputError(InterpError):
    """The output folder or file cannot be written, or holds something that must not be overwritten."""


class PlanMismatchError(OutputError):
    """The output folder holds part of another plan, so that resuming would mix two measurements."""
