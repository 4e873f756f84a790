"""Generation: tokens per second of our lightweight engine, as a campaign feeds it, against ``vllm.LLM.generate`` called by hand.

``python -m perf.generation`` loads both in processes of their own with the same engine arguments and has them take turns on the
same prompts with the same sampling parameters; while one works the other waits. One benchmark: one run here, one call there. Four
benchmarks: four runs at once here, as a campaign has them, four calls one after another there. Each turn asks new docs, so that
the prefix cache holds what a campaign's would. Outputs are compared: in float32 all of them should be the same.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

from core.errors import UserError
from core.request import Generate, Generated
from engines.process.lightweight import LightweightEngine
from perf.by_hand import Answers, ByHand
from perf.measure import Ratio, in_turns, load, ratio, report, say
from perf.workload import checkpoint, config, generation_benchmarks, requests_of, run_at_once

Docs = list[Generate]


def ours(engine: LightweightEngine, benchmarks: Sequence[Docs]) -> Answers:
    """Run benchmarks at once."""
    begun = time.monotonic()
    responses = run_at_once(engine, benchmarks)
    seconds = time.monotonic() - begun
    answers = [response for response in responses if isinstance(response, Generated)]
    return Answers(
        {answer.id: answer.text for answer in answers}, sum(answer.completion_tokens for answer in answers), seconds
    )


def same(ours: Sequence[Answers], theirs: Sequence[Answers]) -> str:
    """Say how many outputs are alike, character by character."""
    pairs = [
        (here.texts[key], text) for here, there in zip(ours, theirs, strict=True) for key, text in there.texts.items()
    ]
    return f"{sum(here == there for here, there in pairs)} of {len(pairs)} outputs alike"


def compare(
    what: str, target: str, engine: LightweightEngine, hand: ByHand, turns: Sequence[Sequence[Docs]]
) -> list[Ratio]:
    """Have both answer each of ``turns``, which are benchmarks of docs; the first turn warms up."""
    here, there = iter(turns[1:]), iter(turns[1:])
    ours(engine, turns[0])
    hand.generate(turns[0])
    ways: dict[str, Callable[[], Answers]] = {
        f"ours, {what}": lambda: ours(engine, next(here)),
        f"by hand, {what}": lambda: hand.generate(next(there)),
    }
    mine, other = in_turns(ways, len(turns) - 1).values()
    speeds = [[answers.tokens / answers.seconds for answers in way] for way in (mine, other)]
    paired = [own / hands for own, hands in zip(*speeds, strict=True)]
    tokens = statistics.median(answers.tokens for answers in other)
    note = f"{tokens:,.0f} tokens a turn; ratios of turns {min(paired):.2f} to {max(paired):.2f}; {same(mine, other)}"
    return [ratio(f"generation, {what}", "tokens/s", *speeds, better="higher", target=target, note=note)]


def in_parts(names: Sequence[str], docs: int, parts: int, shots: int) -> list[list[Docs]]:
    """Return ``parts`` turns of ``docs`` docs of each benchmark, no doc twice."""
    asked = [[r for r in requests_of(name, docs * parts, shots) if isinstance(r, Generate)] for name in names]
    if short := [name for name, requests in zip(names, asked, strict=True) if len(requests) < docs * parts]:
        raise UserError(f"--docs: {short[0]} has fewer than the {docs * parts} docs of {parts} turns; ask for fewer")
    return [[requests[part * docs : (part + 1) * docs] for requests in asked] for part in range(parts)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m perf.generation", description=__doc__)
    parser.add_argument(
        "--docs", type=int, default=24, help="docs of each benchmark in a turn; one benchmark has four times as many"
    )
    parser.add_argument("--shots", type=int, default=0, help="few-shot examples: more of them are more prefill a token")
    parser.add_argument("--runs", type=int, default=3, help="turns")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    asked = parser.parse_args()
    begun, before = time.monotonic(), load()
    names, parts = generation_benchmarks(), asked.runs + 1
    one = in_parts(names[:1], len(names) * asked.docs, parts, asked.shots)
    four = in_parts(names, asked.docs, parts, asked.shots)
    opened = config(checkpoint(), asked.dtype)
    engine = LightweightEngine(opened)
    with ByHand(opened) as hand:
        say("vLLM by hand is loaded")
        engine.open()
        say("ours is loaded")
        try:
            rows = compare("1 benchmark", "≥ 0.97", engine, hand, one)
            rows += compare(f"{len(names)} benchmarks", "≥ 1.0", engine, hand, four)
        finally:
            engine.close()
    report(f"Generation against vllm.LLM.generate by hand, {asked.dtype}", rows, begun, before)


if __name__ == "__main__":
    main()
