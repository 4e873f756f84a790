"""Secrets, kept out of what people read and what is stored: values of the environment, logins, keys of known services."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from core.secret_forms import FORMS, SecretValue, long_words, parts_of, secret_value
from core.visible import visible

# Variables that hold a secret, and not where one lies.
SECRET_NAME = re.compile(
    r"(?:KEY|KEY_ID|TOKEN|SECRETS?|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH_STRING)(?:_?\d+)?$"
    r"|(?:^|_)(?:PAT|PASS|PW|DSN)(?:_?\d+)?$|_PWD$|CONN(?:ECTION)?_?STR(?:ING)?$|WEBHOOK(?:_?URL)?S?$"
    r"|(?:API|ACCESS|SECRET)_?KEYS?(?:_(?!(?:.*_)?(?:FILE|PATH|DIR|NAME|HEADER|ENV|VAR|URL)$).*)?$",
    re.IGNORECASE,
)
SHORTEST = 6  # a shorter value would hide ordinary words
# Of one that is looked for in what people write: real ones are longer, "minioadmin" may be a bucket.
SHORTEST_IN_SPEC = 16


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether an environment variable of this name holds a secret."""
    return bool(SECRET_NAME.search(name))


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return ``text`` with ``***`` for secrets: values of the environment's secret variables, logins, keys of known services.

    Values are found percent-encoded, escaped as in JSON and within base64 too (`core.secret_forms`).
    """
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


def _values(environment: Mapping[str, str]) -> list[SecretValue]:
    """Return what secret variables hold, the longest first: one may be the beginning of another."""
    held = {part for name in environment if is_secret_name(name) for part in _parts(name, environment.get(name, ""))}
    return [secret_value(part) for part in sorted(held, key=lambda part: (-len(part), part))]


@lru_cache(maxsize=1024)
def _parts(name: str, value: str) -> tuple[str, ...]:
    return tuple(part for part in parts_of(name, value) if len(part) >= SHORTEST)


def _without(text: str, values: Iterable[SecretValue]) -> str:
    if len(text) < SHORTEST:
        return text
    words = long_words(text)
    for value in values:
        text = value.hide(text, words)
    for form in FORMS if words or "@" in text else ():
        text = form.hide(text, words)
    return text


def secrets_in(value: Any) -> Iterator[tuple[str, str]]:
    """Yield (where, what) of each secret in JSON-like ``value``: the dotted path of a text, and what in it is secret.

    The secret itself is in neither.
    """
    named = {
        name: value for name, value in os.environ.items() if len(value) >= SHORTEST_IN_SPEC and is_secret_name(name)
    }
    values = {name: secret_value(held) for name, held in named.items()}
    for where, text in _texts(value, "", ()):
        if what := _secret_in(text, values):
            yield redact(where), what


def _texts(value: Any, where: str, above: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of every text in ``value``, which may hold itself."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping | list | tuple) and id(value) not in above:
        entries = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, entry in entries:
            place = f"{where}[{key}]" if isinstance(key, int) else f"{where}.{key}".lstrip(".")
            yield from _texts(entry, place, (*above, id(value)))


def _secret_in(text: str, values: Mapping[str, SecretValue]) -> str | None:
    words = long_words(text)
    held = (f"the value of {name}" for name, value in values.items() if value.hide(text, words) != text)
    known = (form.what for form in FORMS if form.hide(text, words) != text)
    return next(held, None) or next(known, None)


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
