"""LLM as judge: stored answers become a judge's requests, and its verdicts samples and a score of their own."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import SteelyardError
from core.request import Generate, Generated, Request, Response, Sampling
from core.sample import Sample, Score, Scoring
from core.scoring.judge_spec import JudgeSpec, render
from core.scoring.reasoning import split_reasoning, whole_texts
from core.scoring.statistics import estimate, spread

METRIC, FILTER = "judge", "verdict"


def judged_label(benchmark: str, judge: str) -> str:
    """Return a benchmark's name as scored by a judge."""
    return f"{benchmark}@{judge}"


def parse_verdict(text: str, spec: JudgeSpec) -> float | None:
    """Return the last rating in ``text``, or None where there is none between the lowest and the highest."""
    found = re.findall(spec.verdict, text)
    try:
        rating = float(found[-1]) if found else math.nan
    except ValueError:
        return None
    return rating if spec.low <= rating <= spec.high else None


@dataclass(frozen=True)
class Judging:
    """A benchmark's answers by one model, to be scored by a judge: asked and scored like a loaded benchmark.

    ``samples`` are the answers. ``render_chat`` applies the judge's chat template.
    """

    spec: JudgeSpec
    benchmark: str
    samples: tuple[Sample, ...]
    render_chat: Callable[..., str] | None = None
    system_prompt: str | None = None
    think_end_token: str | None = None

    @property
    def label(self) -> str:
        """Name in results."""
        return judged_label(self.benchmark, self.spec.model)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that fixes the verdicts, given the judge."""
        answers = [[sample.task, sample.doc_id, sample.prompt, sample.target, sample.texts] for sample in self.samples]
        digest = hashlib.sha256(json.dumps(answers, ensure_ascii=False).encode()).hexdigest()
        return {"answers": digest, "judge": self.spec.identity, "system_prompt": self.system_prompt}

    def requests(self) -> list[Request]:
        """Return one request per answer, ids ``<task>/<doc>/0/<repeat>``; docs that were not answered are not judged."""
        sampling = Sampling(max_tokens=self.spec.max_tokens)
        return [
            Generate(key, self._prompt(sample, text), sampling)
            for sample in self.samples
            for key, text in zip(_keys(sample), sample.texts, strict=True)
            if sample.is_answered
        ]

    def score(self, responses: Mapping[str, Response]) -> Scoring:
        """Return samples of verdicts and the mean rating.

        A sample without a verdict that can be read carries an error and counts in no score. Raises
        `core.errors.SteelyardError` where none has one.
        """
        judged = [self._judged(sample, responses) for sample in self.samples]
        samples = tuple(sample for sample, _ in judged)
        ratings = [sample.value for sample in samples if sample.value is not None]
        if not ratings:
            raise SteelyardError(f"{self.label}: no verdict could be read; the first said: {samples[0].error}")
        found = estimate(ratings)
        headline = Score(
            task=self.label,
            metric=METRIC,
            filter=FILTER,
            value=found.value,
            stderr=None if math.isnan(found.stderr) else found.stderr,
            docs=found.docs,
            higher_is_better=True,
            primary=True,
            group=len({sample.task for sample in samples}) > 1,
        )
        return Scoring(samples, (headline,), headline, spread(ratings for _, ratings in judged))

    def recall(self, samples: Iterable[Sample]) -> dict[str, Response]:
        """Return the verdicts that stored samples were made from, by request id; those that never came are missing."""
        found: dict[str, Response] = {}
        for sample in samples:
            for key, text in zip(_keys(sample), whole_texts(sample, self.think_end_token), strict=True):
                reason = "length" if sample.truncated else "stop"
                found[key] = Generated(key, text, reason, sample.prompt_tokens, sample.completion_tokens)
        return found

    def _prompt(self, sample: Sample, answer: str) -> str:
        doc = json.loads(sample.doc)
        values = {
            "prompt": sample.prompt,
            "answer": answer,
            "target": sample.target,
            "doc": doc if isinstance(doc, dict) else {},
            "low": f"{self.spec.low:g}",
            "high": f"{self.spec.high:g}",
        }
        asked = render(self.spec.prompt, values)
        if self.render_chat is None:
            return asked
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        return self.render_chat([*system, {"role": "user", "content": asked}])

    def _judged(self, sample: Sample, responses: Mapping[str, Response]) -> tuple[Sample, list[float]]:
        """Return the sample of a doc's verdicts, and the ratings that could be read."""
        answers = [responses.get(key) for key in _keys(sample)] if sample.is_answered else []
        verdicts = [answer for answer in answers if isinstance(answer, Generated)]
        parts = [
            split_reasoning(verdict.text, self.think_end_token) if self.think_end_token else ("", verdict.text)
            for verdict in verdicts
        ]
        ratings = [parse_verdict(text, self.spec) for _, text in parts]
        read = [rating for rating in ratings if rating is not None]
        value = sum(read) / len(read) if read and len(read) == len(answers) else None
        judged = Sample(
            task=sample.task,
            doc_id=sample.doc_id,
            doc=sample.doc,
            prompt=self._prompt(sample, sample.texts[0]) if sample.texts else sample.prompt,
            choices=(),
            target=sample.target,
            texts=tuple(text for _, text in parts),
            reasoning=tuple(reasoning for reasoning, _ in parts) if any(reasoning for reasoning, _ in parts) else (),
            filtered={} if value is None else {FILTER: f"{value:g}"},
            values={} if value is None else {f"{METRIC},{FILTER}": value},
            value=value,
            prompt_tokens=sum(verdict.prompt_tokens for verdict in verdicts),
            completion_tokens=sum(verdict.completion_tokens for verdict in verdicts),
            cached_tokens=sum(verdict.cached_tokens for verdict in verdicts),
            truncated=any(verdict.finish_reason == "length" for verdict in verdicts),
            dropped_tokens=sum(verdict.truncated for verdict in verdicts),
            error=None if value is not None else _fault(sample, verdicts, self.spec),
        )
        return judged, read


def _keys(sample: Sample) -> list[str]:
    return [f"{sample.task}/{sample.doc_id}/0/{repeat}" for repeat in range(len(sample.texts))]


def _fault(sample: Sample, verdicts: Sequence[Generated], spec: JudgeSpec) -> str:
    if not sample.is_answered:
        return f"not judged, it was not answered: {sample.error}"
    if failed := next((verdict.error for verdict in verdicts if verdict.error), None):
        return failed
    return f"no rating from {spec.low:g} to {spec.high:g} in the verdict"
