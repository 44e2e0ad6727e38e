"""What a view's front end and its Python say to each other: one request, one answer, never an exception.

A request is a dict {"op": name, "id": number, ...}; an answer is a dict with the same id and `k` buffers of bytes. A host that loses binary
buffers asks with "b64": true and gets them as text. A failure is {"error": what to tell the reader}.
"""

from __future__ import annotations

import base64
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from interp.errors import InterpError, OptionError

Reply = tuple[dict[str, Any], list[bytes]]
Operation = Callable[[Any, Mapping[str, Any]], Reply]

logger = logging.getLogger(__name__)


def answer(operations: Mapping[str, Operation], source: object, message: object) -> Reply:
    """Answer one request with the operation that it names. Runs in inference mode, because handlers run on threads of their own.

    Args:
        operations: name -> function of (source, message) that gives (JSON values, buffers), and raises an InterpError with words for the reader.
        source: what the view shows.
        message: the request as it came: untrusted.
    """
    request = message if isinstance(message, Mapping) else {}
    head = {"id": request.get("id")}
    try:
        name = request.get("op")
        if name == "ping":
            return head | {"k": 0}, []
        if not isinstance(name, str) or name not in operations:
            raise OptionError(f"no operation {name!r}; there are: {', '.join(operations)}")
        with torch.inference_mode():
            said, buffers = operations[name](source, request)
    except InterpError as error:
        return head | {"error": str(error)}, []
    except Exception as error:  # the front end waits for an answer, whatever went wrong here
        logger.exception("a view could not answer %r", request.get("op"))
        return head | {"error": f"{type(error).__name__}: {error}"}, []
    reply = head | said | {"k": len(buffers)}
    if request.get("b64"):
        return reply | {"b64": [base64.b64encode(b).decode("ascii") for b in buffers]}, []
    return reply, buffers


def whole(message: Mapping[str, Any], name: str, low: int, stop: int) -> int:
    """A whole number of a request, low <= number < stop. Raises OptionError otherwise."""
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value < stop:
        raise OptionError(f"{name} must be a whole number from {low} to {stop - 1}; got {value!r}")
    return value


def one_of(message: Mapping[str, Any], name: str, choices: Sequence[str]) -> str:
    """A word of a request that must be one of the choices. Raises OptionError otherwise."""
    value = message.get(name)
    if value not in choices:
        raise OptionError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
    return str(value)


def finite(x: float) -> float | None:
    """A number as JSON can hold it: None for NaN and infinities."""
    return float(x) if math.isfinite(x) else None


def readable(text: str) -> str:
    """Text that a message can carry: a lone surrogate, which is no character, becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
