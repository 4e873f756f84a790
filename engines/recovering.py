"""An engine that outlives its process: started again where it dies, and only what was not answered is repeated. Knows no vLLM."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.errors import EngineDiedError, UserError
from core.faults.isolation import POISON_DEATHS, Isolation
from core.faults.ladder import Fault, Step, kind_of
from core.faults.stall import Stall
from core.request import Request, Response
from engines.engine import Engine, EngineInfo
from engines.stop import Stop
from engines.tokens import failed

POISON = "poison request"
WATCHES = 10  # looks at an engine within the time after which it counts as stalled
ALIKE = ("vllm_version", "max_model_len", "dtype")
Key = tuple[int, str]  # a run's number, a request's id


@dataclass(eq=False)
class _Run:
    """One call of ``run``: what waits to be asked, what the engine has, and answers that come from elsewhere."""

    number: int
    waiting: dict[str, Request]
    asked: dict[str, Request] = field(default_factory=dict)
    marked: list[Response] = field(default_factory=list)
    busy: bool = False  # an engine's own run is under way


class RecoveringEngine:
    """An `engines.engine.Engine` over one that ``build`` makes, with vLLM's arguments, as often as need be.

    ``decide`` says what is done about each fault (`core.faults.ladder`); at the end of its advice every call raises
    `core.errors.EngineDiedError`. A request that the engine dies of is answered with an error. An engine that has requests and
    shows no progress for ``stall_seconds`` by ``clock`` is closed, which counts as its death.
    """

    def __init__(
        self,
        build: Callable[[Mapping[str, Any]], Engine],
        decide: Callable[[Fault], Step],
        *,
        stall_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._build, self._decide = build, decide
        self._change = threading.Condition()  # guards everything below
        self._engine: Engine | None = None
        self._info: EngineInfo | None = None
        self._options: Mapping[str, Any] = {}
        self._death: str | None = None  # of the engine, until another is there
        self._failure: Exception | None = None  # final
        self._stalled = self._recovering = self._closing = self._opened = False
        self._runs: list[_Run] = []
        self._numbers = itertools.count()
        self._isolation: Isolation[Key] = Isolation()
        self._portion: frozenset[Key] = frozenset()
        self._clear: set[Key] = set()
        self._answers = self._guilty = self._barren = 0
        self._stall = Stall(stall_seconds, clock)
        self._over = threading.Event()

    def open(self) -> EngineInfo:
        """Load the model, again where that is worth it. See `engines.engine.Engine.open`."""
        with self._change:
            if self._closing or self._opened:
                raise EngineDiedError("the engine was closed" if self._closing else "the engine was opened before")
            self._opened = True
        try:
            info = self._load(None)
        except BaseException:  # also Ctrl-C: nothing that was started may stay
            self.close(keep=False)
            raise
        threading.Thread(target=self._watch, name="steelyard-stall", daemon=True).start()
        return info

    def run(self, requests: Sequence[Request], stop: Stop | None = None) -> Iterator[Response]:
        """Yield one response per request as each finishes; see `engines.engine.Engine`."""
        run = _Run(next(self._numbers), {request.id: request for request in requests})
        with self._change:
            self._check_open()
            self._runs.append(run)
        try:
            with stop.heard_by(self._wake) if stop else contextlib.nullcontext():
                while (turn := self._turn(run, stop)) is not None:
                    engine, portion = turn
                    yield from self._take_marked(run)
                    if portion:
                        yield from self._ask(run, engine, portion, stop)
        finally:
            with self._change:
                self._runs.remove(run)
                self._cleared({(run.number, id) for id in (*run.waiting, *run.asked)})

    def stats(self) -> dict[str, float]:
        """Those of the engine there is now; see `engines.engine.Engine.stats`."""
        engine = self._engine
        return {} if engine is None else engine.stats()

    def close(self, *, keep: bool = True) -> None:
        """End the engine. Safe to call twice, from another thread, and while ``run`` is under way."""
        with self._change:
            self._closing = True
            engine = self._engine
            self._change.notify_all()
        self._over.set()
        if engine is not None:
            engine.close(keep=keep)

    def _check_open(self) -> None:
        if self._failure is not None:
            raise EngineDiedError(str(self._failure))
        if self._info is None or self._closing:
            raise EngineDiedError("the engine was closed" if self._closing else "the engine is not open")

    def _wake(self) -> None:
        with self._change:
            self._change.notify_all()

    def _turn(self, run: _Run, stop: Stop | None) -> tuple[Engine, list[Request]] | None:
        """Wait for what ``run`` may ask next, and see to a dead engine meanwhile. None where it is at its end."""
        while True:
            with self._change:
                while True:
                    if (stop and stop.is_set) or not (run.waiting or run.asked or run.marked):
                        return None
                    self._check_open()
                    engine = self._engine
                    if run.marked and engine is not None:
                        return engine, []
                    if self._recovering:
                        self._change.wait()
                    elif self._death is not None:
                        if not any(each.busy for each in self._runs):
                            self._recovering = True
                            break
                        self._change.wait()
                    elif engine is not None and (portion := self._next_portion(run)):
                        run.asked.update((request.id, request) for request in portion)
                        for request in portion:
                            del run.waiting[request.id]
                        run.busy = True
                        return engine, portion
                    else:
                        self._change.wait()  # others are suspects, and are asked first
            self._recover()

    def _next_portion(self, run: _Run) -> list[Request]:
        return [
            request for id, request in run.waiting.items() if not self._portion or (run.number, id) in self._portion
        ]

    def _ask(self, run: _Run, engine: Engine, portion: list[Request], stop: Stop | None) -> Iterator[Response]:
        """Have the engine answer a portion, as far as it does; what it leaves waits again."""
        death: str | None = None
        try:
            for response in engine.run(portion, stop):
                with self._change:
                    if run.asked.pop(response.id, None) is None:
                        continue
                    self._answers += 1
                    self._barren = 0
                    self._cleared({(run.number, response.id)})
                yield response
            if run.asked and not (stop and stop.is_set):
                death = f"{len(run.asked)} of {len(portion)} requests were not answered"
        except EngineDiedError as error:
            death = str(error)
        finally:
            with self._change:
                run.busy = False
                if death is not None:
                    self._death = self._death or death
                elif self._death is None:
                    run.waiting = {**run.asked, **run.waiting}
                    run.asked.clear()
                self._change.notify_all()

    def _take_marked(self, run: _Run) -> list[Response]:
        with self._change:
            marked, run.marked = run.marked, []
        return marked

    def _cleared(self, keys: set[Key]) -> None:
        """Note that these have no part in it, and whom to ask next once the portion before is answered. Under the lock."""
        if not self._portion:
            return
        self._portion -= keys
        self._clear |= keys
        if not self._portion:
            self._suspect(self._isolation.without(self._clear))

    def _suspect(self, isolation: Isolation[Key]) -> None:
        self._isolation, self._clear = isolation, set()
        self._portion = frozenset(isolation.portion)
        self._change.notify_all()

    def _recover(self) -> None:
        """Have another engine in place of the dead one, or note that there will be none. On one thread at a time."""
        with self._change:
            fault = self._conclude()
        try:
            self._load(fault)
        except (EngineDiedError, UserError) as error:
            with self._change:
                self._failure = error
        except BaseException as error:
            with self._change:
                self._failure = EngineDiedError(f"the engine could not be started again: {error}")
            raise
        finally:
            with self._change:
                self._recovering = False
                self._change.notify_all()

    def _conclude(self) -> Fault:
        """Draw the conclusions from a death: whom to suspect, whom to leave out. Under the lock."""
        message = self._death or ""
        in_flight = [(run.number, id) for run in self._runs for id in run.asked]
        self._barren += 1
        isolation, guilty = self._isolation.after_death(in_flight)
        for run in self._runs:
            if guilty is not None and run.number == guilty[0]:
                request = run.asked.pop(guilty[1])
                why = f"{POISON}: the engine ended {POISON_DEATHS} times with it in flight, at last alone: {_first_line(message)}"
                run.marked.append(failed(request, why))
                self._guilty += 1
            run.waiting = {**run.asked, **run.waiting}
            run.asked = {}
        self._suspect(isolation)
        kind = "stall" if self._stalled else kind_of(message, loading=False)
        found = "" if guilty is None else guilty[1]
        return Fault(kind, message, False, len(isolation.suspects), found, self._guilty, self._barren)

    def _load(self, fault: Fault | None) -> EngineInfo:
        """Have an engine after ``fault``, None for the first. Raises what is final."""
        while True:
            if fault is not None:
                with self._change:
                    self._check_closing()
                    old = self._engine
                step = self._decide(fault)
                if old is not None:
                    old.close(keep=False)
                if step.action in ("move", "give up"):
                    how = "given up" if step.action == "give up" else "not here"
                    raise EngineDiedError(f"{fault.message}\n{how}: {step.reason}" if step.reason else fault.message)
                self._options = step.options
            try:
                engine = self._build(self._options)
                with self._change:
                    self._check_closing()
                    self._engine, self._stalled = engine, False
                info = engine.open()
                self._check_alike(info)
            except EngineDiedError as error:
                if self._closing:
                    raise
                fault = Fault(kind_of(str(error), loading=True), str(error), loading=True)
                continue
            with self._change:
                self._check_closing()
                self._info = self._info or info
                self._death = None
            return info

    def _check_closing(self) -> None:
        if self._closing:
            raise EngineDiedError("the engine was closed")

    def _check_alike(self, info: EngineInfo) -> None:
        first = self._info or info
        for name in ALIKE:
            if (found := getattr(info, name)) != (before := getattr(first, name)):
                raise UserError(f"started again, the engine's {name} is {found}, and was {before} before")

    def _watch(self) -> None:
        while not self._over.wait(self._stall.seconds / WATCHES):
            self.look()

    def look(self) -> None:
        """Close the engine if it has been doing nothing for too long."""
        with self._change:
            engine = self._engine
            working = any(run.busy for run in self._runs) and self._death is None and not self._recovering
            stats = {} if engine is None else engine.stats()
            sign = (id(engine), self._answers, stats.get("prompt_tokens"), stats.get("generation_tokens"))
            if not self._stall.over(sign, working=working) or engine is None:
                return
            self._stalled = True
            self._death = (
                f"no token for {self._stall.seconds / 60:g} minutes while requests wait (policy.stall_minutes)"
            )
        engine.close(keep=False)


def _first_line(message: str) -> str:
    return message.strip().partition("\n")[0]
