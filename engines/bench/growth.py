"""Data parallel: replicas of a model on idle devices, which come and go while it is evaluated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from core.campaign import CampaignSpec, FleetSpec
from core.cell_work import CellWork
from core.errors import EngineDiedError
from core.log import log
from core.model.placement import PlannedModel
from core.model.sizing import docs_of, replica_change, replicas_paid, with_replicas
from core.planning.ladder import EngineFault, Step
from engines.bench.replica import Build, lose
from engines.bench.supervisor import IN_FLIGHT, Supervisor
from engines.engine import Engine
from engines.host.queue import devices_lacking, take_idle
from engines.host.slots import Held

POLL_SECONDS = 2.0  # a lock that comes free tells nobody
MOST_LOST = 2  # replicas that died or did not load; what costs more of them is not their device
CPU_IN_FLIGHT = 64  # a core answers no faster with more


async def spread(
    spec: CampaignSpec, planned: PlannedModel, fleet: FleetSpec, works: Sequence[CellWork] | None
) -> PlannedModel:
    """Return ``planned`` with the replicas that ``works`` pay for; None stands for more than could be prepared by now."""

    def decide(docs: int | None) -> PlannedModel:
        return replace(planned, placement=with_replicas(planned.placement, planned.model, fleet, spec.policy, docs))

    if decide(None).placement.replicas == 1:
        return planned
    docs = None
    if works is not None:
        todo = [work.benchmark for work in works if not work.complete]
        docs = await asyncio.to_thread(lambda: sum(docs_of(benchmark.requests()) for benchmark in todo))
    found = decide(docs)
    if found.placement.replicas > 1:
        log.info(f"{planned.model.name}: {found.placement.reason.removeprefix(planned.placement.reason).strip()}")
    return found


def as_used(planned: PlannedModel, engine: Engine) -> PlannedModel:
    """Return ``planned`` with the replicas that have answered so far, for the record."""
    if not isinstance(engine, Supervisor):
        return planned
    return replace(planned, placement=replace(planned.placement, replicas=max(1, engine.used)))


@asynccontextmanager
async def replicated(
    spec: CampaignSpec,
    planned: PlannedModel,
    fleet: FleetSpec,
    held: Held,
    build: Callable[[Held], Engine | Build],
    decide: Callable[[EngineFault], Step] = lose,
) -> AsyncIterator[tuple[Engine, Held | Replicas]]:
    """Yield the engine of a placement, not yet open, and the holder of its devices. To be left once the engine is closed.

    ``build`` makes an engine, or what makes it as often as ``decide`` says, on devices that are held. The first stands on ``held``;
    where the placement has replicas, further ones join on devices that are idle, now and later, and leave when others wait for
    these.
    """
    if planned.placement.replicas == 1:
        source, stall_seconds = build(held), 60 * spec.policy.stall_minutes
        yield source if isinstance(source, Engine) else Supervisor([source], decide, stall_seconds=stall_seconds), held
        return
    replicas = Replicas(spec, planned, fleet, held, build, decide)
    ending = asyncio.Event()
    watching = asyncio.create_task(_watch(replicas, ending))
    try:
        yield replicas.engine, replicas
    finally:
        ending.set()
        try:
            await asyncio.shield(watching)
        finally:
            replicas.release()


async def _watch(replicas: Replicas, ending: asyncio.Event) -> None:
    try:
        while not ending.is_set():
            await asyncio.to_thread(replicas.step)
            with suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), POLL_SECONDS)
    except Exception as error:  # no reason to end an evaluation that goes on without
        log.warning(f"{replicas.label}: replicas come and go no more: {type(error).__name__}: {error}")


@dataclass(eq=False)
class Replicas:
    """The engines of one model and the devices they are on; see `replicated`. `step` is to be called regularly, by one thread."""

    spec: CampaignSpec
    planned: PlannedModel
    fleet: FleetSpec
    held: Held
    build: Callable[[Held], Engine | Build]
    decide: Callable[[EngineFault], Step] = lose

    def __post_init__(self) -> None:
        model, placement = self.planned.model, self.planned.placement
        in_flight = int(model.vllm.get("max_num_seqs", CPU_IN_FLIGHT if self.fleet.device == "cpu" else IN_FLIGHT))
        stall = 60 * self.spec.policy.stall_minutes
        self.engine = Supervisor([self.build(self.held)], self.decide, in_flight=in_flight, stall_seconds=stall)
        self.label = model.name
        self._most, self._gpus = placement.replicas, placement.replica_gpus
        # The campaign's other models may not have asked for their devices yet.
        self._most_at_first = max(1, len(self.held.pool.names) // len(self.spec.models) // self._gpus)
        self._extra: dict[int, tuple[Engine | Build, Held]] = {}  # by the source's id
        self._retired: set[int] = set()
        self._lost = 0

    @property
    def devices(self) -> tuple[int, ...]:
        """All devices held now; see `engines.host.slots.Held`."""
        return (*self.held.devices, *(device for _, held in list(self._extra.values()) for device in held.devices))

    def step(self) -> None:
        """Release the devices of engines that have gone, and have replicas come or go."""
        for key, (source, held) in list(self._extra.items()):
            if self.engine.is_gone(source):
                held.release()
                del self._extra[key]
                self._lost += key not in self._retired
        loaded = self.engine.serving > 0
        change = replica_change(
            have=self.engine.size,
            most=self._most if loaded else min(self._most, self._most_at_first),
            paid=replicas_paid(self.planned.model, self.spec.policy, self.engine.waiting) if loaded else self._most,
            lacking=devices_lacking(self.held.pool),
            gpus=self._gpus,
        )
        for _ in range(-change):
            if (leaving := self.engine.retire()) is not None:
                self._retired.add(id(leaving))
                _, held = self._extra.get(id(leaving), (leaving, self.held))
                log.info(f"{self.label}: a replica leaves, others wait for {devices_said(held.devices)}")
        for _ in range(change if self._lost < MOST_LOST else 0):
            if (idle := take_idle(self.held.pool, self._gpus, f"{self.label} (replica)")) is None:
                return
            self._join(idle)

    def release(self) -> None:
        """Release the devices of all replicas but the first."""
        for _, held in self._extra.values():
            held.release()
        self._extra.clear()

    def _join(self, held: Held) -> None:
        source = self.build(held)
        try:
            self.engine.add(source)
        except EngineDiedError:  # it was closed meanwhile
            held.release()
            return
        self._extra[id(source)] = (source, held)
        log.info(f"{self.label}: replica {self.engine.size} loads on idle {devices_said(held.devices)}")


def devices_said(devices: Sequence[int]) -> str:
    """Name devices as people do: "device 2", "devices 2, 3"."""
    return f"device{'s' * (len(devices) > 1)} {', '.join(map(str, devices))}"
