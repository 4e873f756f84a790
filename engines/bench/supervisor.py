"""One model's engines, one or many behind one `engines.engine.Engine`, each started again where it dies. Knows no vLLM.

Who does what, and who wakes whom:

- One lock, that of ``_change``, guards slots and runs. Nothing slow happens under it; engines are only asked for figures.
- A run belongs to its caller's thread, which sleeps at the run's inbox: responses, portions, and None at the end wake it.
- `_deal` follows every change: portions for slots with room, a new start for one whose engine died and has no portion left.
- The caller's own thread answers its portions; with ``in_flight``, where engines share runs, each portion has a thread.
- Each start of an engine and each end of a slot has a thread, so that loading and closing hold nobody up.
- A thread watches for stalls and closes an engine that does nothing; its portions end with that.
- ``open`` waits for ``_change``: until one slot serves, or none is left.
- An engine's death is seen by its portions, and over when the last of them ends: only then is it known what was in flight.
- A stop, a failure or the caller's leaving sets the run's ``abort``, which ends its portions; the last of them ends the run.
- ``close`` ends the slots, so that what loads is not wanted, then the engines and with them their portions, then all runs.
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
from core.monitor.readings import add_up
from core.planning.ladder import EngineFault, Step
from core.request import Request, Response
from engines.bench.dealing import Portion, Run, deal
from engines.bench.isolation import POISON_DEATHS, Isolation, Stall
from engines.bench.slot import Build, Key, Slot, check_alike, check_wanted, in_thread, lose, start
from engines.control import Stop
from engines.engine import Engine, EngineInfo

IN_FLIGHT = 256  # generations, or four times as many scores, that an engine has at once: vLLM's usual ``max_num_seqs``
WATCHES = 10  # looks at an engine within the time after which it counts as stalled
log = logging.getLogger("steelyard.engine")


class Supervisor:
    """An `engines.engine.Engine` over those of ``sources``, all of one model; further ones may come and go.

    ``open`` returns once one is loaded; the others take part from when they are. ``decide`` says what is done about each fault
    (`core.planning.ladder`): an engine is started again in its slot, or the slot is lost; what it had not answered goes back to the
    queue. Only when all are lost does every call raise `core.errors.EngineDiedError`. A request that engines die of is answered
    with an error, or ends its run where it costs a slot. An engine that has requests and shows no progress for ``stall_seconds``
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
        self._change = threading.Condition()  # guards everything below, but for reading _slots
        self._slots = tuple(self._slot(source) for source in sources)
        self._runs: list[Run] = []
        self._info: EngineInfo | None = None
        self._failure: Exception | None = None
        self._opened = self._closing = False
        self._known: Isolation[Key] = Isolation()  # of all deaths; who are suspects, each slot knows
        self._guilty = 0
        self._over = threading.Event()

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Those of all slots that ever were, each one's last."""
        return tuple(slot.engine for slot in self._slots if slot.engine is not None)

    @property
    def size(self) -> int:
        """How many serve or load."""
        return sum(slot.stays for slot in self._slots)

    @property
    def serving(self) -> int:
        """How many are loaded and take requests."""
        return sum(slot.serves for slot in self._slots)

    @property
    def used(self) -> int:
        """How many have answered something."""
        return sum(slot.answers > 0 for slot in self._slots)

    @property
    def waiting(self) -> int:
        """Docs (`core.model.sizing.docs_of`) that no engine has begun yet."""
        with self._change:
            return sum(run.waiting for run in self._runs) // CHOICES_PER_DOC

    def is_gone(self, source: Engine | Build) -> bool:
        """Whether a source's slot has ended, and holds nothing any more."""
        return any(slot.source is source and slot.state == "gone" for slot in self._slots)

    def open(self) -> EngineInfo:
        """Load all at once, and return when the first answers. Raises the first failure where none does."""
        with self._change:
            if self._closing or self._opened:
                raise EngineDiedError("the engine was closed" if self._closing else "the engine was opened before")
            self._opened = True
            slots = self._slots
        try:
            for slot in slots:
                in_thread(self._start, slot)
            with self._change:
                self._change.wait_for(lambda: self._info or not self.size)
                info = self._info
            if info is None:
                raise self._failure or EngineDiedError("the engine was closed")
        except BaseException:  # also Ctrl-C: nothing that was started may stay
            self.close(keep=False)
            raise
        threading.Thread(target=self._watch, name="steelyard-stall", daemon=True).start()
        return info

    def add(self, source: Engine | Build) -> None:
        """Have one more engine load, and take from all runs then. Raises `core.errors.EngineDiedError` once this is closed."""
        slot = self._slot(source)
        with self._change:
            if self._closing:
                raise EngineDiedError("the engine was closed")
            self._slots += (slot,)
            opened = self._opened
        if opened:
            in_thread(self._start, slot)

    def retire(self) -> Engine | Build | None:
        """Have the one that joined last end when it has answered what it has. Returns its source; None where there is but one."""
        with self._change:
            if self.size < 2:
                return None
            leaving = [slot for slot in self._slots if slot.stays][-1]
            leaving.state = "leaving"
            if not leaving.portions:
                in_thread(self._end, leaving)
        return leaving.source

    def run(self, requests: Sequence[Request], stop: Stop | None = None) -> Iterator[Response]:
        """Yield one response per request as each finishes; see `engines.engine.Engine`."""
        run = Run(requests)
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

    def stats(self) -> dict[str, float]:
        """Figures of all engines together (`core.monitor.readings.add_up`); one engine's own as they are."""
        each = [engine.stats() for engine in self.engines]
        return each[0] if len(each) == 1 else add_up(each)

    def close(self, *, keep: bool = True) -> None:
        """End all engines at once. Safe to call twice, from another thread, and while ``run`` is under way."""
        with self._change:
            self._closing = True
            self._failure = self._failure or EngineDiedError("the engine was closed")
            for slot in self._slots:
                slot.state = "ended"
            self._change.notify_all()
            engines = self.engines
        self._over.set()
        if engines:
            with ThreadPoolExecutor(len(engines)) as pool:
                list(pool.map(lambda engine: engine.close(keep=keep), engines))
        with self._change:
            for slot in self._slots:
                slot.state = "gone"
            self._fail_runs()

    def look(self) -> None:
        """Close each engine that has been doing nothing for too long."""
        for slot in self._slots:
            with self._change:
                stalled = slot.is_stalled()
            if stalled:
                slot.close(keep=False)

    def _watch(self) -> None:
        while not self._over.wait(self._stall_seconds / WATCHES):
            self.look()

    def _slot(self, source: Engine | Build) -> Slot:
        return Slot(source, Stall(self._stall_seconds, self._clock))

    def _deal(self) -> None:
        """Have slots with room asked, and dead engines started again where something waits. Under the lock."""
        free: list[Slot] = []
        for slot in self._slots:
            if slot.state != "serving" or (slot.portions and (slot.death is not None or slot.isolation.suspects)):
                continue
            if slot.death is not None:
                if any((run.waiting or run.apart) and not run.abort.is_set for run in self._runs):
                    slot.state = "restarting"
                    fault = slot.conclude(self._known, self._guilty)
                    self._known, self._guilty = slot.isolation, fault.guilty
                    in_thread(self._start, slot, fault)
            elif slot.isolation.suspects and (suspects := slot.suspects()):
                for portion in suspects:
                    self._begin(portion)
            else:
                free.append(slot)
        for portion in deal(free, self._runs, self._capacity):
            self._begin(portion)

    def _begin(self, portion: Portion[Slot]) -> None:
        if self._capacity is None:
            portion.run.inbox.put(portion)
            return
        try:
            in_thread(self._work, portion)
        except RuntimeError as error:  # no more threads to be had
            self._after(portion, portion.requests, error)

    def _work(self, portion: Portion[Slot]) -> None:
        for _ in self._answers(portion):
            pass

    def _answers(self, portion: Portion[Slot]) -> Iterator[Response]:
        """Yield what the engine answers of a portion, which goes to the inbox too where the caller does not ask itself."""
        slot, missing = portion.taker, {request.id: request for request in portion.requests}
        failure: Exception | None = None
        try:
            for response in slot.ask(portion):
                if (request := missing.pop(response.id, None)) is None:
                    continue
                with self._change:
                    portion.answered(request)
                    slot.answers += 1
                    slot.barren = 0
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

    def _after(self, portion: Portion[Slot], missing: Sequence[Request], failure: Exception | None) -> None:
        with self._change:
            slot = portion.taker
            slot.after(portion, missing, failure)
            portion.run.settle()
            if slot.death is not None:
                self._retain()
            self._deal()
            left = slot.state == "leaving" and not slot.portions
        if left:
            self._end(slot)

    def _stop(self, run: Run) -> None:
        run.abort.set()
        with self._change:
            run.settle()

    def _leave(self, run: Run) -> None:
        """Forget a run whose caller has all it wanted, and what that was to have answered itself."""
        run.abort.set()
        with self._change:
            self._runs.remove(run)
            while not run.inbox.empty():
                if isinstance(unasked := run.inbox.get(), Portion):
                    self._after(unasked, unasked.requests, None)
            self._deal()

    def _start(self, slot: Slot, fault: EngineFault | None = None) -> None:
        """Have a slot take part once it has an engine, or lose it. On a thread of its own."""
        try:
            info = start(slot, fault, self._decide, self._change, self._deal)
            with self._change:
                check_wanted(slot)
                check_alike(info, self._info or info, again=fault is not None)
                slot.state, slot.death = "serving", None
                self._info = self._info or info
                self._change.notify_all()
                self._deal()
        except Exception as error:
            self._end(slot, error)

    def _end(self, slot: Slot, error: Exception | None = None) -> None:
        """End a slot whose engine failed for good, or has left. Takes time: to be called without the lock."""
        with self._change:
            if slot.state in ("ended", "gone"):
                return
            lost = error is not None and slot.state != "leaving"
            if lost:
                # Of several reasons, one that a person can mend.
                if not isinstance(self._failure, UserError) and (self._failure is None or isinstance(error, UserError)):
                    self._failure = error
                if len(self._slots) > 1:
                    log.warning("a replica is lost, %d left: %s", self.size - 1, error)
            slot.state = "ended"
            for run, returns in slot.give_back().items():
                if lost and returns >= POISON_DEATHS:  # more likely the cause than a victim
                    run.fail(EngineDiedError(str(error)))
            self._retain()
            if not self.size:
                if self._info is not None and len(self._slots) > 1:
                    self._failure = EngineDiedError(f"all {len(self._slots)} replicas are gone; the last: {error}")
                self._fail_runs()
            self._change.notify_all()
            self._deal()
        slot.close(keep=error is None and slot.death is None)
        slot.state = "gone"

    def _retain(self) -> None:
        """Have slots stay that were about to leave, where no other engine lives. Under the lock."""
        if not any(slot.state == "serving" and slot.death is None for slot in self._slots):
            for slot in self._slots:
                if slot.state == "leaving" and slot.portions:
                    slot.state = "serving"

    def _fail_runs(self) -> None:
        for run in self._runs:
            run.fail(EngineDiedError(str(self._failure)))


def engines_of(engine: Engine) -> tuple[Engine, ...]:
    """The engines behind ``engine``, each with a process of its own."""
    return engine.engines if isinstance(engine, Supervisor) else (engine,)
