"""Parity with lm-evaluation-harness: the same tasks through its own Hugging Face backend and through ours, sample by sample.

``make parity`` runs both in float32 on the demo's checkpoint and prints, for each task: docs, requests and targets that are the
same string, answers that are the same, the largest difference of a log-probability, and the scores. Ends with exit code 1 where a
request, an answer or a discrete score differs. Tasks over real data need the files of ``STEELYARD_TEST_DATA``; without them only
the bundled ones and RULER's are compared, which is said.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from core.benchmark.benchmark import Chat, load_benchmark
from core.benchmark.datasets.made import Tokenizer
from core.benchmark.prepare import chat_renderer
from core.campaign import BenchmarkSpec
from core.request import Generated, Request, Response, strings_of
from core.sample import Sample, Scoring
from core.tables import Row, Table, numbers, texts
from engines.engine import EngineConfig
from engines.process.lightweight import LightweightEngine
from perf.harness import Harness, Theirs

WINDOW = 8192  # of the checkpoint; RULER's prompts are 4,096 tokens long, and a little more
SEED = 1234
SHAPES = (
    "multiple_inputs",
    "nested",
    "own_results",
    "own_filter",
    "gen_prefix",
    "majority_vote",
    "mutual_information",
    "many_targets",
)
SHAPED = 20  # docs of each
RULER = ("niah_single_1", "ruler_vt")  # those that need no network
LONG = 3  # docs of 4,096 tokens
# Aggregates of these are sums of logarithms: equal up to rounding, not to the last digit.
CONTINUOUS = ("perplexity", "bits_per_byte")
LOGPROB_TOLERANCE = 1e-3
CONTINUOUS_TOLERANCE = 1e-4  # relative


@dataclass(frozen=True)
class TaskSpec:
    """A task to compare, by name or YAML, on its first ``limit`` docs; ``chat`` asks in the checkpoint's chat template.

    ``lengths`` are the tokens that RULER makes its docs of.
    """

    name: str
    limit: int
    chat: bool = False
    lengths: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """Name in the table."""
        return Path(self.name).stem + (" (chat)" if self.chat else "")

    @property
    def metadata(self) -> dict[str, Any]:
        """Arguments of the task's own code."""
        return {"max_seq_lengths": list(self.lengths)} if self.lengths else {}


@dataclass(frozen=True)
class Parity:
    """One task here and there. ``scores`` are (metric, theirs, ours) of values and standard errors."""

    label: str
    kind: str
    docs: int
    requests: int
    same_requests: int
    same_targets: int
    answers: int
    same_answers: int
    logprob_difference: float  # NaN for generation
    scores: tuple[tuple[str, float, float], ...]

    @property
    def holds(self) -> bool:
        """Whether nothing differs that must not."""
        return (
            self.same_requests == self.requests
            and self.same_targets == self.docs
            and self.same_answers == self.answers
            and not self.logprob_difference > LOGPROB_TOLERANCE
            and all(_alike(*score) for score in self.scores)
        )


def _alike(metric: str, theirs: float, ours: float) -> bool:
    if any(word in metric for word in CONTINUOUS):
        return math.isclose(theirs, ours, rel_tol=CONTINUOUS_TOLERANCE)
    return theirs == ours


def tasks(limit: int) -> list[TaskSpec]:
    """Tasks over real data where its files are there, and the bundled ones."""
    from tests.core.tasks.rows import DATA

    root = Path(__file__).resolve().parents[1]
    real = ("gsm8k_short", "bbh_boolean_expressions", "bbh_snarks", "mmlu_local", "gsm8k_last_word", "gsm8k_prose")
    found = [TaskSpec(str(root / "tests" / "core" / "tasks" / f"{name}.yaml"), limit) for name in real]
    shaped = [root / "perf" / "benchmarks" / f"parity_{name}.yaml" for name in SHAPES]
    found += [TaskSpec(str(path), min(limit, SHAPED)) for path in shaped]
    found = found if DATA.is_dir() else []
    if not found:
        print(f"No benchmark files at {DATA}: only the bundled tasks are compared", file=sys.stderr)
    bundled = [TaskSpec(f"steelyard_{name}", limit) for name in ("arithmetic", "facts", "letters", "prose")]
    return [
        *found,
        *bundled,
        TaskSpec("steelyard_arithmetic", limit, chat=True),
        TaskSpec("steelyard_facts", limit, chat=True),
        *([TaskSpec(str(shaped[SHAPES.index("gen_prefix")]), min(limit, SHAPED), chat=True)] if found else []),
        *(TaskSpec(name, min(limit, LONG), lengths=(4096,)) for name in RULER),
    ]


def ours(
    engine: LightweightEngine, spec: TaskSpec, chat: Chat | None, tokenizer: Tokenizer
) -> tuple[list[Request], dict[str, Response], Scoring]:
    """Ask and score as a campaign does."""
    asked = BenchmarkSpec(name=spec.name, limit=spec.limit, metadata=spec.metadata)
    benchmark = load_benchmark(asked, chat=chat, seed=SEED, tokenizer=tokenizer)
    requests = benchmark.requests()
    responses = {response.id: response for response in engine.run(requests)}
    return requests, responses, benchmark.score(responses)


def compare(
    spec: TaskSpec, theirs: Theirs, requests: list[Request], responses: dict[str, Response], scoring: Scoring
) -> Parity:
    """Compare one task."""
    differences = [
        abs(response.logprob - theirs.logprob(asked))
        for request in requests
        if (asked := strings_of(request)) in theirs.answers
        and not isinstance(response := responses[request.id], Generated)
    ]
    samples = {(sample.task, sample.doc_id): sample for sample in scoring.samples}
    return Parity(
        label=spec.label,
        kind=theirs.kind,
        docs=len(samples),
        requests=len(requests),
        same_requests=sum((strings_of(request) in theirs.answers) for request in requests)
        if len(requests) == theirs.asked
        else 0,
        same_targets=sum(samples[key].target == target for key, target in theirs.targets.items()),
        answers=len(samples),
        same_answers=sum(_same_answer(samples[key], answer) for key, answer in theirs.filtered.items()),
        logprob_difference=max(differences, default=math.nan),
        scores=tuple(
            (f"{score.task} {score.metric}{what}", theirs.scores[score.task, score.metric + what, score.filter], value)
            for score in scoring.scores
            for what, value in (("", score.value), ("_stderr", score.stderr))
            if value is not None and (what == "" or not any(word in score.metric for word in CONTINUOUS))
        ),
    )


def _same_answer(sample: Sample, theirs: dict[str, Any]) -> bool:
    """Whether the filtered answers, or the choice and what is greedy, are the same."""
    if sample.texts:
        return sample.filtered == theirs
    (answers,) = theirs.values()
    if isinstance(answers[0], float):  # a text scored as a whole: no answer but its log-probability
        return abs(answers[0] - sample.logprobs[0]) < LOGPROB_TOLERANCE
    best = max(range(len(answers)), key=lambda index: answers[index][0])
    return best == max(range(len(answers)), key=lambda index: sample.logprobs[index]) and sample.is_greedy == tuple(
        greedy for _, greedy in answers
    )


@contextmanager
def opened(model: Path) -> Iterator[LightweightEngine]:
    """A lightweight engine in float32."""
    engine = LightweightEngine(
        EngineConfig(model=str(model), dtype="float32", max_model_len=WINDOW, device="cpu", gpu_memory_gb=4)
    )
    engine.open()
    try:
        yield engine
    finally:
        engine.close()


def table(found: list[Parity]) -> Table:
    """Return the table that people read."""
    rows = []
    for each in found:
        _, there, here = each.scores[0]
        cells = (
            each.label,
            each.kind,
            str(each.docs),
            f"{each.same_requests}/{each.requests}",
            f"{each.same_targets}/{each.docs}",
            f"{each.same_answers}/{each.answers}",
            "" if math.isnan(each.logprob_difference) else f"{each.logprob_difference:.1e}",
            f"{there:.6f}",
            f"{here:.6f}",
            "equal"
            if each.holds
            else f"DIFFERS: {'; '.join(name for name, *values in each.scores if not _alike(name, *values)) or 'see the counts'}",
        )
        rows.append(Row(cells))
    counts = numbers(
        "docs", "same requests", "same targets", "same answers", "max |Δ logprob|", "score there", "score here"
    )
    title = "Parity with lm-evaluation-harness (its Hugging Face backend), float32"
    return Table(title, (*texts("task", "requests of type"), *counts, *texts("")), rows)


def main() -> int:
    """Run both sides and print the table. Returns 1 where they differ."""
    from tests.models import cache_directory, smollm2

    parser = argparse.ArgumentParser(prog="python -m perf.parity", description=__doc__)
    parser.add_argument("--limit", type=int, default=100, help="docs per task")
    parser.add_argument("--only", nargs="*", default=[], help="labels of tasks")
    asked = parser.parse_args()
    begun = time.monotonic()
    model = smollm2(cache_directory(Path(".demo") / "models"))
    chat = Chat(render=chat_renderer(model), tokenizer_name="smollm2")
    chosen = [spec for spec in tasks(asked.limit) if not asked.only or spec.label in asked.only]
    here = {}
    with opened(model) as engine:
        for spec in chosen:
            here[spec] = ours(engine, spec, chat if spec.chat else None, Tokenizer(str(model)))
    # Its window is one token shorter, as vLLM keeps room for one generated token.
    harness = Harness(model, window=WINDOW - 1, seed=SEED)
    found = []
    for spec in chosen:
        theirs = harness.evaluate(spec.name, limit=spec.limit, chat=spec.chat, metadata=spec.metadata)
        found.append(compare(spec, theirs, *here[spec]))
        print(f"{spec.label}: {'equal' if found[-1].holds else 'DIFFERS'}", file=sys.stderr)
    Console(width=200).print(table(found))
    print(f"in {time.monotonic() - begun:.0f} s")
    return 0 if all(each.holds for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
