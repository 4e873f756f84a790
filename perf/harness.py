"""lm-evaluation-harness as its users run it, with everything it asks and answers kept."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 8


@dataclass(frozen=True)
class Theirs:
    """One evaluation by the harness.

    ``answers`` maps the strings of each request to its raw response; ``targets`` and ``filtered`` map (task, doc id) to the target
    and to filter → answer after it; ``scores`` maps (task or group, metric, filter) to a number.
    """

    kind: str
    asked: int
    answers: dict[tuple[str, ...], Any]
    targets: dict[tuple[str, int], str]
    filtered: dict[tuple[str, int], dict[str, Any]]
    scores: dict[tuple[str, str, str], float]

    def logprob(self, asked: tuple[str, ...]) -> float:
        """Log-probability of a scored request."""
        answer = self.answers[asked]
        return float(answer[0] if isinstance(answer, tuple) else answer)


class Harness:
    """The harness's Hugging Face backend on a checkpoint, in float32 on the CPU."""

    def __init__(self, model: Path, *, window: int, seed: int) -> None:
        from lm_eval.models.huggingface import HFLM

        recorded: list[tuple[str, tuple[str, ...], Any]] = []

        class Recording(HFLM):
            def _keep(self, kind: str, requests: Any, strings: int, answers: Any) -> Any:
                recorded.extend(
                    (kind, request.args[:strings], answer) for request, answer in zip(requests, answers, strict=True)
                )
                return answers

            def loglikelihood(self, requests: Any, *args: Any, **kwargs: Any) -> Any:
                answers = super().loglikelihood(requests, *args, **kwargs)
                return self._keep("loglikelihood", requests, 2, answers)

            def loglikelihood_rolling(self, requests: Any, *args: Any, **kwargs: Any) -> Any:
                answers = super().loglikelihood_rolling(requests, *args, **kwargs)
                return self._keep("loglikelihood_rolling", requests, 1, answers)

            def generate_until(self, requests: Any, *args: Any, **kwargs: Any) -> Any:
                answers = super().generate_until(requests, *args, **kwargs)
                return self._keep("generate_until", requests, 1, answers)

        self._recorded, self._seed, self._pretrained = recorded, seed, str(model)
        self._model = Recording(
            pretrained=str(model), device="cpu", dtype="float32", max_length=window, batch_size=BATCH
        )

    def evaluate(
        self, name: str, *, limit: int, chat: bool = False, metadata: Mapping[str, Any] | None = None
    ) -> Theirs:
        """Evaluate a task of the harness's catalogue, a bundled one, or a YAML by path, as ``lm_eval.simple_evaluate`` does.

        ``metadata`` is the command line's ``--metadata``: arguments of the tasks' code, beside those of the model. Prompts of tasks
        that have it go one by one: of 4,096 tokens, eight at once take 15 GB.
        """
        from lm_eval.evaluator import evaluate
        from lm_eval.tasks import TaskManager

        from core.benchmark.find import entries

        known = entries().get(name)
        path = known.path if known and known.path else Path(name)
        arguments = {"pretrained": self._pretrained, **metadata} if metadata else {}
        manager = TaskManager(include_path=str(path.parent), include_defaults=False, metadata=arguments)
        random.seed(self._seed)
        np.random.seed(self._seed)
        loaded = manager.load(known.name if known else path.stem)
        for task in loaded["tasks"].values():
            task.set_fewshot_seed(seed=self._seed)
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
        self._recorded.clear()
        self._model.batch_size_per_gpu = 1 if metadata else BATCH
        result: Any = evaluate(
            self._model,
            loaded,
            limit=limit,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
            bootstrap_iters=1000,
        )
        kinds = {task.OUTPUT_TYPE for task in loaded["tasks"].values()}
        targets: dict[tuple[str, int], str] = {}
        filtered: dict[tuple[str, int], dict[str, Any]] = {}
        for task, samples in result["samples"].items():
            for sample in samples:
                key = (task, sample["doc_id"])
                targets[key] = str(sample["target"])
                filtered.setdefault(key, {})[sample["filter"]] = _answer(sample["filtered_resps"])
        scores = {}
        for kind in ("results", "groups"):
            for task, metrics in result.get(kind, {}).items():
                for metric, value in metrics.items():
                    if "," in metric and isinstance(value, int | float):
                        metric_name, filter_name = metric.rsplit(",", 1)
                        scores[task, metric_name, filter_name] = float(value)
        return Theirs(
            kind="/".join(sorted(kinds)),
            asked=len(self._recorded),
            answers={strings: answer for _, strings, answer in self._recorded},
            targets=targets,
            filtered=filtered,
            scores=scores,
        )


def _answer(filtered: list[Any]) -> Any:
    """Return the answer of a generation as text, as the samples hold it; all log-probabilities otherwise."""
    first = filtered[0]
    if isinstance(first, str):
        return first
    if isinstance(first, tuple | float):
        return filtered
    return json.dumps(first, ensure_ascii=False, default=str)
