"""An engine's slot: what its engine is made of and asked, and what it keeps from others after a death. Guarded by its owner."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from core.errors import EngineDiedError, UserError
from core.planning.ladder import EngineFault, Step, kind_of
from core.request import Request, Response
from engines.bench.dealing import Portion, Run, Taker
from engines.bench.isolation import POISON_DEATHS, Isolation, Stall
from engines.engine import Engine, EngineInfo
from engines.session.tokens import failed

POISON = "poison request"
Build = Callable[[Mapping[str, Any]], Engine]  # with vLLM's arguments that are advised, as often as need be
Key = tuple[Run, str]  # a request, by its id


@dataclass(eq=False)
class Slot(Taker):
    """One engine after the other, made of ``source``; an engine given as such can only be lost.

    A slot that "serves" with its engine dead is "restarting" from when that has no portion left and something waits. It is
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
        """Whether it serves or will."""
        return self.state in ("loading", "serving", "restarting")

    @property
    def serves(self) -> bool:
        """Whether it has loaded and is not about to leave; its engine may be starting again."""
        return self.state in ("serving", "restarting")

    def close(self, *, keep: bool) -> None:
        """Close the engine there is, once. Takes time: to be called without the lock."""
        if self.engine is not None and not self.closed:
            self.closed = True
            self.engine.close(keep=keep)

    def is_stalled(self) -> bool:
        """Whether the engine has been doing nothing for too long, which is its death then; to be asked now and then."""
        stats = {} if self.engine is None else self.engine.stats()
        sign = (id(self.engine), self.answers, stats.get("prompt_tokens"), stats.get("generation_tokens"))
        if not self.stall.over(sign, working=self.portions > 0 and self.death is None):
            return False
        self.stalled = True
        self.death = f"no token for {self.stall.seconds / 60:g} minutes while requests wait (policy.stall_minutes)"
        return True

    def ask(self, portion: Portion[Slot]) -> Iterator[Response]:
        """Have the engine answer a portion. To be called without the lock."""
        if self.engine is None:
            raise EngineDiedError("the engine is not open")
        return self.engine.run(portion.requests, portion.run.abort)

    def after(self, portion: Portion[Slot], missing: Sequence[Request], failure: Exception | None) -> None:
        """Draw the conclusions from how a portion ended: what a dead engine had is kept until all its portions have ended."""
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
        """Draw the conclusions from the engine's death: who is a suspect, who killed it. ``guilty`` counts those found before."""
        asked = [key for key in self.in_flight if not key[0].abort.is_set]
        self.isolation, self.guilty = known.after_death(asked)
        self.in_flight.clear()
        self.barren += 1
        message = self.death or ""
        kind = "stall" if self.stalled else kind_of(message, loading=False)
        found = "" if self.guilty is None else self.guilty[1]
        return EngineFault(kind, message, False, len(self.isolation.suspects), found, guilty + bool(found), self.barren)

    def settle(self, message: str) -> None:
        """Answer who has killed the engine, which said ``message``, with an error, and keep only the suspects."""
        if self.guilty is not None:
            run, request = self.guilty[0], self._release(self.guilty)
            ended = f"the engine ended {POISON_DEATHS} times with it in flight, at last alone"
            run.answer(request, failed(request, f"{POISON}: {ended}: {message.strip().partition(chr(10))[0]}"))
            run.settle()
            self.guilty = None
        self.give_back(self.isolation.suspects)

    def give_back(self, stay: Collection[Key] = ()) -> dict[Run, int]:
        """Put what is held, but for ``stay``, in front of its runs again. Counts as `engines.bench.dealing.Run.give_back` does."""
        kept, back = set(stay), defaultdict[Run, list[Request]](list)
        for key in [key for key in self.held if key not in kept]:
            back[key[0]].append(self._release(key))
        return {run: run.give_back(requests) for run, requests in back.items()}

    def suspects(self) -> list[Portion[Slot]]:
        """Deal the suspects to ask next, where none is in flight; nothing where all are cleared."""
        uncleared = {key for key in self.held if not key[0].abort.is_set}
        self.isolation = self.isolation.without(set(self.isolation.suspects) - uncleared)
        asked: defaultdict[Run, list[Request]] = defaultdict(list)
        for key in self.isolation.portion:
            asked[key[0]].append(self._release(key))
        return [Portion.given(self, run, requests) for run, requests in asked.items()]

    def _release(self, key: Key) -> Request:
        key[0].apart -= 1
        return self.held.pop(key)


ALIKE = ("vllm_version", "max_model_len", "dtype")
log = logging.getLogger("steelyard.engine")


def lose(fault: EngineFault) -> Step:
    """Advice for engines that are not started again."""
    return Step("give up", "")


def start(
    slot: Slot,
    fault: EngineFault | None,
    decide: Callable[[EngineFault], Step],
    change: threading.Condition,
    deal: Callable[[], None],
) -> EngineInfo:
    """Have an engine in ``slot`` after ``fault``, None for the first, as often as ``decide`` says so. Raises what is final.

    ``change`` guards the slot; ``deal`` is called under it once the slot has given back what others may have.
    """
    again = fault is not None
    while True:
        if fault is not None:
            with change:
                check_wanted(slot)
            step = decide(fault)
            if step.action in ("move", "give up"):
                slot.close(keep=False)
                how = "given up" if step.action == "give up" else "not here"
                raise EngineDiedError(f"{fault.message}\n{how}: {step.reason}" if step.reason else fault.message)
            with change:
                check_wanted(slot)
                slot.options = step.options
                slot.settle(fault.message)
                deal()
            slot.close(keep=False)
        try:
            engine = slot.source if isinstance(slot.source, Engine) else slot.source(slot.options)
            with change:
                check_wanted(slot)
                slot.engine, slot.closed, slot.stalled = engine, False, False
            return engine.open()
        except EngineDiedError as error:
            with change:
                check_wanted(slot)
            fault = EngineFault(kind_of(str(error), loading=True), str(error), loading=True)
        except UserError:
            raise
        except Exception as error:
            if not again:
                raise
            log.exception("an engine could not be started again")
            raise EngineDiedError(f"the engine could not be started again: {error}") from error


def check_wanted(slot: Slot) -> None:
    """Raise where a slot was retired or closed while it came to an engine. Under the lock."""
    if slot.state not in ("loading", "restarting"):
        raise EngineDiedError("the engine was closed")


def check_alike(info: EngineInfo, first: EngineInfo, *, again: bool) -> None:
    """Raise where an engine is not like the others, or the one before it: its answers would be of another cell."""
    for name in ALIKE:
        if (found := getattr(info, name)) != (asked := getattr(first, name)):
            before = f"started again, the engine's {name} is {found}, and was {asked} before"
            raise UserError(before if again else f"its {name} is {found}, and {asked} in the others")


def in_thread(target: Callable[..., None], *arguments: Any) -> None:
    """Call on a thread, in this one's context: a flow's log lines stay the flow's."""
    context = contextvars.copy_context()
    name = f"steelyard-engine-{target.__name__.strip('_')}"
    threading.Thread(target=context.run, args=(target, *arguments), name=name, daemon=True).start()
