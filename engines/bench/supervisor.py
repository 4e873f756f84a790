"""One model's engines, one or many behind one `engines.engine.Engine`, each started again where it dies. Knows no vLLM.

The threads, and what wakes them:

- One lock, that of ``_change``, guards replicas and runs. Nothing slow happens under it; engines are only asked for figures.
- A run belongs to its caller's thread, which sleeps at the run's inbox: responses, portions, and None at the end wake it.
- `_deal` follows every change: portions for replicas with room, a new start for one whose engine died and has no portion left.
- The caller's own thread answers its portions; with ``in_flight``, where engines share runs, each portion has a thread.
- Each start of an engine and each end of a replica has a thread, so that loading and closing hold nothing up.
- A thread watches for stalls and closes an engine that does nothing; its portions end with that.
- ``open`` waits for ``_change``: until one replica serves, or none is left.
- An engine's death is seen by its portions, and over when the last of them ends: only then is it known what was in flight.
- A stop, a failure or the caller's leaving sets the run's ``abort``, which ends its portions; the last of them ends the run.
- ``close`` ends the replicas, so that what loads is not wanted, then the engines and with them their portions, then all runs.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from core.errors import EngineDiedError, UserError
from core.model.sizing import CHOICES_PER_DOC
from core.planning.ladder import EngineFault, Step
from core.request import Request, Response
from engines.bench.dealing import POISON_DEATHS, DealtRun, Isolation, Portion, deal
from engines.bench.replica import Build, Key, Replica, Roster, Stall, check_alike, check_wanted, in_thread, lose, start
from engines.control import Stop
from engines.engine import Engine, EngineInfo

IN_FLIGHT = 256  # generations, or four times as many scores, that an engine has at once: vLLM's usual ``max_num_seqs``
WATCHES = 10  # looks at an engine within the time after which it counts as stalled
log = logging.getLogger("steelyard.engine")


class Supervisor(Roster):
    """An `engines.engine.Engine` over those of ``sources``, all of one model; further ones may come and go.

    ``open`` returns once one is loaded; the others take part from when they are. ``decide`` says what is done about each fault
    (`core.planning.ladder`): an engine is started again in its replica, or the replica is lost; its unanswered requests go back to
    the queue. Only when all are lost does every call raise `core.errors.EngineDiedError`. A request that engines die of is answered
    with an error, or ends its run where it costs a replica. An engine that has requests and shows no progress for ``stall_seconds``
    by ``clock`` is closed, which counts as its death. Each engine has ``in_flight`` generations at once; None gives it whole runs.
    """

    def __init__(
        self,
        sources: Sequence[Engine | Build],
        decide: Callable[[EngineFault], Step] = lose,
        *,
        in_flight: int | None = None,
        stall_seconds: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._decide, self._stall_seconds, self._clock = decide, stall_seconds, clock
        self._capacity = None if in_flight is None else CHOICES_PER_DOC * in_flight
        self._change = threading.Condition()  # guards all below, and changes of _replicas
        self._runs: list[DealtRun] = []
        self._info: EngineInfo | None = None
        self._failure: Exception | None = None
        self._opened = self._closing = False
        self._known = Isolation[Key]()  # of all deaths; its suspects are each replica's own
        self._guilty = 0
        self._over = threading.Event()
        for source in sources:
            self.add(source)

    @property
    def waiting(self) -> int:
        """Number of docs (`core.model.sizing.docs_of`) that no engine has begun yet."""
        with self._change:
            return sum(run.waiting for run in self._runs) // CHOICES_PER_DOC

    def open(self) -> EngineInfo:
        """Load all at once, and return when the first answers. Raises the first failure where none does."""
        with self._change:
            if self._closing or self._opened:
                raise EngineDiedError("the engine was closed" if self._closing else "the engine was opened before")
            self._opened = True
            replicas = self._replicas
        try:
            for replica in replicas:
                in_thread(self._start, replica)
            with self._change:
                self._change.wait_for(lambda: self._info or not self.size)
            if (info := self._info) is None:
                raise self._failure or EngineDiedError("the engine was closed")
        except BaseException:  # also Ctrl-C: nothing that was started may stay
            self.close(keep=False)
            raise
        threading.Thread(target=self._watch, name="steelyard-stall", daemon=True).start()
        return info

    def add(self, source: Engine | Build) -> None:
        """Load one more engine, which takes from all runs then. Raises `core.errors.EngineDiedError` once this is closed."""
        replica = Replica(source, Stall(self._stall_seconds, self._clock))
        with self._change:
            if self._closing:
                raise EngineDiedError("the engine was closed")
            self._replicas += (replica,)
            if self._opened:
                in_thread(self._start, replica)

    def retire(self) -> Engine | Build | None:
        """End the replica that joined last once it has answered what it has. Returns its source; None where it is the only one."""
        with self._change:
            if self.size < 2:
                return None
            leaving = [replica for replica in self._replicas if replica.stays][-1]
            leaving.state = "leaving"
            if not leaving.portions:
                in_thread(self._end, leaving)
        return leaving.source

    def run(self, requests: Sequence[Request], stop: Stop | None = None) -> Iterator[Response]:
        """Yield one response per request as each finishes; see `engines.engine.Engine`."""
        run = DealtRun(requests)
        with self._change:
            if self._info is None or not self.size:
                raise EngineDiedError(str(self._failure or "the engine is not open"))
            self._runs.append(run)
        try:
            with stop.heard_by(lambda: self._stop(run)) if stop else contextlib.nullcontext():
                with self._change:
                    self._deal()
                    run.settle()
                while (found := run.inbox.get()) is not None:
                    if isinstance(found, Portion):
                        yield from self._answers(found)
                    else:
                        yield found
            if run.error is not None:
                raise run.error
        finally:
            self._leave(run)

    def close(self, *, keep: bool = True) -> None:
        """End all engines at once. Safe to call twice, from another thread, and while ``run`` is under way."""
        with self._change:
            self._closing = True
            self._failure = self._failure or EngineDiedError("the engine was closed")
            for replica in self._replicas:
                replica.state = "ended"
            self._change.notify_all()
            engines = self.engines
        self._over.set()
        if engines:
            with ThreadPoolExecutor(len(engines)) as pool:
                list(pool.map(lambda engine: engine.close(keep=keep), engines))
        with self._change:
            for replica in self._replicas:
                replica.state = "gone"
            self._fail_runs()

    def look(self) -> None:
        """Close each engine that has been doing nothing for too long."""
        for replica in self._replicas:
            with self._change:
                stalled = replica.is_stalled()
            if stalled:
                replica.close(keep=False)

    def _watch(self) -> None:
        while not self._over.wait(self._stall_seconds / WATCHES):
            self.look()

    def _deal(self) -> None:
        """Ask replicas with room, and start dead engines again where something waits. Under the lock."""
        free: list[Replica] = []
        for replica in self._replicas:
            concluding = replica.death is not None or replica.isolation.suspects
            if replica.state != "serving" or (concluding and replica.portions):
                continue
            if replica.death is not None:
                if any((run.waiting or run.apart) and not run.abort.is_set for run in self._runs):
                    replica.state = "restarting"
                    fault = replica.conclude(self._known, self._guilty)
                    self._known, self._guilty = replica.isolation, fault.guilty
                    in_thread(self._start, replica, fault)
            elif replica.isolation.suspects and (suspects := replica.suspects()):
                for portion in suspects:
                    self._begin(portion)
            else:
                free.append(replica)
        for portion in deal(free, self._runs, self._capacity):
            self._begin(portion)

    def _begin(self, portion: Portion[Replica]) -> None:
        if self._capacity is None:
            portion.run.inbox.put(portion)
            return
        try:
            in_thread(self._work, portion)
        except RuntimeError as error:  # no more threads to be had
            self._after(portion, portion.requests, error)

    def _work(self, portion: Portion[Replica]) -> None:
        for _ in self._answers(portion):
            pass

    def _answers(self, portion: Portion[Replica]) -> Iterator[Response]:
        """Yield an engine's answers to a portion; they go to the inbox too where the caller does not ask itself."""
        replica, missing = portion.taker, {request.id: request for request in portion.requests}
        failure: Exception | None = None
        try:
            for response in replica.ask(portion):
                if (request := missing.pop(response.id, None)) is None:
                    continue
                with self._change:
                    portion.answered(request)
                    replica.answers += 1
                    replica.barren = 0
                    if self._capacity is not None:
                        portion.run.inbox.put(response)
                        self._deal()
                yield response
            if missing and not portion.run.abort.is_set:
                failure = EngineDiedError(f"{len(missing)} of {len(portion.requests)} requests were not answered")
        except Exception as error:
            failure = error
        finally:
            self._after(portion, list(missing.values()), failure)

    def _after(self, portion: Portion[Replica], missing: Sequence[Request], failure: Exception | None) -> None:
        with self._change:
            replica = portion.taker
            replica.after(portion, missing, failure)
            portion.run.settle()
            if replica.death is not None:
                self._retain()
            self._deal()
            left = replica.state == "leaving" and not replica.portions
        if left:
            self._end(replica)

    def _stop(self, run: DealtRun) -> None:
        run.abort.set()
        with self._change:
            run.settle()

    def _leave(self, run: DealtRun) -> None:
        """Forget a run whose caller has gone, and the portions that it was to have answered itself."""
        run.abort.set()
        with self._change:
            self._runs.remove(run)
            while not run.inbox.empty():
                if isinstance(unasked := run.inbox.get(), Portion):
                    self._after(unasked, unasked.requests, None)
            self._deal()

    def _start(self, replica: Replica, fault: EngineFault | None = None) -> None:
        """Start an engine in a replica, which takes part then, or end it. On a thread of its own."""
        try:
            info = start(replica, fault, self._decide, self._change, self._deal)
            with self._change:
                check_wanted(replica)
                check_alike(info, self._info or info, again=fault is not None)
                replica.state, replica.death = "serving", None
                self._info = self._info or info
                self._change.notify_all()
                self._deal()
        except Exception as error:
            self._end(replica, error)

    def _end(self, replica: Replica, error: Exception | None = None) -> None:
        """End a replica whose engine failed for good, or that has left. Slow: to be called without the lock."""
        with self._change:
            if replica.state in ("ended", "gone"):
                return
            lost = error is not None and replica.state != "leaving"
            if lost:
                if self._failure is None or (isinstance(error, UserError) > isinstance(self._failure, UserError)):
                    self._failure = error  # of several reasons, one that a person can mend
                if len(self._replicas) > 1:
                    log.warning("a replica is lost, %d left: %s", self.size - 1, error)
            replica.state = "ended"
            for run, returns in replica.give_back().items():
                if lost and returns >= POISON_DEATHS:  # more likely the cause than a victim
                    run.fail(EngineDiedError(str(error)))
            self._retain()
            if not self.size:
                if self._info is not None and len(self._replicas) > 1:
                    self._failure = EngineDiedError(f"all {len(self._replicas)} replicas are gone; the last: {error}")
                self._fail_runs()
            self._change.notify_all()
            self._deal()
        replica.close(keep=error is None and replica.death is None)
        replica.state = "gone"

    def _fail_runs(self) -> None:
        for run in self._runs:
            run.fail(EngineDiedError(str(self._failure)))
