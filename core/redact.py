"""Secrets, kept out of what people read and what is stored: values of the environment, logins in URLs, keys of known forms."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from core.visible import visible

HIDDEN = "***"
# Variables that hold a secret, and not where one lies.
SECRET_NAME = re.compile(
    r"(KEY|KEY_ID|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH_STRING)$", re.IGNORECASE
)
SHORTEST = 6  # a shorter value would hide ordinary words
# Of one that is looked for in what people write: real ones are longer, "minioadmin" may be a bucket.
SHORTEST_IN_SPEC = 16
LOGIN = re.compile(r"(?<=://)[^\s/@:'\"]*:[^\s/@'\"]*(?=@)")
# Of the hub, of Prefect Cloud, and AWS's key ids.
KEY = re.compile(r"\bhf_[A-Za-z0-9]{30,}|\bpn[ub]_[A-Za-z0-9]{30,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")


def is_secret_name(name: str) -> bool:
    """Whether an environment variable of this name holds a secret."""
    return bool(SECRET_NAME.search(name))


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return ``text`` with ``***`` for secrets: values of the environment's secret variables, logins in URLs, known keys."""
    return _without(text, _values(os.environ if environment is None else environment))


def redact_all(value: Any, environment: Mapping[str, str] | None = None) -> Any:
    """Return JSON-like ``value`` with every text in it redacted, keys too; lists and tuples stay what they are."""
    values = _values(os.environ if environment is None else environment)

    def clean(each: Any) -> Any:
        if isinstance(each, str):
            return _without(each, values)
        if isinstance(each, Mapping):
            return {clean(key): clean(entry) for key, entry in each.items()}
        return type(each)(map(clean, each)) if isinstance(each, list | tuple) else each

    return clean(value)


def _values(environment: Mapping[str, str]) -> list[str]:
    return [value for name, value in environment.items() if len(value) >= SHORTEST and is_secret_name(name)]


def _without(text: str, values: Iterable[str]) -> str:
    for value in values:
        text = text.replace(value, HIDDEN)
    return KEY.sub(HIDDEN, LOGIN.sub(HIDDEN, text))


def secrets_in(value: Any, where: str = "", above: tuple[int, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yield (where, what) of each secret in JSON-like ``value``: the dotted path of a text, and what in it is secret.

    The secret itself is in neither.
    """
    if isinstance(value, str):
        if what := _secret_in(value):
            yield redact(where), what
    elif isinstance(value, Mapping | list | tuple) and id(value) not in above:
        entries = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, entry in entries:
            place = f"{where}[{key}]" if isinstance(key, int) else f"{where}.{key}".lstrip(".")
            yield from secrets_in(entry, place, (*above, id(value)))


def _secret_in(text: str) -> str | None:
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_IN_SPEC and is_secret_name(name) and value in text:
            return f"the value of {name}"
    if LOGIN.search(text):
        return "a user and a password"
    return "a key" if KEY.search(text) else None


def redact_logs() -> None:
    """Make every log record of this process without secrets and `visible`, for every logger and handler. Twice is once."""
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            text = record.getMessage()
        except Exception:  # the handler reports it, as it would have
            return record
        if (clean := visible(redact(text))) != text:
            record.msg, record.args = clean, ()
        if record.exc_info and any(record.exc_info):
            told = _formatter.formatException(record.exc_info)
            if (clean := visible(redact(told))) != told:
                record.exc_text = clean  # formatters take it for the traceback
        return record

    redacted.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(redacted)


_formatter = logging.Formatter()
