"""The cost model: seconds of loading, prefill and decode, by a model's size, the GPU and the degree of parallelism.

The priors are arithmetic (FLOPs of a token against those of the GPU, bytes against a disk); every cell in the store corrects them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from core.model.checkpoint import DTYPE_BYTES
from core.model.fleet import CPU
from core.model.placement import GB
from core.planning.cost.fit import LogFit, Point, Priors, fit

# Dense 16-bit tensor TFLOP/s as their makers state them, by a part of the name that the driver tells; longest match wins.
TFLOPS = {
    "GB200": 2500.0,
    "B300": 2500.0,
    "B200": 2250.0,
    "H200": 989.0,
    "H100": 989.0,
    "H800": 989.0,
    "H20": 148.0,
    "GH200": 989.0,
    "A100": 312.0,
    "A800": 312.0,
    "A40": 150.0,
    "A30": 165.0,
    "A10": 125.0,
    "A10G": 70.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "T4": 65.0,
    "V100": 125.0,
    "RTX 3090": 71.0,
    "RTX 4090": 165.0,
    "RTX 5090": 210.0,
    "RTX 6000 ADA": 182.0,
    "RTX A6000": 155.0,
    "MI250": 362.0,
    "MI300": 1307.0,
    "MI325": 1307.0,
    "MI355": 2300.0,
}
UNKNOWN_TFLOPS = 300.0
CPU_TFLOPS = 0.5
USED = 0.4  # share of those FLOPs that prefill reaches
DECODE = 4.0  # decoding a token in a large batch takes so many times what prefilling one takes
CACHED = 0.02  # reading a token from the prefix cache, in relation to computing it
# Per 1,000 tokens, whatever the model: Python, sampling, tokenising.
PREFILL_SECONDS, DECODE_SECONDS = 0.004, 0.05
SETUP_SECONDS = 5.0  # of each job's work: first batches, last stragglers
LOAD_SECONDS, LOAD_SECONDS_PER_GB = 25.0, 0.5
PARALLEL = 0.85  # n GPUs are as fast as n to this power, GPUs of one layer; stages:
STAGED = 0.6
WORK = Priors(
    parts={"setup": 1.0, "prefill": 0.7, "cached": 1.0, "decode": 0.7},
    features={"kind": 0.7, "model": 0.3, "name": 0.3, "size": 0.2, "parallel": 0.2},
    scatter=0.25,
)
LOAD = Priors(
    parts={"start": 0.7, "bytes": 0.8}, features={"kind": 0.5, "model": 0.3, "name": 0.3, "parallel": 0.2}, scatter=0.25
)
Triple = tuple[float, float, float]  # low, median, high
QUANTILE = 1.2816  # of the normal distribution: intervals hold 80%


@dataclass(frozen=True)
class Setup:
    """All that the speed depends on. ``model`` is the checkpoint's identity: the same one again is known better than another alike.

    So is another checkpoint under the same ``name``, as those of a training run night after night.
    """

    model: str
    weight_gb: float  # as loaded, all GPUs together
    parameters: float
    kind: str
    tensor_parallel: int = 1
    stages: int = 1
    name: str = ""


def setup_of(
    model: str, kind: str, weight_bytes: int, dtype: str, *, tensor_parallel: int = 1, stages: int = 1, name: str = ""
) -> Setup:
    """Return the setup of a placement, by its weights as loaded and their type."""
    parameters = weight_bytes / DTYPE_BYTES.get(dtype, 2)
    return Setup(model, weight_bytes / GB, parameters, kind, tensor_parallel, stages, name)


@dataclass(frozen=True)
class Tokens:
    """Tokens of all requests of a job: prompt tokens ``computed`` and ``cached``, and completion tokens ``decoded``."""

    computed: float
    cached: float
    decoded: float


@dataclass(frozen=True)
class Measured:
    """The times of a past job. ``ended`` is in unix seconds; ``load_seconds`` None where the model was found loaded."""

    setup: Setup
    tokens: Tokens
    seconds: float
    load_seconds: float | None
    ended: float
    foretold: float | None = None  # seconds, load included, as estimated before it ran, where that was stored


@dataclass(frozen=True)
class TimeEstimate:
    """A median with its 80% interval, from lognormal error; ``spread`` is the standard deviation of the logarithm."""

    value: float
    spread: float

    @property
    def triple(self) -> Triple:
        """The interval with the median inside."""
        reach = QUANTILE * self.spread
        return self.value * math.exp(-reach), self.value, self.value * math.exp(reach)


@dataclass(frozen=True)
class CostModel:
    """A predictor of load and work, learnt from so many ``jobs``."""

    work: LogFit
    load: LogFit
    jobs: int

    def work_seconds(self, setup: Setup, tokens: Tokens, token_spread: float = 0.0) -> TimeEstimate:
        """Return the seconds from the first request to the last answer; ``token_spread`` is the tokens' spread, in log space."""
        seconds, spread = self.work.predict(_work(setup, tokens))
        return TimeEstimate(seconds, math.hypot(spread, token_spread))

    def load_seconds(self, setup: Setup) -> TimeEstimate:
        """Return the seconds until the engine answers."""
        return TimeEstimate(*self.load.predict(_load(setup)))


def learn(measured: Sequence[Measured]) -> CostModel:
    """Return the model learnt from past jobs; from none, that of the priors."""
    measured = sorted(measured, key=lambda each: each.ended)
    worked = [each for each in measured if each.seconds > 0]
    loaded = [(each.setup, each.load_seconds) for each in measured if each.load_seconds]
    return CostModel(
        fit([_work(each.setup, each.tokens) for each in worked], [each.seconds for each in worked], WORK),
        fit([_load(setup) for setup, _ in loaded], [seconds for _, seconds in loaded], LOAD),
        len(worked),
    )


@dataclass(frozen=True)
class PastError:
    """Relative errors |estimate − actual| / actual of past jobs, in seconds with load, tokens as they turned out.

    ``stored`` of them compare what was estimated, tokens too, before the job ran.
    """

    errors: tuple[float, ...]
    stored: int

    @property
    def median(self) -> float:
        """Median of the errors."""
        return median(self.errors)


def past_error(measured: Sequence[Measured], most: int = 25) -> PastError | None:
    """Return how far estimates of the newest ``most`` jobs were off: the stored one, else what jobs that had ended by then teach.

    None where no job has any that ended before it began.
    """
    measured = sorted(measured, key=lambda each: each.ended)
    errors: list[float] = []
    stored = 0
    known: dict[int, CostModel] = {}
    for each in measured[-most:]:
        took = each.seconds + (each.load_seconds or 0.0)
        before = [other for other in measured if other.ended <= each.ended - took]
        if each.foretold is not None:
            stored += 1
            said = each.foretold
        elif before:
            model = known.setdefault(len(before), learn(before))
            said = model.work_seconds(each.setup, each.tokens).value
            said += model.load_seconds(each.setup).value if each.load_seconds else 0.0
        else:
            continue
        errors.append(abs(said - took) / took)
    return PastError(tuple(errors), stored) if errors else None


def kind_of(name: str) -> str | None:
    """Return the entry of `TFLOPS` that a GPU's name contains, the longest; None for a GPU that it does not list."""
    found = [known for known in TFLOPS if known in name.upper().replace("-", " ")]
    return max(found, key=len, default=None)


def _tflops(kind: str) -> float:
    if kind == CPU:
        return CPU_TFLOPS
    known = kind_of(kind)
    whole = TFLOPS[known] if known else UNKNOWN_TFLOPS
    # "H100/7" is a seventh of one, as `core.planning.schedule.fleet_file` names MIG slices.
    slices = kind.rsplit("/", 1)[-1]
    return whole / int(slices) if "/" in kind and slices.isdigit() else whole


def _work(setup: Setup, tokens: Tokens) -> Point:
    flops = 2 * setup.parameters / (_tflops(setup.kind) * 1e12 * USED)
    speed = setup.tensor_parallel**PARALLEL * setup.stages**STAGED
    prefill = (flops + PREFILL_SECONDS / 1000) / speed
    decode = (DECODE * flops + DECODE_SECONDS / 1000) / speed
    parts = {
        "setup": SETUP_SECONDS,
        "prefill": tokens.computed * prefill,
        "cached": tokens.cached * prefill * CACHED,
        "decode": tokens.decoded * decode,
    }
    return Point(parts, _features(setup) | {"size": math.log(max(setup.parameters, 1e6) / 8e9)})


def _load(setup: Setup) -> Point:
    return Point({"start": LOAD_SECONDS, "bytes": setup.weight_gb * LOAD_SECONDS_PER_GB}, _features(setup))


def _features(setup: Setup) -> dict[str, float]:
    kind, slices = setup.kind.rsplit("/", 1) if "/" in setup.kind else (setup.kind, "")
    known = "/".join(filter(None, (kind_of(kind) or kind, slices)))
    features = {f"kind={known}": 1.0, f"model={setup.model}": 1.0}
    if setup.name:
        features[f"name={setup.name}"] = 1.0
    if setup.tensor_parallel * setup.stages > 1:
        features["parallel"] = math.log(setup.tensor_parallel * setup.stages)
    return features
