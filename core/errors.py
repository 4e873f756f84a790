"""Errors that a person reads. Each message names the value and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from core.redact import redact
from core.visible import visible


class SteelyardError(Exception):
    """Anything Steelyard raises on purpose. Its message goes to terminals, logs and Prefect: without secrets, and `visible`."""

    def __init__(self, message: object = "") -> None:
        super().__init__(visible(redact(str(message))))


class UserError(SteelyardError):
    """Bad input, found before any engine starts. The command line prints it on one line and exits with 2."""


class CannotPlaceError(UserError):
    """No placement of the fleet can hold the model; the message carries the arithmetic."""


class TransientError(UserError):
    """Something outside does not answer, and may do so in a moment."""


class HubUnreachableError(TransientError):
    """The hub does not answer, or its answer was cut off."""


class StoreError(UserError):
    """The results store cannot be reached, read or written."""


class StoreKeysError(StoreError):
    """There are no keys to the results store, or it refuses them: nothing could be stored."""


class StoreUnreachableError(StoreError, TransientError):
    """The results store does not answer, or is too busy to."""


class EngineDiedError(SteelyardError):
    """The engine process or actor is gone, or refused to start. A model's failure, never a sample's."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` — did you mean 'x'?`` for the known name most like ``name``, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" — did you mean {close[0]!r}?" if close else ""


def root_of(error: BaseException) -> BaseException:
    """Return the error that says what went wrong: the first of ours, else the last cause that says anything."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None and cause not in causes:
        causes.append(cause)
    speaking = [each for each in causes if str(each).strip()]
    ours = (each for each in speaking if isinstance(each, SteelyardError))
    return next(ours, speaking[-1] if speaking else causes[-1])


def reason_of(error: BaseException) -> str:
    """Return what went wrong in one line, without secrets, say ``KeyError: 'test'``; of an error of ours what it says alone."""
    cause = root_of(error)
    line = redact(next(iter(str(cause).strip().splitlines()), ""))
    if isinstance(cause, SteelyardError) and line:
        return line
    return f"{type(cause).__name__}: {line}" if line else type(cause).__name__
