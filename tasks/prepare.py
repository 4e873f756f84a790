"""Preparation before a GPU is held: weights on local disk, docs loaded, prompts built, cells looked up."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.utilities.annotations import quote

from core.benchmark import Askable, Chat, load_benchmark
from core.campaign import BenchmarkSpec, CampaignSpec, FleetSpec, ModelSpec
from core.cell import make_cell
from core.chat import chat_renderer, image_token
from core.checkpoint.weights import fetch_checkpoint
from core.compare.clusters import cluster_field
from core.errors import UserError
from core.plan import PlannedModel
from core.request import Generate
from core.results import open_store
from core.sample import Cell
from core.spec.adaptive import AdaptiveSpec
from core.store.patience import patiently_in_thread
from tasks.retry import RETRYING

# Preparing is Python's work, so all at once would end all at once: in turn, the model that asked first can start.
AT_ONCE = 4
_IN_TURN = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="steelyard-prepare")


@dataclass(frozen=True)
class CellWork:
    """A cell, the benchmark it answers and how long that may take; ``complete`` where the store holds it already.

    ``cluster`` is the doc field that groups its docs; with ``adaptive`` fewer docs may do.
    """

    cell: Cell
    benchmark: Askable
    complete: bool
    timeout_seconds: float | None = None
    cluster: str | None = None
    adaptive: AdaptiveSpec | None = None


@task(
    name="fetch weights",
    task_run_name="fetch weights of {planned.model.name}",
    cache_policy=NO_CACHE,
    **RETRYING,
)
async def fetch(planned: PlannedModel, *, weights: bool) -> Path:
    """Put the checkpoint on local disk, with or without its weights."""
    return await asyncio.to_thread(fetch_checkpoint, planned.checkpoint, weights=weights)


def loads_from_here(planned: PlannedModel, fleet: FleetSpec) -> bool:
    """Whether the model's engine reads weights from this machine's disk.

    It does not where they are streamed, nor on nodes of a Ray cluster that may be other machines and fetch them themselves.
    """
    elsewhere = planned.placement.engine == "distributed" and bool(fleet.ray_address or fleet.kuberay)
    return not (planned.model.stream_weights or elsewhere)


@task(name="prepare", task_run_name="prepare {benchmark.name}", cache_policy=NO_CACHE)
async def prepare(
    spec: CampaignSpec, planned: PlannedModel, weights: Path, benchmark: BenchmarkSpec
) -> quote[CellWork]:
    """Load one benchmark for one model and look its cell up in the store."""
    context = contextvars.copy_context()
    preparing = partial(context.run, prepare_cell, spec, planned, weights, benchmark)
    work: CellWork = await asyncio.get_running_loop().run_in_executor(_IN_TURN, preparing)
    store = open_store(spec.results)
    complete = await patiently_in_thread(
        lambda: store.is_complete(work.cell.fingerprint), spec.policy.store_patience_seconds
    )
    return quote(replace(work, complete=complete))


def prepare_cell(spec: CampaignSpec, planned: PlannedModel, weights: Path, benchmark: BenchmarkSpec) -> CellWork:
    """Load ``benchmark`` as ``planned``'s model is asked it. Whether its cell is complete is not looked up."""
    chat = chat_of(planned.model, weights)
    loaded = load_benchmark(
        benchmark,
        chat=chat,
        seed=spec.seed,
        allow_unsafe_code=spec.allow_unsafe_code,
        think_end_token=planned.model.think_end_token,
        image_token=_image_token(planned, weights),
        datasets=spec.datasets,
    )
    if benchmark.judge and not all(isinstance(request, Generate) for request in loaded.requests()):
        raise UserError(f"benchmark {loaded.label!r} has no generated answers for a judge to score: drop its judge")
    adaptive = benchmark.adaptive
    if adaptive and planned.model.name in adaptive.against:  # what others are compared with answers all docs
        adaptive = None
    settings = loaded.settings if adaptive is None else {**loaded.settings, "adaptive": adaptive.model_dump()}
    placed = (planned.model, planned.checkpoint, planned.placement)
    cell = make_cell(*placed, loaded.label, settings, loaded.datasets)
    return CellWork(
        cell,
        loaded,
        complete=False,
        timeout_seconds=benchmark.timeout_seconds,
        cluster=cluster_field(benchmark.name),
        adaptive=adaptive,
    )


def _image_token(planned: PlannedModel, weights: Path) -> Callable[[], str] | None:
    if not planned.checkpoint.multimodal:
        return None
    return partial(image_token, weights, trust_remote_code=planned.model.trust_remote_code)


def chat_of(model: ModelSpec, weights: Path) -> Chat | None:
    """Return how ``model``'s prompts become chat turns; None where its spec asks for no template."""
    if not model.chat_template:
        return None
    return Chat(
        render=chat_renderer(weights, trust_remote_code=model.trust_remote_code, variables=model.chat_template_args),
        tokenizer_name=model.name,
        system_prompt=model.system_prompt,
        fewshot_as_multiturn=model.fewshot_as_multiturn,
    )
