"""How a slot comes to an engine: for the first time, and again as advised. On a thread of its own."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable
from typing import Any

from core.errors import EngineDiedError, UserError
from core.faults.ladder import Fault, Step, kind_of
from engines.bench.slot import Slot
from engines.engine import Engine, EngineInfo

ALIKE = ("vllm_version", "max_model_len", "dtype")
log = logging.getLogger("steelyard.engine")


def lose(fault: Fault) -> Step:
    """Advice for engines that are not started again."""
    return Step("give up", "")


def start(
    slot: Slot,
    fault: Fault | None,
    decide: Callable[[Fault], Step],
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
            fault = Fault(kind_of(str(error), loading=True), str(error), loading=True)
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
