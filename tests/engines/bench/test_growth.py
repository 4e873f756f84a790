"""Replicas that come and go with idle devices. Engines are scripted."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.campaign import CampaignSpec, load_spec
from core.errors import EngineDiedError
from core.model.fleet import resolve_fleet
from core.model.placement import PlannedModel, place
from core.monitor.summary import engines_alive
from core.planning.schedule.turns import Demand
from core.request import Generate, Generated, Request, Response, Sampling
from core.storage.open import open_storage
from core.store.monitor import read_monitor
from engines.bench.growth import Replicas, as_used, replicated
from engines.bench.monitoring import monitored, summed_up
from engines.bench.supervisor import Supervisor
from engines.engine import EngineInfo
from engines.host.queue import Ticket
from engines.host.slots import DevicePool, Held, holders
from tests.core.real_configs import real
from tests.scripted_engine import ScriptedEngine
from tests.waiting import until


def answer(request: Request) -> Response:
    return Generated(request.id, " 4", "stop", prompt_tokens=5, completion_tokens=2)


class World:
    """A model on one of three devices, with up to three replicas, each paid for by ten docs."""

    def __init__(self, models: int = 1, gpus: int = 1) -> None:
        self.pool = DevicePool(f"test-{secrets.token_hex(4)}", tuple("0123456"[: 3 * gpus]))
        names = [f"m{n}" for n in range(models)]
        self.spec = load_spec(
            {
                "name": "n",
                "models": names,
                "benchmarks": ["b"],
                "fleet": {"gpus": 3, "gpu_memory_gb": 80, "device": "cuda"},
                "policy": {"docs_per_replica": 10},
            }
        )
        self.fleet = resolve_fleet(self.spec.fleet)
        placement = place(real("Qwen3-0.6B"), self.spec.models[0], self.fleet, self.spec.policy)
        self.planned = PlannedModel(
            self.spec.models[0], real("Qwen3-0.6B"), replace(placement, replicas=3, tensor_parallel=gpus)
        )
        self.held = self.take(gpus)
        self.built: list[ScriptedEngine] = []
        self.answers: Callable[[Request], Response] = answer

    def take(self, gpus: int = 1) -> Held:
        held = Ticket(self.pool, Demand("m0", gpus)).take()
        assert held is not None
        return held

    def build(self, held: Held) -> ScriptedEngine:
        self.built.append(ScriptedEngine(lambda request: self.answers(request)))
        return self.built[-1]

    def replicas(self) -> Replicas:
        return Replicas(self.spec, self.planned, self.fleet, self.held, self.build)

    @contextmanager
    def at_work(self, replicas: Replicas, docs: int) -> Iterator[list[str]]:
        """Answers wait until the block is over."""
        go, found = threading.Event(), list[str]()

        def waits(request: Request) -> Response:
            assert go.wait(20)
            return answer(request)

        self.answers = waits
        requests = [Generate(f"t/{n}/0/0", "2 + 2 =", Sampling()) for n in range(docs)]
        thread = threading.Thread(target=lambda: found.extend(r.id for r in replicas.engine.run(requests)))
        thread.start()
        until(lambda: sum(len(engine.seen) for engine in self.built) > 0)
        try:
            yield found
        finally:
            go.set()
            thread.join(20)
        assert len(found) == len(set(found)) == docs


def devices_of(pool: DevicePool) -> list[str]:
    return [holder.device for holder in holders(pool)]


def test_a_campaign_of_one_model_takes_all_idle_devices_at_once() -> None:
    world = World()
    replicas = world.replicas()
    replicas.step()
    assert devices_of(world.pool) == ["0", "1", "2"]
    assert replicas.devices == (0, 1, 2)
    replicas.engine.open()
    until(lambda: replicas.engine.serving == 3)
    replicas.engine.close()
    replicas.release()
    assert devices_of(world.pool) == ["0"]


def test_replicas_of_several_devices_come_and_go_whole() -> None:
    world = World(gpus=2)
    replicas = world.replicas()
    other = world.take()
    replicas.step()
    assert replicas.devices == (0, 1, 3, 4)  # one device is left, which is no replica
    replicas.engine.open()
    until(lambda: replicas.engine.serving == 2)
    other.release()
    with world.at_work(replicas, 1000):
        replicas.step()
        assert replicas.devices == (0, 1, 3, 4, 2, 5)
        until(lambda: replicas.engine.serving == 3)
        ticket = Ticket(world.pool, Demand("another model", 1))
        replicas.step()
    until(lambda: any(replicas.engine.is_gone(engine) for engine in world.built))
    replicas.step()
    assert replicas.devices == (0, 1, 3, 4)
    ticket.drop()
    replicas.engine.close()
    replicas.release()
    assert devices_of(world.pool) == ["0", "1"]


def test_models_that_have_not_asked_yet_find_their_devices_idle() -> None:
    """Later, when they have theirs or need none, replicas take what is left."""
    world = World(models=3)
    replicas = world.replicas()
    replicas.step()
    assert devices_of(world.pool) == ["0"]
    replicas.engine.open()
    with world.at_work(replicas, 1000):
        replicas.step()
        assert devices_of(world.pool) == ["0", "1", "2"]
    replicas.engine.close()


def test_no_replica_comes_for_work_that_does_not_pay() -> None:
    world = World(models=3)
    replicas = world.replicas()
    replicas.engine.open()
    with world.at_work(replicas, 260):  # 256 of them are begun
        replicas.step()
        assert devices_of(world.pool) == ["0"]
    replicas.engine.close()


def test_a_device_somebody_waits_for_is_neither_taken_nor_kept() -> None:
    world = World()
    replicas = world.replicas()
    replicas.step()
    replicas.engine.open()
    until(lambda: replicas.engine.serving == 3)
    with world.at_work(replicas, 1000):
        other = Ticket(world.pool, Demand("another campaign", 1))
        assert other.take() is None
        replicas.step()
        assert replicas.engine.size == 2
        assert other.take() is None  # it still has answers to give
    until(lambda: any(replicas.engine.is_gone(engine) for engine in world.built))
    replicas.step()
    taken = other.take()
    assert taken is not None
    assert taken.devices == (2,)
    assert replicas.devices == (0, 1)
    assert world.built[2].closed == 1
    replicas.engine.close()


def test_the_device_of_a_dead_replica_comes_back_and_not_for_ever_to_another() -> None:
    world = World()

    class DoesNotLoad(ScriptedEngine):
        def open(self) -> EngineInfo:
            raise EngineDiedError("no memory left on the device")

    def build(held: Held) -> ScriptedEngine:
        world.built.append((DoesNotLoad if world.built else ScriptedEngine)(answer))
        return world.built[-1]

    replicas = Replicas(world.spec, world.planned, world.fleet, world.held, build)
    replicas.step()
    replicas.engine.open()
    until(lambda: all(replicas.engine.is_gone(engine) for engine in world.built[1:]))
    for _ in range(5):
        replicas.step()
    assert devices_of(world.pool) == ["0"]
    assert len(world.built) == 3
    replicas.engine.close()


def test_a_placement_of_one_is_its_engine_alone() -> None:
    world = World()
    planned = replace(world.planned, placement=replace(world.planned.placement, replicas=1))

    async def main() -> None:
        async with replicated(world.spec, planned, world.fleet, world.held, world.build) as (engine, holder):
            assert engine is world.built[0]
            assert holder is world.held

    asyncio.run(main())
    assert as_used(planned, world.built[0]) == planned


def test_all_replicas_are_watched_and_all_devices_come_back(tmp_path: Path) -> None:
    world = World()
    spec: CampaignSpec = world.spec.model_copy(update={"results": str(tmp_path)})

    async def main() -> dict[str, Any]:
        async with (
            replicated(spec, world.planned, world.fleet, world.held, world.build) as (engine, holder),
            monitored(spec, world.fleet, "m", holder, engine, "r1") as monitor,
        ):
            await asyncio.to_thread(until, lambda: len(holder.devices) == 3)
            await asyncio.to_thread(engine.open)
            assert isinstance(engine, Supervisor)
            await asyncio.to_thread(until, lambda: engine.serving == 3)
            with summed_up(monitor) as summary:
                await asyncio.to_thread(list, engine.run([Generate(f"t/{n}/0/0", "2", Sampling()) for n in range(900)]))
            used = as_used(world.planned, engine).placement.replicas
            await asyncio.to_thread(engine.close)
        return {**summary, "used": used}

    found = asyncio.run(main())
    assert found["used"] == 3
    assert found["generation_tokens_per_second"] > 0
    table = read_monitor(open_storage(str(tmp_path)), "n", "r1")
    assert engines_alive(table).most == 3
    assert devices_of(world.pool) == ["0"]


@pytest.mark.parametrize("asked", [{"replicas": 1}, {}])
def test_few_docs_build_no_requests_where_no_device_is_left(asked: dict[str, int]) -> None:
    """Requests are counted only where replicas may come of it."""
    from engines.bench.growth import spread

    world = World()
    fleet = world.fleet if asked else world.fleet.model_copy(update={"gpus": 1})
    model = world.spec.models[0].model_copy(update=asked)
    placement = replace(world.planned.placement, replicas=1)
    planned = replace(world.planned, model=model, placement=placement)
    assert asyncio.run(spread(world.spec, planned, fleet, [None])) == planned  # type: ignore[list-item]
