"""Data parallel: several engines of one model behind one, taking from one queue. Knows no vLLM: any engines will do."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from core.errors import EngineDiedError, UserError
from core.monitor.readings import add_up
from core.replicas import CHOICES_PER_DOC, weight
from core.request import Request, Response
from engines.engine import Engine, EngineInfo
from engines.portions import Portion, Run, Taker, deal
from engines.stop import Stop

IN_FLIGHT = 256  # generations, or four times as many scores, that an engine has at once: vLLM's usual ``max_num_seqs``
MOST_RETURNS = 2  # a request whose engines die one after the other is more likely the cause than a victim
log = logging.getLogger("steelyard.replicas")


@dataclass(eq=False)
class _Replica(Taker):
    """One engine, and what it is at. It is "leaving" while it answers its last, "ended" until what it held is free: "gone"."""

    engine: Engine
    state: Literal["loading", "serving", "leaving", "ended", "gone"] = "loading"
    answered: bool = False


class ReplicatedEngine:
    """An `engines.engine.Engine` over several of the same model, each with ``in_flight`` generations at once.

    ``open`` returns once one of them is loaded; the others take part from when they are. One that fails to load, or dies, is
    warned about and left out; what it had not answered goes back to the queue. Only when all are gone is the engine dead.
    """

    def __init__(self, engines: Sequence[Engine], *, in_flight: int = IN_FLIGHT) -> None:
        self._capacity = CHOICES_PER_DOC * in_flight
        self._change = threading.Condition()  # guards everything below, but for reading _replicas
        self._replicas = tuple(map(_Replica, engines))
        self._runs: list[Run] = []
        self._info: EngineInfo | None = None
        self._failure: Exception | None = None
        self._opened = self._closing = False

    @property
    def engines(self) -> tuple[Engine, ...]:
        """All that ever took part."""
        return tuple(replica.engine for replica in self._replicas)

    @property
    def size(self) -> int:
        """How many serve or load."""
        return len(self._staying())

    @property
    def serving(self) -> int:
        """How many are loaded and take requests."""
        return sum(replica.state == "serving" for replica in self._replicas)

    @property
    def used(self) -> int:
        """How many have answered something."""
        return sum(replica.answered for replica in self._replicas)

    @property
    def waiting(self) -> int:
        """Docs (`core.replicas.docs_of`) that no engine has begun yet."""
        with self._change:
            return sum(run.waiting for run in self._runs) // CHOICES_PER_DOC

    def is_gone(self, engine: Engine) -> bool:
        """Whether an engine that took part has ended, and holds nothing any more."""
        return any(replica.engine is engine and replica.state == "gone" for replica in self._replicas)

    def open(self) -> EngineInfo:
        """Load all at once, and return when the first answers. Raises the first failure where none does."""
        with self._change:
            if self._closing or self._opened:
                raise EngineDiedError("the engine was closed" if self._closing else "the engine was opened before")
            self._opened = True
            loading = self._replicas
        try:
            for replica in loading:
                _in_thread(self._join, replica)
            with self._change:
                self._change.wait_for(lambda: self._info or self._closing or not self._staying())
                info = self._info
        except BaseException:  # also Ctrl-C: nothing that was started may stay
            self.close()
            raise
        if info is None:
            self.close()
            raise self._failure or EngineDiedError("the engine was closed")
        return info

    def add(self, engine: Engine) -> None:
        """Have one more engine load, and take from all runs then. Raises `core.errors.EngineDiedError` once this is closed."""
        replica = _Replica(engine)
        with self._change:
            if self._closing:
                raise EngineDiedError("the engine was closed")
            self._replicas += (replica,)
            opened = self._opened
        if opened:
            _in_thread(self._join, replica)

    def retire(self) -> Engine | None:
        """Have the one that joined last end when it has answered what it has. Returns it; None where there is but one."""
        with self._change:
            staying = self._staying()
            if len(staying) < 2:
                return None
            leaving = staying[-1]
            leaving.state = "leaving"
            at_once = not leaving.portions
        if at_once:
            _in_thread(self._end, leaving)
        return leaving.engine

    def run(self, requests: Sequence[Request], stop: Stop | None = None) -> Iterator[Response]:
        """Yield one response per request as each finishes; see `engines.engine.Engine`."""
        run = Run(requests)
        with self._change:
            if self._info is None or self._closing or not self._staying():
                raise EngineDiedError(str(self._failure or "the engine is not open"))
            self._runs.append(run)
        try:
            with stop.heard_by(lambda: self._stop(run)) if stop else contextlib.nullcontext():
                with self._change:
                    dealt = self._deal()
                    run.settle()
                self._begin(dealt)
                while (response := run.inbox.get()) is not None:
                    yield response
            if run.error is not None:
                raise run.error
        finally:
            with self._change:
                self._runs.remove(run)
                run.abort.set()

    def stats(self) -> dict[str, float]:
        """Figures of all engines together; ``kv_cache_usage`` is the fullest one's. ``pid`` is each one's own, see `engines`."""
        return add_up([engine.stats() for engine in self.engines])

    def close(self, *, keep: bool = True) -> None:
        """End all engines at once. Safe to call twice, from another thread, and while ``run`` is under way."""
        with self._change:
            self._closing = True
            replicas = self._replicas
            self._change.notify_all()
        if replicas:
            with ThreadPoolExecutor(len(replicas)) as pool:
                list(pool.map(lambda replica: replica.engine.close(keep=keep), replicas))
        with self._change:
            for replica in replicas:
                replica.state = "gone"
            self._failure = self._failure or EngineDiedError("the engine was closed")
            self._fail_runs()

    def _staying(self) -> list[_Replica]:
        return [replica for replica in self._replicas if replica.state in ("loading", "serving")]

    def _join(self, replica: _Replica) -> None:
        """Load one engine and have it take part; on a thread of its own."""
        try:
            info = replica.engine.open()
            self._check(info)
        except Exception as error:
            self._end(replica, error)
            return
        with self._change:
            if stays := replica.state == "loading":
                replica.state = "serving"
                self._info = self._info or info
                self._change.notify_all()
            dealt = self._deal()
        self._begin(dealt)
        if not stays:
            self._end(replica)

    def _check(self, info: EngineInfo) -> None:
        """Raise where an engine is not like the others: its answers would be of another cell."""
        first = self._info or info
        for name in ("vllm_version", "max_model_len", "dtype"):
            if (found := getattr(info, name)) != (asked := getattr(first, name)):
                raise EngineDiedError(f"its {name} is {found}, and {asked} in the others")

    def _deal(self) -> list[Portion[_Replica]]:
        """Give portions to whoever has room. Under the lock; what it returns is to be begun without."""
        serving = [replica for replica in self._replicas if replica.state == "serving"]
        return deal(serving, self._runs, self._capacity)

    def _begin(self, dealt: Sequence[Portion[_Replica]]) -> None:
        for portion in dealt:
            try:
                _in_thread(self._answer, portion)
            except RuntimeError as error:  # no more threads to be had
                self._after(portion, portion.requests, error)

    def _answer(self, portion: Portion[_Replica]) -> None:
        """Have a portion answered; on a thread of its own."""
        run, missing = portion.run, {request.id: request for request in portion.requests}
        failure: Exception | None = None
        try:
            for response in portion.taker.engine.run(portion.requests, run.abort):
                if (request := missing.pop(response.id, None)) is not None:
                    self._count(portion, request, response)
            if missing and not run.abort.is_set:
                failure = EngineDiedError(f"{len(missing)} of {len(portion.requests)} requests were not answered")
        except Exception as error:
            failure = error
        self._after(portion, list(missing.values()), failure)

    def _count(self, portion: Portion[_Replica], request: Request, response: Response) -> None:
        with self._change:
            portion.taker.load -= weight(request)
            portion.taker.answered = True
            portion.run.answer(request, response)
            dealt = self._deal()
        self._begin(dealt)

    def _after(self, portion: Portion[_Replica], missing: Sequence[Request], failure: Exception | None) -> None:
        """Draw the conclusions from how a portion ended: what is missing goes back, and a dead engine out."""
        replica, run = portion.taker, portion.run
        died = isinstance(failure, EngineDiedError)
        with self._change:
            replica.load -= sum(map(weight, missing))
            replica.portions -= 1
            run.portions -= 1
            returns = run.give_back(missing)
            if failure is not None and (not died or returns > MOST_RETURNS):
                run.fail(failure)
            over = (died and self._lose(replica, failure)) or (
                replica.state == "leaving" and not replica.portions and self._lose(replica)
            )
            dealt = self._deal()
            run.settle()
        self._begin(dealt)
        if over:
            self._bury(replica)

    def _stop(self, run: Run) -> None:
        with self._change:
            run.abort.set()
            run.settle()

    def _lose(self, replica: _Replica, error: Exception | None = None) -> bool:
        """Leave an engine out that failed or has left. Under the lock; returns whether it is to be buried, which takes time."""
        if replica.state in ("ended", "gone"):
            return False
        if error is not None and replica.state != "leaving" and not self._closing:
            # Of several reasons, one that a person can mend.
            if self._failure is None or (isinstance(error, UserError) and not isinstance(self._failure, UserError)):
                self._failure = error
            log.warning("a replica is lost, %d left: %s", self.size - 1, error)
        replica.state = "ended"
        if not any(each.state == "serving" for each in self._replicas):
            for each in self._replicas:  # who was about to leave is needed again
                if each.state == "leaving" and each.portions:
                    each.state = "serving"
        if not self._staying():
            if self._info is not None and len(self._replicas) > 1 and not self._closing:
                self._failure = EngineDiedError(f"all {len(self._replicas)} replicas are gone; the last: {error}")
            self._fail_runs()
        self._change.notify_all()
        return True

    def _bury(self, replica: _Replica) -> None:
        replica.engine.close()
        replica.state = "gone"

    def _end(self, replica: _Replica, error: Exception | None = None) -> None:
        with self._change:
            mine = self._lose(replica, error)
        if mine:
            self._bury(replica)

    def _fail_runs(self) -> None:
        for run in self._runs:
            run.fail(self._failure or EngineDiedError("the engine was closed"))
            run.settle()


def engines_of(engine: Engine) -> tuple[Engine, ...]:
    """The engines behind ``engine``, each with a process of its own."""
    return engine.engines if isinstance(engine, ReplicatedEngine) else (engine,)


def _in_thread(target: Callable[..., None], *arguments: Any) -> None:
    """Call on a thread, in this one's context: a flow's log lines stay the flow's."""
    context = contextvars.copy_context()
    threading.Thread(
        target=context.run,
        args=(target, *arguments),
        name=f"steelyard-replica-{target.__name__.strip('_')}",
        daemon=True,
    ).start()
