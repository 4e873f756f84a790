"""The middle of the pipeline: requests → engine → response shards → scores → committed cell."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.utilities.annotations import quote

from core.adaptive import of_docs
from core.cost.expected import Expected
from core.errors import EngineDiedError, SteelyardError
from core.monitor.progress import DocCounter, Progress
from core.monitor.readings import Monitor
from core.plan import PlannedModel
from core.redact import redact
from core.request import Generated, Request, Response, doc_of
from core.results import open_store
from core.sample import Cell, Scoring
from core.scoring.quality import facts_of
from core.store.patience import patiently, patiently_in_thread
from core.store.spool import Spool
from engines.engine import Engine, EngineInfo
from engines.stop import Stop
from tasks.adaptive import Rounds
from tasks.control import Control
from tasks.monitor import summed_up
from tasks.prepare import CellWork
from tasks.progress import show_while
from tasks.progress import tell as tell_listeners
from tasks.recover import Recovery
from tasks.say import say, warn
from tasks.timeline import Timeline

TELL_SECONDS = 0.2


@dataclass(frozen=True)
class CellRun:
    """Responses of a cell by request id, and what getting them took in this run (``resumed`` came from shards).

    ``adaptive`` is what the record says of docs that did not have to be asked; the responses are then of those that were.
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
class Bench:
    """What benchmarks of one model run on: an open engine, the results store's URI, the model's switch, and who takes notes.

    ``spool`` takes answers while the store does not, and ``patience`` is how many seconds a silent store is waited for.
    """

    engine: Engine
    results: str
    control: Control
    monitor: Monitor | None = None
    timeline: Timeline = field(default_factory=Timeline)
    spool: Spool | None = None
    patience: float = 0.0
    recovery: Recovery | None = None
    expected: Expected | None = None


def run_cell(bench: Bench, work: CellWork, tell: Callable[[Progress], None]) -> CellRun:
    """Answer what the store does not hold yet; every response is in a shard before this returns or raises.

    Raises `core.errors.EngineDiedError` where the engine is gone, `core.errors.SteelyardError` where no request could be served
    or the benchmark's time is over, `tasks.control.CancelledByUserError` where it was told to end.
    """
    store, cell = open_store(bench.results), work.cell
    asked = partial(patiently, seconds=bench.patience, rest=bench.control.rest)
    requests = {request.id: request for request in work.benchmark.requests()}
    stored = asked(lambda: store.compact(cell.fingerprint))
    kept = {k: v for k, v in stored.items() if k in requests and v.error is None}
    label = f"{cell.model} · {cell.benchmark}"
    if kept:
        say(f"{label}: {len(kept)} of {len(requests)} responses were stored by an earlier run")
    rounds = Rounds(work.adaptive, work, requests, store, asked) if work.adaptive else None
    meter = _Meter(cell, requests, kept, tell)
    try:
        with store.writer(cell.fingerprint, sink=bench.spool) as writer, summed_up(bench.monitor) as summary:
            for part in [requests] if rounds is None else rounds:
                todo = {key: request for key, request in part.items() if key not in kept}
                for response in _answers(bench, todo, meter, work):
                    writer.add(response)
                if rounds is not None:
                    rounds.look(meter.responses)
    finally:
        meter.end()
    failed = [response for response in meter.fresh if response.error]
    if failed and len(failed) == len(requests):
        raise SteelyardError(f"{label}: no request could be served; the first said: {failed[0].error}")
    if failed:
        warn(f"{label}: {len(failed)} of {len(requests)} requests failed; the first said: {failed[0].error}")
    if rounds is not None:
        (say if rounds.standings else warn)(f"{label}: {rounds}")
    return meter.run(summary, rounds)


def _answers(bench: Bench, todo: dict[str, Request], meter: _Meter, work: CellWork) -> Iterator[Response]:
    """Empty ``todo``, however often the model is paused meanwhile."""
    total, timeout = len(todo), work.timeout_seconds
    label = f"{work.cell.model} · {work.cell.benchmark}"
    while todo:
        bench.control.wait()
        generating = bench.timeline.span("generate", work.cell.benchmark)
        with _stop_after(timeout, meter.seconds, label) as stop, bench.control.stops(stop), generating, meter.running():
            for response in bench.engine.run(list(todo.values()), stop):
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
    """Give a stop that is set once ``timeout`` seconds are over, of which ``spent`` already are."""
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
    """Counts one cell's responses as they come, and tells how far it is."""

    def __init__(
        self,
        cell: Cell,
        requests: Mapping[str, Request],
        kept: Mapping[str, Response],
        tell: Callable[[Progress], None],
    ) -> None:
        self.fresh: list[Response] = []
        self._spent = 0.0
        self._started: float | None = None
        self._tokens = 0
        self._docs = DocCounter(requests)
        for key in kept:
            self._docs.answer(key)
        self._kept = kept
        self._cell, self._resumed, self._tell = cell, self._docs.done, tell
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
            self._tell(self._progress(ended=False))

    def end(self) -> None:
        """Tell that nothing more comes."""
        self._tell(self._progress(ended=True))

    @property
    def responses(self) -> dict[str, Response]:
        """Those of earlier runs and of this one, by request id."""
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

    def _progress(self, *, ended: bool) -> Progress:
        return Progress(
            model=self._cell.model,
            benchmark=self._cell.benchmark,
            docs=self._docs.docs,
            done=self._docs.done,
            resumed=self._resumed,
            tokens=self._tokens,
            seconds=self.seconds,
            ended=ended,
        )


@task(name="evaluate", task_run_name="evaluate {label}", cache_policy=NO_CACHE)
async def evaluate(bench: Bench, work: CellWork, label: str) -> quote[CellRun]:
    """Run one benchmark's requests through an open engine. Cancelled, it ends when what is answered is stored."""
    latest: list[Progress] = []

    def tell(progress: Progress) -> None:
        latest[:] = [progress]
        tell_listeners(progress)

    working = asyncio.ensure_future(asyncio.to_thread(run_cell, bench, work, tell))
    showing = asyncio.ensure_future(show_while(working, lambda: latest[0] if latest else None, label))
    try:
        return quote(await asyncio.shield(working))
    except asyncio.CancelledError:
        bench.control.cancel()
        if bench.spool is not None:
            bench.spool.hurry()
        await asyncio.wait([working])
        working.exception()  # whatever it ended with, the cancellation goes before
        raise
    finally:
        await asyncio.wait([showing])


@task(name="score", task_run_name="score {label}", cache_policy=NO_CACHE)
async def score(work: CellWork, run: CellRun, label: str) -> quote[Scoring]:
    """Turn responses into samples and scores."""
    scoring = await asyncio.to_thread(work.benchmark.score, run.responses)
    return quote(of_docs(scoring, map(doc_of, run.responses)) if run.adaptive else scoring)


@task(name="store", task_run_name="store {label}", cache_policy=NO_CACHE)
async def store(work: CellWork, scoring: Scoring, metadata: dict[str, Any], bench: Bench, label: str) -> None:
    """Commit the cell: samples, scores, then the record that makes it count. A store that does not answer is waited for."""
    to_commit = {**metadata, "cluster": work.cluster}
    results = open_store(bench.results)
    await patiently_in_thread(lambda: results.commit(work.cell, scoring, to_commit), bench.patience)
    if bench.spool is not None:
        await asyncio.to_thread(bench.spool.forget, work.cell.fingerprint)
    head = scoring.headline
    spread = "" if head.stderr is None else f" ± {head.stderr:.4f}"
    say(f"{label}: {head.metric} {head.value:.4f}{spread} over {head.docs} docs")


def cell_metadata(
    planned: PlannedModel, info: EngineInfo, run: CellRun, scoring: Scoring, bench: Bench
) -> dict[str, Any]:
    """Facts of how a cell was computed, for its commit record. JSON values."""
    faults = [] if bench.recovery is None else bench.recovery.record()
    return {
        "engine": info.engine,
        "placement": asdict(planned.placement),
        "vllm_version": info.vllm_version,
        "load_seconds": info.load_seconds,
        "seconds": run.seconds,
        "resumed": run.resumed,
        "prompt_tokens": run.prompt_tokens,
        "cached_tokens": run.cached_tokens,
        "completion_tokens": run.completion_tokens,
        "monitor": run.monitor,
        **facts_of(scoring),
        "trust_remote_code": planned.model.trust_remote_code,
        **({"adaptive": run.adaptive} if run.adaptive else {}),
        **({"faults": faults} if faults else {}),
        **({"estimate": asdict(bench.expected)} if bench.expected else {}),
    }
