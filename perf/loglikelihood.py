"""Log-likelihoods, ours against the harness's way, on one engine: ``python -m perf.loglikelihood``.

The harness's way (lm-eval's vLLM backend): every (context, continuation) pair is a full prefill with ``prompt_logprobs=1``,
longest first, all handed over at once, nothing read from the prefix cache. Ours: `engines.session.session`. Both in turns on
the same
engine, its prefix cache emptied before each; medians, and the largest difference of a log-probability.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.request import Loglikelihood
from engines.engine import EngineConfig
from perf import questions
from perf.measure import Ratio, load, ratio, report, say
from perf.workload import WINDOW, checkpoint, config


@dataclass(frozen=True)
class Answers:
    """(log-probability, is greedy) by request id, and the seconds they took."""

    seconds: float
    by_id: dict[str, tuple[float, bool]]

    def choices(self) -> dict[str, int]:
        """The most likely choice of each question."""
        found: dict[str, tuple[float, int]] = {}
        for key, (logprob, _) in self.by_id.items():
            question, choice = key.split("/")
            best = found.get(question)
            if best is None or logprob > best[0]:
                found[question] = (logprob, int(choice))
        return {question: choice for question, (_, choice) in found.items()}


# Each kind of work with a number of questions that takes the harness's way about a minute on one core.
KINDS: dict[str, tuple[Callable[[int], list[Loglikelihood]], int]] = {
    "letters, 5-shot": (questions.letters, 24),
    "texts, 10-shot, one header": (lambda n: questions.texts(n, shots=10), 24),
    "texts, 10-shot, a header each": (lambda n: questions.texts(n, shots=10, header_each=True), 12),
    "texts, 0-shot": (lambda n: questions.texts(n, shots=0), 100),
    "one doc, many choices": (questions.many_choices, 200),
}


TARGETS = {
    "letters, 5-shot": "≥ 12",
    "texts, 10-shot, one header": "≥ 13",
    "texts, 10-shot, a header each": "≥ 4",
    "texts, 0-shot": "≥ 1.5",
}


async def harness_way(session: Any, requests: Sequence[Loglikelihood], *, shortest_first: bool = False) -> Answers:
    """Score as lm-eval's vLLM backend does, on the session's own engine."""
    from vllm import SamplingParams
    from vllm.inputs.engine import tokens_input

    engine, encoder = session._engine, session._encoder
    await engine.collective_rpc("steelyard_score_rows", args=(False,))  # vLLM as it comes
    await engine.reset_prefix_cache()
    begun = time.monotonic()
    pairs = encoder.encode_pairs([(request.context, request.continuation) for request in requests])
    params = SamplingParams(temperature=0, prompt_logprobs=1, max_tokens=1, detokenize=False)
    order = sorted(range(len(pairs)), key=lambda index: len(pairs[index][0]) + len(pairs[index][1]))
    order = order if shortest_first else order[::-1]
    numbers = itertools.count()

    async def one(index: int) -> tuple[str, tuple[float, bool]]:
        context, continuation = pairs[index]
        tokens = (context + continuation)[-(WINDOW - 1) :]
        outputs = [each async for each in engine.generate(tokens_input(tokens), params, f"theirs-{next(numbers)}")]
        rows = outputs[-1].prompt_logprobs[-len(continuation) :]
        logprob, greedy = 0.0, True
        for token, row in zip(continuation, rows, strict=True):
            logprob += row[token].logprob
            greedy &= max(row.values(), key=lambda found: found.logprob).logprob == row[token].logprob
        return requests[index].id, (logprob, greedy)

    answers = dict(await asyncio.gather(*(one(index) for index in order)))
    return Answers(time.monotonic() - begun, answers)


async def our_way(session: Any, requests: Sequence[Loglikelihood]) -> Answers:
    """Score as the engines do."""
    await session._engine.collective_rpc("steelyard_score_rows", args=(session.scored_rows_only,))
    await session._engine.reset_prefix_cache()
    begun = time.monotonic()
    answers = {}
    async for response in session.run(requests):
        if response.error:
            raise RuntimeError(f"{response.id}: {response.error}")
        answers[response.id] = (response.logprob, response.is_greedy)
    return Answers(time.monotonic() - begun, answers)


async def compare(
    session: Any, label: str, requests: list[Loglikelihood], runs: int, exact: dict[str, int] | None
) -> Ratio:
    """Run both ways in turns. ``exact`` are the choices in float32, where known."""
    theirs, ours = [], []
    for _ in range(runs):
        theirs.append(await harness_way(session, requests))
        ours.append(await our_way(session, requests))
    again = await harness_way(session, requests, shortest_first=True)
    best = theirs[0].choices()
    apart = max(abs(ours[0].by_id[key][0] - logprob) for key, (logprob, _) in theirs[0].by_id.items())
    greedy = sum(ours[0].by_id[key][1] != other for key, (_, other) in theirs[0].by_id.items())
    note = (
        f"max |Δ logprob| {apart:.1e}; answers that differ: {differing(best, ours[0].choices())}, of the harness's way against "
        f"itself in another order {differing(best, again.choices())}; is_greedy differs: {greedy}"
    )
    if exact is not None:
        ways = ("ours", ours[0]), ("theirs", theirs[0]), ("theirs in another order", again)
        counts = ", ".join(f"{name} {differing(exact, way.choices())}" for name, way in ways)
        note += f"; other answers than in float32: {counts}"
    seconds = [[each.seconds for each in way] for way in (ours, theirs)]
    return ratio(f"{label}, {len(best)} questions", "s", *seconds, target=TARGETS.get(label, ""), note=note)


def differing(one: dict[str, int], other: dict[str, int]) -> int:
    """Count questions with another most likely choice."""
    return sum(other[question] != choice for question, choice in one.items())


async def in_float32(opened: EngineConfig, kinds: dict[str, int]) -> dict[str, dict[str, int]]:
    """Return the choices of every kind of work in float32, in which both ways agree."""
    from engines.session.session import Session

    session = await Session.open(replace(opened, dtype="float32"))
    try:
        return {label: (await our_way(session, KINDS[label][0](count))).choices() for label, count in kinds.items()}
    finally:
        await session.close()


async def measure(opened: EngineConfig, kinds: dict[str, int], runs: int, *, exact: bool) -> list[Ratio]:
    """Open one engine and compare every kind of work on it; with ``exact``, first another for the choices in float32."""
    from engines.session.session import Session

    right = await in_float32(opened, kinds) if exact else {}
    session = await Session.open(opened)
    try:
        warm = questions.texts(4, shots=1)
        await harness_way(session, warm)
        await our_way(session, warm)
        found = []
        for label, count in kinds.items():
            make, _ = KINDS[label]
            found.append(await compare(session, label, make(count), runs, right.get(label)))
            say(f"{label}: {found[-1].value:.2f}×")
        return found
    finally:
        await session.close()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m perf.loglikelihood", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of questions")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--only", nargs="*", default=[], help="kinds of work: " + "; ".join(KINDS))
    parser.add_argument("--exact", action="store_true", help="also count answers that float32 would not give")
    parser.add_argument("--model", type=Path, help="a checkpoint; SmolLM2-135M where left out")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    asked = parser.parse_args()
    begun, before = time.monotonic(), load()
    if not questions.DATA.is_dir():
        say(f"No benchmark files at {questions.DATA}: nothing to measure with")
        return 1
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    model = asked.model or checkpoint()
    opened = (
        config(model, asked.dtype, device="cuda", devices=(0,), gpu_memory_gb=None)
        if asked.device == "cuda"
        else config(model, asked.dtype, gpu_memory_gb=8)
    )
    kinds = {
        label: max(1, round(count * asked.scale))
        for label, (_, count) in KINDS.items()
        if not asked.only or label in asked.only
    }
    rows = asyncio.run(measure(opened, kinds, asked.runs, exact=asked.exact))
    report(f"Log-likelihoods, ours against the harness's way, {asked.dtype}", rows, begun, before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
