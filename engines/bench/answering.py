"""Answering one cell on an open engine: what the store lacks is asked, and every response lands in a shard."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from core.cell_work import CellWork
from core.compare.adaptive import Rounds
from core.errors import EngineDiedError, SteelyardError
from core.log import log
from core.monitor.progress import DocCounter, Progress
from core.monitor.readings import Monitor
from core.monitor.timeline import Timeline
from core.redact import redact
from core.request import Generated, Request, Response
from core.results import open_store
from core.sample import Cell, Scoring
from core.storage.retry import patiently, patiently_in_thread
from core.store.spool import Spool
from core.upkeep.answers import stored_answers
from engines.bench.monitoring import summed_up
from engines.control import Control, Stop
from engines.engine import Engine

TELL_SECONDS = 0.2


@dataclass(frozen=True)
class CellRun:
    """Responses of a cell by request id, and their cost in this run (``resumed`` of them came from shards).

    ``adaptive`` is the record of docs that did not have to be asked; the responses are then of those that were.
    """

    responses: dict[str, Response]
    resumed: int
    seconds: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    monitor: dict[str, float]
    adaptive: dict[str, Any] | None = None


@dataclass(frozen=True)
class Answering:
    """The context of answering: an open engine, the results store's URI, the model's switch, and where notes go.

    ``spool`` takes answers while the store does not; a silent store is waited for ``patience`` seconds. ``about`` is the part of a
    cell's metadata that is known before it is answered.
    """

    engine: Engine
    results: str
    control: Control
    monitor: Monitor | None = None
    timeline: Timeline = field(default_factory=Timeline)
    spool: Spool | None = None
    patience: float = 0.0
    about: dict[str, Any] = field(default_factory=dict)


def run_cell(on: Answering, work: CellWork, tell: Callable[[Progress], None]) -> CellRun:
    """Answer the requests whose answers the store does not hold yet, be it for another cell that asked the same.

    What the engine says is in a shard before this returns or raises. Raises `core.errors.EngineDiedError` where the engine is gone,
    `core.errors.SteelyardError` where no request could be served or the benchmark's time is over,
    `engines.control.CancelledByUserError` where it was told to end.
    """
    store, cell = open_store(on.results), work.cell
    asked = partial(patiently, seconds=on.patience, rest=on.control.rest)
    requests = {request.id: request for request in work.benchmark.requests()}
    own = asked(lambda: store.compact(cell.fingerprint))
    stored = asked(lambda: stored_answers(store, work, own)).responses
    if work.asked:
        asked(lambda: store.write_asked(work.asked, cell.fingerprint, on.about))
    kept = {k: v for k, v in stored.items() if k in requests and v.error is None}
    label = work.label
    if kept:
        log.info(f"{label}: {len(kept)} of {len(requests)} responses were stored by an earlier run")
    rounds = Rounds(work.adaptive, work, requests, store, asked) if work.adaptive else None
    meter = _Meter(cell, requests, kept, tell)
    try:
        with store.writer(cell.fingerprint, sink=on.spool) as writer, summed_up(on.monitor) as summary:
            for part in [requests] if rounds is None else rounds:
                todo = {key: request for key, request in part.items() if key not in kept}
                for response in _answers(on, todo, meter, work):
                    writer.add(response)
                if rounds is not None:
                    rounds.look(meter.responses)
    finally:
        meter.tell(ended=True)
    failed = [response for response in meter.fresh if response.error]
    if failed and len(failed) == len(requests):
        raise SteelyardError(f"{label}: no request could be served; the first said: {failed[0].error}")
    if failed:
        log.warning(f"{label}: {len(failed)} of {len(requests)} requests failed; the first said: {failed[0].error}")
    if rounds is not None:
        (log.info if rounds.standings else log.warning)(f"{label}: {rounds}")
    return meter.run(summary, rounds)


async def commit(on: Answering, work: CellWork, scoring: Scoring, metadata: dict[str, Any]) -> None:
    """Commit a cell, and what groups its docs; the spool then no longer needs its answers."""
    results, metadata = open_store(on.results), {**metadata, "cluster": work.cluster}
    await patiently_in_thread(lambda: results.commit(work.cell, scoring, metadata), on.patience)
    if on.spool is not None:
        await asyncio.to_thread(on.spool.forget, work.cell.fingerprint)


def _answers(on: Answering, todo: dict[str, Request], meter: _Meter, work: CellWork) -> Iterator[Response]:
    """Empty ``todo``, however often the model is paused meanwhile."""
    total, timeout = len(todo), work.timeout_seconds
    label = work.label
    while todo:
        on.control.wait()
        generating = on.timeline.span("generate", work.cell.benchmark)
        with _stop_after(timeout, meter.seconds, label) as stop, on.control.stops(stop), generating, meter.running():
            for response in on.engine.run(list(todo.values()), stop):
                if response.error is not None:
                    response = replace(response, error=redact(response.error))
                del todo[response.id]
                meter.count(response)
                yield response
        if todo and not stop.is_set:
            raise EngineDiedError(f"{label}: {len(todo)} of {total} requests were not answered")
        if todo and timeout is not None and meter.seconds >= timeout:
            raise SteelyardError(
                f"{label}: timeout_seconds = {timeout:g} are over with {len(todo)} of {total} requests to go; what is "
                "answered is stored, the next run goes on from there"
            )


@contextmanager
def _stop_after(timeout: float | None, spent: float, label: str) -> Iterator[Stop]:
    """Yield a stop that is set once ``timeout`` seconds are over, of which ``spent`` already are."""
    stop = Stop()
    timer = threading.Timer(max(0.0, (timeout or 0.0) - spent), stop.set)
    timer.name, timer.daemon = f"time-out of {label}", True
    if timeout is not None:
        timer.start()
    try:
        yield stop
    finally:
        timer.cancel()


class _Meter:
    """Counts one cell's responses as they come, and reports how far it is."""

    def __init__(
        self,
        cell: Cell,
        requests: Mapping[str, Request],
        kept: Mapping[str, Response],
        report: Callable[[Progress], None],
    ) -> None:
        self.fresh: list[Response] = []
        self._spent = 0.0
        self._started: float | None = None
        self._tokens = 0
        self._docs = DocCounter(requests)
        for key in kept:
            self._docs.answer(key)
        self._kept = kept
        self._cell, self._resumed, self._report = cell, self._docs.done, report
        self._told = 0.0

    @property
    def seconds(self) -> float:
        """Time spent within `running`."""
        return self._spent + (0.0 if self._started is None else time.monotonic() - self._started)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time within the block."""
        self._started = time.monotonic()
        try:
            yield
        finally:
            self._spent, self._started = self.seconds, None

    def count(self, response: Response) -> None:
        """Count one response."""
        self.fresh.append(response)
        self._docs.answer(response.id)
        self._tokens += response.prompt_tokens + (response.completion_tokens if isinstance(response, Generated) else 0)
        if (now := time.monotonic()) - self._told >= TELL_SECONDS:
            self._told = now
            self.tell()

    @property
    def responses(self) -> dict[str, Response]:
        """Responses of earlier runs and of this one, by request id."""
        return {**self._kept, **{response.id: response for response in self.fresh}}

    def run(self, summary: dict[str, float], rounds: Rounds | None) -> CellRun:
        """Sum up."""
        return CellRun(
            responses=self.responses if rounds is None else rounds.asked(self.responses),
            resumed=len(self._kept),
            seconds=self.seconds,
            prompt_tokens=sum(response.prompt_tokens for response in self.fresh),
            cached_tokens=sum(response.cached_tokens for response in self.fresh),
            completion_tokens=sum(r.completion_tokens for r in self.fresh if isinstance(r, Generated)),
            monitor=summary,
            adaptive=None if rounds is None else rounds.record(),
        )

    def tell(self, *, ended: bool = False) -> None:
        """Report the progress."""
        cell, docs = self._cell, self._docs
        self._report(
            Progress(
                model=cell.model,
                benchmark=cell.benchmark,
                docs=docs.docs,
                done=docs.done,
                resumed=self._resumed,
                tokens=self._tokens,
                seconds=self.seconds,
                ended=ended,
            )
        )
