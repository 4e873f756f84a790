"""Taking down what a model does when; stored beside the results when it is done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from core.campaign import CampaignSpec
from core.cost.expected import Expected
from core.errors import StoreError
from core.monitor.timeline import PLAN, Span
from core.plan import PlannedModel
from core.results import open_store
from tasks.say import warn


class Timeline:
    """The phases of one model (`core.monitor.timeline.PHASES`). Any thread may add to it."""

    def __init__(self, model: str = "", part: str = "benchmarks", engine: str = "") -> None:
        self._of = (model, part, engine)
        self._spans: list[Span] = []

    @contextmanager
    def span(self, phase: str, benchmark: str = "") -> Iterator[None]:
        """Take down the time within the block, however it ends."""
        started = time.time()
        try:
            yield
        finally:
            self._spans.append(Span(*self._of, phase, benchmark, started, time.time()))

    def plan(self, starts: float, ends: float) -> None:
        """Take down when the model was expected to have devices."""
        self._spans.append(Span(*self._of, PLAN, "", starts, ends))

    def spans(self) -> list[Span]:
        """Return what was taken down so far, in order of ending."""
        return list(self._spans)


@asynccontextmanager
async def recorded(
    spec: CampaignSpec, run: str, planned: PlannedModel, part: str, expected: Expected | None = None
) -> AsyncIterator[Timeline]:
    """Give a timeline, begun with what was expected, that is stored at the end of the block. That it cannot be is a warning."""
    timeline = Timeline(planned.model.name, part, planned.placement.engine)
    if expected is not None:
        timeline.plan(expected.starts, expected.ends)
    try:
        yield timeline
    finally:
        await asyncio.shield(asyncio.to_thread(_store, spec, run, timeline))


def _store(spec: CampaignSpec, run: str, timeline: Timeline) -> None:
    try:
        open_store(spec.results).write_timeline(spec.name, run, timeline.spans())
    except StoreError as error:
        warn(f"a timeline is lost: {error}")
