"""The feed of one engine: requests of all runs of all clients, in order, as far as there is room. Knows no vLLM."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from heapq import merge
from typing import Any

from core.errors import EngineDiedError
from core.request import Generated, Request, Response
from engines.session.in_flight import Room, Tally, pixels
from engines.session.order import RequestQueue, take_next
from engines.session.tokens import EncodedPlan, Generation, Prefill, tokens_key

FIRST_PLANNED = 64  # requests; few, because the engine waits for the first of a client
PLANNED_AT_ONCE = 512  # requests encoded and sorted together, while the engine works on those before


@dataclass(eq=False)
class Client:
    """A holder of an equal share of the engine, with all its runs.

    ``given`` counts tokens handed to the engine, generated ones as far as ``generated`` of ``allowed`` lets expect.
    """

    runs: list[ClientRun] = field(default_factory=list)
    ready: deque[Work] = field(default_factory=deque)
    planned: int = 0
    given: float = 0.0
    allowed: int = 0
    generated: int = 0

    @property
    def has_work(self) -> bool:
        """Whether anything is still to be started."""
        return bool(self.ready) or any(run.is_waiting for run in self.runs)

    @property
    def planned_next(self) -> int:
        """Number of requests to plan next: ever more, so that the engine starts soon and then is never short."""
        return min(PLANNED_AT_ONCE, max(FIRST_PLANNED, self.planned))

    def expects(self, work: Work) -> float:
        """Return the number of tokens that ``work`` is going to take."""
        share = self.generated / self.allowed if self.allowed else 1.0
        return len(work.item.prompt) + share * work.max_tokens

    def learn(self, work: Work, responses: Sequence[Response]) -> None:
        """Note how many tokens the answers took."""
        for response in responses:
            if isinstance(response, Generated) and response.error is None:
                self.allowed += work.max_tokens
                self.generated += response.completion_tokens


class ClientRun:
    """Some requests of one client, and their responses as they come."""

    def __init__(self, client: Client, requests: Sequence[Request]) -> None:
        self.client = client
        self.queue = RequestQueue(requests)
        self.is_waiting = bool(requests)  # for some of them to be planned
        self.tasks: set[asyncio.Task[list[Response]]] = set()
        self._responses: asyncio.Queue[Response | Exception] = asyncio.Queue()

    async def response(self) -> Response:
        """Wait for the next response. Raises what ended the run instead."""
        response = await self._responses.get()
        if isinstance(response, Exception):
            raise response
        return response

    def put(self, *responses: Response | Exception) -> None:
        """Hand responses, or what ends the run, to the caller."""
        for response in responses:
            self._responses.put_nowait(response)


@dataclass(frozen=True, eq=False)
class Work:
    """One request to the engine. ``tallies`` are those of the scores that a prefill adds to, by their index in its plan."""

    run: ClientRun
    item: Generation | Prefill
    tallies: dict[int, Tally] = field(default_factory=dict)

    @property
    def max_tokens(self) -> int:
        """Tokens that may be generated."""
        return self.item.request.sampling.max_tokens if isinstance(self.item, Generation) else 1

    @property
    def size(self) -> tuple[int, int]:
        """Prompt tokens whose log-probabilities come back, and pixels: what `Room` bounds."""
        if isinstance(self.item, Generation):
            return 0, pixels(self.item.request.images)
        return len(self.item.prompt) if self.item.reads_prompt else 0, 0


def works(plans: Sequence[tuple[ClientRun, EncodedPlan]]) -> Iterator[Work]:
    """Yield the work of plans made together, in order across them. The order of a plan's prefills is kept."""
    generations = [Work(run, generation) for run, plan in plans for generation in plan.generations]
    yield from sorted(generations, key=lambda work: (-work.max_tokens, tokens_key(work.item.prompt)))
    prefills = []
    for run, plan in plans:
        tallies = {index: Tally(plan.requests[index], spans) for index, spans in plan.spans_of.items()}
        prefills.append([Work(run, prefill, tallies) for prefill in plan.prefills])
    yield from merge(*prefills, key=lambda work: tokens_key(work.item.prompt))


class Feed:
    """Keeps an engine supplied by all runs, without handing it everything at once.

    ``plan`` encodes some requests, on a thread of the feed's; ``serve`` has the engine do one piece of work. What is started shares
    one ``room``. Each client's requests go in the order of `engines.session.order`; among clients with work, next comes the one
    that was given the fewest tokens since both had some. Belongs to the event loop that it is used from.
    """

    def __init__(
        self,
        plan: Callable[[Sequence[Request]], EncodedPlan],
        serve: Callable[[Work], Coroutine[Any, Any, list[Response]]],
        room: Room,
    ) -> None:
        self._plan = plan
        self._serve = serve
        self._room = room
        self._clients: dict[str, Client] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._planning: asyncio.Task[None] | None = None

    def add(self, requests: Sequence[Request], client: str = "") -> ClientRun:
        """Begin a run, to be ended by `drop`."""
        owner = self._clients.setdefault(client, Client())
        if not owner.has_work:
            owner.planned = 0
            # A client saves up no shares while idle.
            others = [other.given for other in self._clients.values() if other.has_work]
            owner.given = max(owner.given, min(others, default=0.0))
        run = ClientRun(owner, requests)
        owner.runs.append(run)
        self._advance()
        return run

    async def drop(self, run: ClientRun) -> None:
        """End a run: what is not started never will be, what is in flight is cancelled before this returns."""
        self._end(run)
        self._advance()
        if run.tasks:
            await asyncio.wait(run.tasks)

    def end_all(self, reason: str) -> None:
        """End all runs with `core.errors.EngineDiedError`."""
        for client in list(self._clients.values()):
            for run in list(client.runs):
                self._end(run, EngineDiedError(reason))

    async def close(self, reason: str) -> None:
        """End all runs with `core.errors.EngineDiedError`; nothing of them is in flight when this returns."""
        tasks = set[asyncio.Task[Any]]().union(*(run.tasks for each in self._clients.values() for run in each.runs))
        self.end_all(reason)
        if self._planning is not None:
            self._planning.cancel()
            tasks.add(self._planning)
        if tasks:
            await asyncio.wait(tasks)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _end(self, run: ClientRun, error: Exception | None = None) -> None:
        client = run.client
        if run not in client.runs:
            return
        if error is not None:
            run.put(error)
        run.is_waiting = False
        client.runs.remove(run)
        client.ready = deque(work for work in client.ready if work.run is not run)
        if not client.runs:
            self._clients = {name: other for name, other in self._clients.items() if other is not client}
        for task in run.tasks:
            task.cancel()

    def _advance(self) -> None:
        """Start what there is room for, and plan what comes next."""
        while ready := [client for client in self._clients.values() if client.ready]:
            client = min(ready, key=lambda each: each.given)
            if not self._room.fits(*client.ready[0].size):
                break
            self._start(client, client.ready.popleft())
        if self._planning is None:
            short = [client for client in self._clients.values() if len(client.ready) < PLANNED_AT_ONCE]
            if short := [client for client in short if any(run.is_waiting for run in client.runs)]:
                self._planning = asyncio.create_task(self._plan_for(min(short, key=lambda each: len(each.ready))))

    def _start(self, client: Client, work: Work) -> None:
        self._room.enter(*work.size)
        client.given += client.expects(work)
        task = asyncio.create_task(self._serve(work))
        work.run.tasks.add(task)
        task.add_done_callback(partial(self._finish, work))  # called even where the task was cancelled before it began

    def _finish(self, work: Work, task: asyncio.Task[list[Response]]) -> None:
        self._room.leave(*work.size)
        work.run.tasks.discard(task)
        if not task.cancelled():
            error = task.exception()
            if isinstance(error, Exception):
                self._end(work.run, error)
            elif error is None:
                work.run.client.learn(work, task.result())
                work.run.put(*task.result())
        self._advance()

    async def _plan_for(self, client: Client) -> None:
        """Plan the client's next requests on the thread, and queue their work."""
        runs = [run for run in client.runs if run.is_waiting]
        most = client.planned_next
        try:
            loop = asyncio.get_running_loop()
            parts = await loop.run_in_executor(self._thread, self._plans, [run.queue for run in runs], most)
            plans = []
            for run, (plan, more) in zip(runs, parts, strict=True):
                run.is_waiting &= more
                if isinstance(plan, Exception):
                    self._end(run, plan)
                elif plan is not None and run in client.runs:
                    run.put(*plan.answered)
                    plans.append((run, plan))
            client.ready.extend(works(plans))
            client.planned += most
        except Exception as error:
            for run in runs:
                self._end(run, error)
        finally:
            self._planning = None
        self._advance()

    def _plans(self, queues: Sequence[RequestQueue], most: int) -> list[tuple[EncodedPlan | Exception | None, bool]]:
        """Return, for each queue, the plan of its requests that go next, and whether more wait. On the thread."""
        parts = []
        for queue, requests in zip(queues, take_next(queues, most), strict=True):
            plan: EncodedPlan | Exception | None = None
            if requests:
                try:
                    plan = self._plan(requests)
                except Exception as error:  # concerns this run alone
                    plan = error
            parts.append((plan, queue.peek() is not None))
        return parts
