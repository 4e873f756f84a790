"""What lm-evaluation-harness warns of while it loads a benchmark, builds its prompts or scores its answers, each kind once."""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("lm_eval", "lm-eval")  # its modules', and what older tasks of its catalogue use
OPTION = re.compile(r"(?<![\w-])--[a-z]")
MOST_OF_A_KIND = 3  # different lines of one place in its code that are repeated, say one for each task of a group


class Heard:
    """Warnings of one thread. A kind is a place in the harness's code: its lines differ in names of tasks and docs alone."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)

    def add(self, record: logging.LogRecord) -> None:
        """Count a record by its first line, the others show whole docs. Advice on the harness's command line is passed over."""
        line = next(filter(None, map(str.strip, record.getMessage().splitlines())), "")
        if line and not OPTION.search(line):
            self._kinds[record.pathname, record.lineno][line] += 1

    @property
    def lines(self) -> tuple[str, ...]:
        """The warnings in the order they came, with how often; of a kind with many, the first and how many more there were."""
        return tuple(line for kind in self._kinds.values() for line in _lines_of(kind))


def _lines_of(kind: Counter[str]) -> Iterator[str]:
    for line, count in list(kind.items())[:MOST_OF_A_KIND]:
        yield f"lm-eval: {line}" + (f" ({count:,} times)" if count > 1 else "")
    if (more := len(kind) - MOST_OF_A_KIND) > 0:
        yield f"lm-eval: and {more:,} more like the last"


class _Ear(logging.Handler):
    """Hands the harness's records to whoever listens in the thread that made them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._listening = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        heard: Heard | None = getattr(self._listening, "heard", None)
        if heard is not None:
            heard.add(record)
        elif record.levelno >= logging.ERROR:
            logging.getLogger("steelyard").log(record.levelno, "lm-eval: %s", record.getMessage())

    @contextmanager
    def handing_to(self, heard: Heard) -> Iterator[None]:
        before = getattr(self._listening, "heard", None)
        self._listening.heard = heard
        try:
            yield
        finally:
            self._listening.heard = before


_EAR = _Ear()


def listen() -> None:
    """Have the harness's warnings come here and nowhere else. Doing it again changes nothing."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        logger.propagate = False
        if _EAR not in logger.handlers:
            logger.addHandler(_EAR)


@contextmanager
def hearing(heard: Heard) -> Iterator[None]:
    """Have ``heard`` collect what the harness warns of in this thread for the length of the block."""
    listen()
    with _EAR.handing_to(heard):
        yield
