"""A replica: one engine of a model, restarted in place, what it is asked and what it keeps from others after a death."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from core.errors import EngineDiedError, UserError
from core.monitor.readings import add_up
from core.planning.ladder import EngineFault, Step, kind_of
from core.request import Request, Response
from engines.bench.dealing import POISON_DEATHS, DealtRun, Isolation, Portion, Taker
from engines.engine import Engine, EngineInfo
from engines.session.tokens import failed

POISON = "poison request"
Build = Callable[[Mapping[str, Any]], Engine]  # with vLLM's arguments that are advised, as often as need be
Key = tuple[DealtRun, str]  # a request, by its id


class Stall:
    """Detects work without progress for ``seconds`` by ``clock``."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self.seconds = seconds
        self._clock = clock
        self._since = clock()
        self._sign: object = None

    def over(self, sign: object, *, working: bool) -> bool:
        """Note a ``sign`` that changes with every progress, and return whether the time is over."""
        now = self._clock()
        if not working or sign != self._sign:
            self._since, self._sign = now, sign
        return now - self._since >= self.seconds


@dataclass(eq=False)
class Replica(Taker):
    """One engine after the other, made of ``source``; an engine given as such can only be lost. Guarded by its supervisor's lock.

    A replica that is "serving" with its engine dead is "restarting" from when that has no portion left and something waits. It is
    "leaving" while it answers its last, "ended" until what it held is free: "gone". ``held`` are requests that no other may have:
    those ``in_flight`` when the engine died, and of these the suspects until they are cleared.
    """

    source: Engine | Build
    stall: Stall
    state: Literal["loading", "serving", "restarting", "leaving", "ended", "gone"] = "loading"
    options: Mapping[str, Any] = field(default_factory=dict)
    engine: Engine | None = None
    closed: bool = False  # its engine
    death: str | None = None
    stalled: bool = False
    answers: int = 0
    barren: int = 0  # deaths since the last answer
    in_flight: list[Key] = field(default_factory=list)
    held: dict[Key, Request] = field(default_factory=dict)
    isolation: Isolation[Key] = field(default_factory=Isolation)
    guilty: Key | None = None

    def __post_init__(self) -> None:
        self.engine = self.source if isinstance(self.source, Engine) else None

    @property
    def stays(self) -> bool:
        """Whether the replica serves or will."""
        return self.state in ("loading", "serving", "restarting")

    @property
    def serves(self) -> bool:
        """Whether the replica has loaded and is not about to leave; its engine may be starting again."""
        return self.state in ("serving", "restarting")

    def close(self, *, keep: bool) -> None:
        """Close the engine there is, once. Slow: to be called without the lock."""
        if self.engine is not None and not self.closed:
            self.closed = True
            self.engine.close(keep=keep)

    def is_stalled(self) -> bool:
        """Whether the engine has been doing nothing for too long, which is its death then. To be asked regularly."""
        stats = {} if self.engine is None else self.engine.stats()
        sign = (id(self.engine), self.answers, stats.get("prompt_tokens"), stats.get("generation_tokens"))
        if not self.stall.over(sign, working=self.portions > 0 and self.death is None):
            return False
        self.stalled = True
        self.death = f"no token for {self.stall.seconds / 60:g} minutes while requests wait (policy.stall_minutes)"
        return True

    def ask(self, portion: Portion[Replica]) -> Iterator[Response]:
        """Yield the engine's answers to a portion. To be called without the lock."""
        if self.engine is None:
            raise EngineDiedError("the engine is not open")
        return self.engine.run(portion.requests, portion.run.abort)

    def after(self, portion: Portion[Replica], missing: Sequence[Request], failure: Exception | None) -> None:
        """Account for a portion's end: what a dead engine had is kept until all its portions have ended."""
        portion.over(missing)
        if isinstance(failure, EngineDiedError):
            self.death = self.death or str(failure)
        elif failure is not None:
            portion.run.fail(failure)
        if self.death is not None:
            portion.run.apart += len(missing)
            found = {(portion.run, request.id): request for request in missing}
            self.held.update(found)
            self.in_flight += found

    def conclude(self, known: Isolation[Key], guilty: int) -> EngineFault:
        """Return the fault of a dead engine, its suspects and its killer found. ``guilty`` counts the killers found before."""
        asked = [key for key in self.in_flight if not key[0].abort.is_set]
        self.isolation, self.guilty = known.after_death(asked)
        self.in_flight.clear()
        self.barren += 1
        message = self.death or ""
        kind = "stall" if self.stalled else kind_of(message, loading=False)
        found = "" if self.guilty is None else self.guilty[1]
        return EngineFault(kind, message, False, len(self.isolation.suspects), found, guilty + bool(found), self.barren)

    def settle(self, message: str) -> None:
        """Answer the request that killed the engine, which said ``message``, with an error, and keep only the suspects."""
        if self.guilty is not None:
            run, request = self.guilty[0], self._release(self.guilty)
            ended = f"the engine ended {POISON_DEATHS} times with it in flight, at last alone"
            run.answer(request, failed(request, f"{POISON}: {ended}: {message.strip().partition(chr(10))[0]}"))
            run.settle()
            self.guilty = None
        self.give_back(self.isolation.suspects)

    def give_back(self, stay: Collection[Key] = ()) -> dict[DealtRun, int]:
        """Return what is held, but for ``stay``, to the front of its runs; see `engines.bench.dealing.DealtRun.give_back`."""
        kept, back = set(stay), defaultdict[DealtRun, list[Request]](list)
        for key in [key for key in self.held if key not in kept]:
            back[key[0]].append(self._release(key))
        return {run: run.give_back(requests) for run, requests in back.items()}

    def suspects(self) -> list[Portion[Replica]]:
        """Deal the suspects to ask next, while none is in flight; nothing where all are cleared."""
        uncleared = {key for key in self.held if not key[0].abort.is_set}
        self.isolation = self.isolation.without(set(self.isolation.suspects) - uncleared)
        asked: defaultdict[DealtRun, list[Request]] = defaultdict(list)
        for key in self.isolation.next_suspects:
            asked[key[0]].append(self._release(key))
        return [Portion.given(self, run, requests) for run, requests in asked.items()]

    def _release(self, key: Key) -> Request:
        key[0].apart -= 1
        return self.held.pop(key)


class Roster:
    """All replicas of one model that ever were. Its public face may be read by any thread."""

    _replicas: tuple[Replica, ...] = ()

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The last engine of each replica that ever was."""
        return tuple(replica.engine for replica in self._replicas if replica.engine is not None)

    @property
    def size(self) -> int:
        """Number of replicas that serve or load."""
        return sum(replica.stays for replica in self._replicas)

    @property
    def serving(self) -> int:
        """Number of replicas that are loaded and take requests."""
        return sum(replica.serves for replica in self._replicas)

    @property
    def used(self) -> int:
        """Number of replicas that have answered something."""
        return sum(replica.answers > 0 for replica in self._replicas)

    def is_gone(self, source: Engine | Build) -> bool:
        """Whether the replica of ``source`` has ended, and holds nothing any more."""
        return any(replica.source is source and replica.state == "gone" for replica in self._replicas)

    def stats(self) -> dict[str, float]:
        """Return figures of all engines together (`core.monitor.readings.add_up`), or the only engine's own."""
        each = [engine.stats() for engine in self.engines]
        return each[0] if len(each) == 1 else add_up(each)

    def _retain(self) -> None:
        """Keep replicas that were about to leave, where no other engine lives. Under the lock."""
        if not any(replica.state == "serving" and replica.death is None for replica in self._replicas):
            for replica in self._replicas:
                if replica.state == "leaving" and replica.portions:
                    replica.state = "serving"


def engines_of(engine: Engine) -> tuple[Engine, ...]:
    """Return the engines behind ``engine``, each with a process of its own."""
    return engine.engines if isinstance(engine, Roster) else (engine,)


ALIKE = ("vllm_version", "max_model_len", "dtype")
log = logging.getLogger("steelyard.engine")


def lose(fault: EngineFault) -> Step:
    """Return the step for engines that are not started again."""
    return Step("give up", "")


def start(
    replica: Replica,
    fault: EngineFault | None,
    decide: Callable[[EngineFault], Step],
    change: threading.Condition,
    deal: Callable[[], None],
) -> EngineInfo:
    """Start an engine in ``replica`` after ``fault``, None for the first, as often as ``decide`` says. Raises what is final.

    ``change`` guards the replica; ``deal`` is called under it once the replica has given back what others may have.
    """
    again = fault is not None
    while True:
        if fault is not None:
            with change:
                check_wanted(replica)
            step = decide(fault)
            if step.action in ("move", "give up"):
                replica.close(keep=False)
                how = "given up" if step.action == "give up" else "not here"
                raise EngineDiedError(f"{fault.message}\n{how}: {step.reason}" if step.reason else fault.message)
            with change:
                check_wanted(replica)
                replica.options = step.options
                replica.settle(fault.message)
                deal()
            replica.close(keep=False)
        try:
            engine = replica.source if isinstance(replica.source, Engine) else replica.source(replica.options)
            with change:
                check_wanted(replica)
                replica.engine, replica.closed, replica.stalled = engine, False, False
            return engine.open()
        except EngineDiedError as error:
            fault = EngineFault(kind_of(str(error), loading=True), str(error), loading=True)
        except UserError:
            raise
        except Exception as error:
            if not again:
                raise
            log.exception("an engine could not be started again")
            raise EngineDiedError(f"the engine could not be started again: {error}") from error


def check_wanted(replica: Replica) -> None:
    """Raise where a replica was retired or closed while its engine started. Under the lock."""
    if replica.state not in ("loading", "restarting"):
        raise EngineDiedError("the engine was closed")


def check_alike(info: EngineInfo, first: EngineInfo, *, again: bool) -> None:
    """Raise where an engine is not like the others, or the one before it: its answers would be of another cell."""
    for name in ALIKE:
        if (found := getattr(info, name)) != (asked := getattr(first, name)):
            before = f"started again, the engine's {name} is {found}, and was {asked} before"
            raise UserError(before if again else f"its {name} is {found}, and {asked} in the others")


def in_thread(target: Callable[..., None], *arguments: Any) -> None:
    """Call ``target`` on a thread, in this one's context: a flow's log lines stay the flow's."""
    context = contextvars.copy_context()
    name = f"steelyard-engine-{target.__name__.strip('_')}"
    threading.Thread(target=context.run, args=(target, *arguments), name=name, daemon=True).start()
