"""From tasks/prepare.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from core.benchmark.benchmark import Chat, load_benchmark
from core.benchmark.cell import make_cell
from core.benchmark.chat import chat_renderer, image_token
from core.benchmark.find import cluster_field
from core.campaign import BenchmarkSpec, CampaignSpec, ModelSpec
from core.cell_work import CellWork
from core.errors import UserError
from core.model.placement import PlannedModel
from core.request import Generate


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
