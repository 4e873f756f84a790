"""What flow tests share: engines built from a script, one per model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from core.request import Generate, Generated, Request, Response, Scored
from engines.host.slots import Held
from tests.scripted_engine import ScriptedEngine

LIMIT = 6
BENCHMARKS = [{"name": "steelyard_facts", "limit": LIMIT}, {"name": "steelyard_arithmetic", "limit": LIMIT}]


def answer(request: Request) -> Response:
    if isinstance(request, Generate):
        return Generated(request.id, " 4", "stop", prompt_tokens=5, completion_tokens=1)
    return Scored(request.id, logprob=-float(len(request.id)), is_greedy=False, tokens=1, prompt_tokens=5)


class Engines:
    """Builds a scripted engine per model and remembers it; ``scripts`` may replace a model's answers."""

    def __init__(self) -> None:
        self.built: dict[str, ScriptedEngine] = {}
        self.devices: dict[str, tuple[int, ...]] = {}
        self.scripts: dict[str, Callable[[Request], Response]] = {}

    def build(self, spec: Any, planned: Any, config: Any, held: Held, cluster: Any) -> ScriptedEngine:
        name = planned.model.name
        self.devices[name] = held.devices
        self.built[name] = ScriptedEngine(self.scripts.get(name, answer))
        return self.built[name]


@asynccontextmanager
async def no_cluster(*_: Any) -> AsyncIterator[None]:
    """Stand in for `tasks.provision.provisioned`: scripted engines need no Ray."""
    yield None
