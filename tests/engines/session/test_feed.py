"""One feed for all runs of an engine: in order, bounded, fair, never dry; the engine is scripted."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
from collections.abc import Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from PIL import Image

from core.benchmark.images import encode_image
from core.errors import EngineDiedError
from core.request import Generate, Generated, Loglikelihood, Request, Response, Sampling, Scored
from engines.session.feed import FIRST_PLANNED, PLANNED_AT_ONCE, ClientRun, Feed, Work
from engines.session.in_flight import Room
from engines.session.tokens import EncodedPlan, Encoder, Generation, plan

SECONDS = 60
T = TypeVar("T")


class Words:
    """A tokenizer with a token for each word."""

    bos_token_id = eos_token_id = None

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def __call__(self, texts: Sequence[str], **_: Any) -> SimpleNamespace:
        ids = [[self._ids.setdefault(word, len(self._ids)) for word in re.findall(r"\s*\S+", text)] for text in texts]
        return SimpleNamespace(input_ids=ids)


class Engine:
    """Starts what it is fed and finishes it when told to, or at once where it does not ``hold``."""

    def __init__(self, *, hold: bool = True, tokens: int = 1) -> None:
        self.started: list[Work] = []
        self.most = (0, 0, 0)  # requests, scored prompt tokens and pixels at once
        self.cancelled: list[Work] = []
        self.fails: Callable[[Work], bool] = lambda work: False
        self.hold = hold
        self._tokens = tokens
        self._flying: dict[Work, asyncio.Future[None]] = {}
        self._news = asyncio.Event()

    @property
    def in_flight(self) -> list[Work]:
        return list(self._flying)

    async def serve(self, work: Work) -> list[Response]:
        self.started.append(work)
        self._news.set()
        self._flying[work] = asyncio.get_running_loop().create_future()
        tokens, pixels = (sum(each.size[kind] for each in self._flying) for kind in (0, 1))
        self.most = tuple(map(max, self.most, (len(self._flying), tokens, pixels)))  # type: ignore[assignment]
        try:
            if self.hold:
                await self._flying[work]
            else:
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled.append(work)
            raise
        finally:
            del self._flying[work]
        if self.fails(work):
            raise EngineDiedError("the engine is gone")
        if isinstance(work.item, Generation):
            return [Generated(work.item.request.id, "", "length", len(work.item.prompt), self._tokens)]
        part = Scored("", -1.0, True, tokens=1, prompt_tokens=1)
        return [response for span in work.item.spans if (response := work.tallies[span.owner].add(part))]

    def finish(self, count: int) -> None:
        """Finish those that were started first."""
        for flying in list(self._flying.values())[:count]:
            flying.set_result(None)

    async def has_started(self, count: int) -> None:
        """Wait until ``count`` were started in all."""
        async with asyncio.timeout(SECONDS):
            while len(self.started) < count:
                self._news.clear()
                await self._news.wait()

    def names(self) -> list[str]:
        """First letters of what was asked, in the order it was started."""
        return [name_of(work) for work in self.started]


def name_of(work: Work) -> str:
    if isinstance(work.item, Generation):
        return work.item.request.id[0]
    return next(iter(work.tallies.values())).request.id[0]


class Planner:
    """Plans with one token a word, and counts."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self._encoder = Encoder(Words())

    def __call__(self, requests: Sequence[Request]) -> EncodedPlan:
        self.sizes.append(len(requests))
        assert self.gate.wait(SECONDS)
        if any(request.id.startswith("!") for request in requests):
            raise OverflowError("no such text")
        return plan(requests, self._encoder, 10_000)


def generations(name: str, count: int, max_tokens: int = 1, words: int = 1) -> list[Request]:
    text = " word" * words
    return [Generate(f"{name}{n}", f"{n:06}{text}", Sampling(max_tokens=max_tokens)) for n in range(count)]


def scores(name: str, count: int, words: int = 9) -> list[Request]:
    text = " word" * words
    return [Loglikelihood(f"{name}{n}", f"{n:06}{text}", " one two") for n in range(count)]


async def answers(feed: Feed, requests: Sequence[Request], client: str = "") -> list[str]:
    """Ids of all responses of a run."""
    run = feed.add(requests, client)
    try:
        return await answered(run, len(requests))
    finally:
        await feed.drop(run)


async def answered(run: ClientRun, count: int) -> list[str]:
    async with asyncio.timeout(SECONDS):
        return [(await run.response()).id for _ in range(count)]


async def planned(feed: Feed) -> None:
    """Wait until the feed has looked ahead as far as it does."""
    async with asyncio.timeout(SECONDS):
        while feed._planning is not None:
            await asyncio.wait([feed._planning])


def scenario(body: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return asyncio.run(body())


def test_each_run_gets_its_own_responses() -> None:
    """Also where the runs' ids and requests are the same, and where some cannot be served."""

    async def body() -> None:
        feed = Feed(Planner(), Engine(hold=False).serve, Room(8, 1000))
        requests = [
            *generations("a", 200),
            *scores("b", 200),
            Loglikelihood("c", "a", ""),
            *generations("d", 1, 20_000),
        ]
        found = await asyncio.gather(*(answers(feed, requests, client) for client in ("", "", "other")))
        assert [sorted(ids) for ids in found] == [sorted(request.id for request in requests)] * 3
        await feed.close("over")

    scenario(body)


def test_runs_of_a_client_are_one_stream_with_long_generations_first() -> None:
    async def body() -> list[str]:
        planner, engine = Planner(), Engine(hold=False)
        feed = Feed(planner, engine.serve, Room(1, 1000))
        planner.gate.clear()
        first = asyncio.create_task(answers(feed, generations("x", 1)))  # the others arrive while it is planned
        await asyncio.sleep(0)
        runs = (scores("s", 3), generations("b", 3, 20), generations("c", 3, 10), generations("a", 2, 30))
        others = [asyncio.create_task(answers(feed, requests)) for requests in runs]
        await asyncio.sleep(0)
        planner.gate.set()
        await asyncio.gather(first, *others)
        return engine.names()

    assert "".join(scenario(body)) == "xaabbbcccsss"


def test_scores_of_benchmarks_with_one_header_are_neighbours() -> None:
    async def body() -> list[str]:
        engine, planner = Engine(hold=False), Planner()
        feed = Feed(planner, engine.serve, Room(1, 1000))
        planner.gate.clear()
        first = asyncio.create_task(answers(feed, generations("x", 1)))
        await asyncio.sleep(0)
        headers = {"a": "header one", "b": "header two", "c": "header one"}
        others = [
            asyncio.create_task(
                answers(feed, [Loglikelihood(f"{name}{n}", f"{head} {n}", " yes no") for n in range(4)])
            )
            for name, head in headers.items()
        ]
        await asyncio.sleep(0)
        planner.gate.set()
        await asyncio.gather(first, *others)
        return [headers.get(name, "") for name in engine.names()[1:]]

    names = scenario(body)
    assert sum(before != after for before, after in itertools.pairwise(names)) == 1


def test_all_runs_share_one_room() -> None:
    """Four runs of two clients put no more in flight than one."""

    async def body() -> tuple[int, int, int]:
        engine = Engine(hold=False)
        feed = Feed(Planner(), engine.serve, Room(6, 25, 20_000))
        png = encode_image(Image.new("L", (100, 100))).png
        seen: list[Request] = [Generate(f"i{n}", "see", Sampling(max_tokens=1), images=(png,)) for n in range(40)]
        runs = (scores("a", 100), generations("b", 100), seen, scores("c", 100))
        await asyncio.gather(*(answers(feed, requests, f"{n % 2}") for n, requests in enumerate(runs)))
        return engine.most

    requests, tokens, in_images = scenario(body)
    assert requests <= 6
    assert (tokens, in_images) == (22, 20_000)  # a score has 11 tokens; two of them fit into 25


def test_the_engine_is_full_while_any_run_has_work() -> None:
    async def body() -> None:
        engine = Engine()
        feed = Feed(Planner(), engine.serve, Room(10, 10_000))
        runs = [feed.add(requests) for requests in (scores("a", 700), generations("b", 700), scores("c", 30))]
        left = 1430
        while left >= 10:
            await engine.has_started(1430 - left + 10)
            assert len(engine.in_flight) == 10
            engine.finish(10)
            left -= 10
        for run in runs:
            await feed.drop(run)

    scenario(body)


def test_the_look_ahead_is_bounded_and_begins_small() -> None:
    async def body() -> list[int]:
        planner, engine = Planner(), Engine()
        feed = Feed(planner, engine.serve, Room(4, 10_000))
        run = feed.add(generations("a", 50_000))
        await engine.has_started(4)
        await planned(feed)
        begun = list(planner.sizes)
        engine.finish(4)
        await engine.has_started(8)
        await planned(feed)
        assert planner.sizes == begun
        await feed.drop(run)
        return begun

    sizes = scenario(body)
    assert sizes[0] == FIRST_PLANNED
    assert max(sizes) <= PLANNED_AT_ONCE
    assert PLANNED_AT_ONCE <= sum(sizes) - 4 < 2 * PLANNED_AT_ONCE


def test_the_engine_works_while_the_next_portion_is_planned() -> None:
    async def body() -> None:
        planner, engine = Planner(), Engine(hold=False)
        feed = Feed(planner, engine.serve, Room(10, 10_000))
        run = feed.add(generations("a", 1000))
        await engine.has_started(1)
        planner.gate.clear()  # the next portion takes for ever
        assert len(set(await answered(run, FIRST_PLANNED))) == FIRST_PLANNED
        planner.gate.set()
        assert len(await answered(run, 1000 - FIRST_PLANNED)) == 1000 - FIRST_PLANNED
        await feed.drop(run)

    scenario(body)


def test_a_client_that_comes_later_with_little_is_not_stuck() -> None:
    async def body() -> list[str]:
        engine = Engine(hold=False)
        feed = Feed(Planner(), engine.serve, Room(8, 100_000))
        large = feed.add(generations("a", 20_000), "first")
        await answered(large, 3000)
        engine.started.clear()
        await answers(feed, generations("b", FIRST_PLANNED), "second")
        await feed.drop(large)
        return engine.names()

    names = scenario(body)
    assert names.count("b") == FIRST_PLANNED
    assert names[names.index("b") :].count("a") <= FIRST_PLANNED + 8


def test_clients_share_by_tokens() -> None:
    """Requests four times as long get a quarter as many turns."""

    async def body() -> list[str]:
        engine = Engine()
        feed = Feed(Planner(), engine.serve, Room(2, 100_000))
        runs = [feed.add(scores("a", 400, words=16), "one"), feed.add(scores("b", 400, words=70), "two")]
        await planned(feed)
        for begun in range(2, 302, 2):
            await engine.has_started(begun)
            engine.finish(2)
        for run in runs:
            await feed.drop(run)
        return engine.names()

    names = scenario(body)
    assert names.count("a") == pytest.approx(4 * names.count("b"), rel=0.1)


def test_a_generation_counts_as_long_as_they_turn_out() -> None:
    """A limit far above what is generated costs no turns once that is known."""

    async def body() -> list[str]:
        engine = Engine(tokens=9)
        feed = Feed(Planner(), engine.serve, Room(2, 100_000))
        runs = [feed.add(generations("a", 500, max_tokens=1000), "one"), feed.add(generations("b", 500, 10), "two")]
        await planned(feed)
        for begun in range(2, 502, 2):
            await engine.has_started(begun)
            engine.finish(2)
        for run in runs:
            await feed.drop(run)
        return engine.names()[200:]

    names = scenario(body)
    assert names.count("a") == pytest.approx(names.count("b"), rel=0.1)


def test_an_idle_client_saves_nothing_up() -> None:
    async def body() -> list[str]:
        engine = Engine(hold=False)
        feed = Feed(Planner(), engine.serve, Room(2, 100_000))
        idle = feed.add(generations("i", 1), "one")
        await answered(idle, 1)
        await answers(feed, generations("x", 1000), "two")
        engine.hold = True
        engine.started.clear()
        runs = [feed.add(generations("a", 200), "two"), feed.add(generations("b", 200), "one")]
        await planned(feed)
        for begun in range(2, 202, 2):
            await engine.has_started(begun)
            engine.finish(2)
        for run in (*runs, idle):
            await feed.drop(run)
        return engine.names()

    assert scenario(body).count("a") == pytest.approx(100, rel=0.1)


def test_a_dropped_run_leaves_the_others_undisturbed() -> None:
    async def body() -> None:
        engine = Engine()
        feed = Feed(Planner(), engine.serve, Room(4, 10_000))
        dropped, kept = feed.add(generations("a", 300, 20)), feed.add(generations("b", 30, 10))
        await engine.has_started(4)
        await planned(feed)
        assert engine.names() == ["a"] * 4
        await feed.drop(dropped)
        assert len(engine.cancelled) == 4
        for begun in range(8, 32, 4):
            await engine.has_started(begun)
            engine.finish(4)
        ids = await answered(kept, 24)
        assert all(id.startswith("b") for id in ids)
        assert engine.names().count("a") == 4
        await feed.drop(dropped)
        await feed.drop(kept)

    scenario(body)


def test_what_was_dropped_before_it_began_makes_room() -> None:
    async def body() -> None:
        engine = Engine()
        feed = Feed(Planner(), engine.serve, Room(2, 10))
        first = feed.add(scores("x", 1))
        await engine.has_started(1)
        blocked = feed.add(scores("a", 1))  # it waits for the tokens of the first
        await planned(feed)
        brief = feed.add(generations("b", 1))  # it waits behind
        await planned(feed)
        await feed.drop(blocked)
        assert len(brief.tasks) == 1
        await feed.drop(brief)
        last = feed.add(generations("c", 1))
        await engine.has_started(2)
        assert engine.names() == ["x", "c"]
        await feed.drop(first)
        await feed.drop(last)

    scenario(body)


def test_a_run_dropped_while_it_is_planned_starts_nothing() -> None:
    async def body() -> None:
        planner, engine = Planner(), Engine(hold=False)
        feed = Feed(planner, engine.serve, Room(4, 10_000))
        planner.gate.clear()
        run = feed.add(generations("a", 10))
        other = asyncio.create_task(answers(feed, generations("b", 10)))
        await asyncio.sleep(0)
        await feed.drop(run)
        planner.gate.set()
        await other
        assert set(engine.names()) == {"b"}

    scenario(body)


def test_a_fault_ends_its_own_run_alone() -> None:
    """Whether it comes from the engine or from planning."""

    async def body() -> None:
        engine = Engine(hold=False)
        engine.fails = lambda work: name_of(work) == "x"
        feed = Feed(Planner(), engine.serve, Room(4, 10_000))
        fine = asyncio.create_task(answers(feed, generations("a", 900)))
        with pytest.raises(EngineDiedError, match="gone"):
            await answers(feed, generations("x", 100))
        with pytest.raises(OverflowError, match="no such text"):
            await answers(feed, generations("!", 100))
        assert len(await fine) == 900
        assert engine.in_flight == []

    scenario(body)


def test_the_end_of_the_engine_ends_every_run() -> None:
    async def body() -> None:
        engine = Engine()
        feed = Feed(Planner(), engine.serve, Room(4, 10_000))
        runs = [feed.add(generations("a", 3000), client) for client in ("one", "one", "two")]
        await engine.has_started(4)
        feed.end_all("it is gone")
        for run in runs:
            with pytest.raises(EngineDiedError, match="gone"):
                await run.response()
            await feed.drop(run)
        assert len(engine.cancelled) == 4
        assert engine.in_flight == []

    scenario(body)


def test_closing_ends_every_run_and_waits_for_what_is_in_flight() -> None:
    async def body() -> None:
        engine = Engine()
        feed = Feed(Planner(), engine.serve, Room(4, 10_000))
        runs = [feed.add(generations("a", 3000)), feed.add(generations("b", 3000), "two")]
        await engine.has_started(4)
        await feed.close("closed")
        assert engine.in_flight == []
        assert len(engine.started) == 4
        for run in runs:
            with pytest.raises(EngineDiedError, match="closed"):
                await run.response()
            await feed.drop(run)

    scenario(body)
    for thread in threading.enumerate():
        if thread.name.startswith("encode"):
            thread.join(SECONDS)
            assert not thread.is_alive()
