"""The plan of a campaign: its spec checked against the world, and a place for each model. Starts nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from core.benchmark.benchmark import check_benchmark
from core.benchmark.chat_check import check_chats
from core.benchmark.find import leaves_of
from core.benchmark.images import benchmark_asks_images
from core.benchmark.needed import faults
from core.campaign import BenchmarkSpec, CampaignSpec, FleetSpec, ModelSpec, benchmark_label
from core.catalogue.literal_templates import constant_fault
from core.errors import UserError, nearest
from core.log import warn_once
from core.model.checkpoint import read_checkpoint
from core.model.fleet import resolve_fleet
from core.model.placement import Plan, PlannedModel, place
from core.model.sizing import with_replicas
from core.model.weights import check_streamable
from core.results import Store, open_store
from core.spec.parts import lengths_of


def plan_model(spec: CampaignSpec, model: ModelSpec, fleet: FleetSpec) -> PlannedModel:
    """Read one checkpoint and place it. Raises `core.errors.UserError` naming the model."""
    try:
        checkpoint = read_checkpoint(
            model.model, model.revision, trust_remote_code=model.trust_remote_code, arguments=model.vllm
        )
        if model.chat_template and not (checkpoint.has_chat_template or "chat_template" in model.chat_template_args):
            raise UserError("chat_template: the checkpoint has none; set chat_template: false")
        if not checkpoint.has_tokenizer and "tokenizer" not in model.vllm and not model.trust_remote_code:
            raise UserError(
                f"{model.model!r} has no tokenizer (tokenizer.json, tokenizer.model): fetch the checkpoint again"
            )
        if model.stream_weights:
            check_streamable(checkpoint, model.vllm)
        placement = place(checkpoint, model, fleet, spec.policy)
        with_replicas(placement, model, fleet, spec.policy)  # refuses; how many is decided with the work known
        if placement.gpus > fleet.gpus and fleet.device != "cpu" and not (fleet.ray_address or fleet.kuberay):
            raise UserError(
                f"needs {placement.gpus} GPUs, more than this machine's {fleet.gpus}: name the fleet's Ray cluster in "
                "fleet.ray_address, or have one made with fleet.kuberay"
            )
    except UserError as error:
        raise type(error)(f"model {model.name!r}: {error}") from error
    except OSError as error:
        raise UserError(f"model {model.name!r}: {model.model!r} cannot be read: {error.strerror or error}") from error
    return PlannedModel(model, checkpoint, placement)


def make_plan(spec: CampaignSpec) -> Plan:
    """Check benchmarks and their datasets, and place every model.

    Raises `core.errors.UserError` with one line per problem, all of them at once.
    """
    fleet = resolve_fleet(spec.fleet)
    problems: list[str] = []
    asking: list[str] = []
    known: list[BenchmarkSpec] = []
    for benchmark in spec.benchmarks:
        try:
            check_benchmark(benchmark, allow_unsafe_code=spec.allow_unsafe_code)
            if benchmark_asks_images(benchmark.name, benchmark.num_fewshot):
                asking.append(benchmark.name)
            known.append(benchmark)
        except UserError as error:
            problems.append(str(error))
    try:
        problems += faults(known, spec.datasets)
    except UserError as error:
        problems.append(str(error))
    planned: list[PlannedModel] = []
    for model in spec.models:
        try:
            planned.append(plan_model(spec, model, fleet))
        except UserError as error:
            problems.append(str(error))
    problems += [
        f"model {each.model.name!r} takes no images, and benchmark {name!r} asks about them: leave out one of the two"
        for name in asking
        for each in planned
        if not each.checkpoint.multimodal
    ]
    chats = check_chats(planned, known)
    problems += chats.faults
    if problems:
        raise UserError("\n".join(problems))
    return Plan(fleet, tuple(planned), (*chats.warnings, *constant_prompts(known), *_beyond_the_window(known, planned)))


def constant_prompts(benchmarks: Iterable[BenchmarkSpec]) -> list[str]:
    """Return a line for each task whose YAML alone shows that it asks every doc the same."""
    found = {leaf.name: constant_fault(leaf.config) for benchmark in benchmarks for leaf in leaves_of(benchmark.name)}
    return [f"benchmark {name!r}: {fault}" for name, fault in found.items() if fault]


def _beyond_the_window(benchmarks: Iterable[BenchmarkSpec], planned: Iterable[PlannedModel]) -> Iterator[str]:
    """Say which docs are asked for that are longer than a model's window: of their prompts the beginning is cut off."""
    for each in planned:
        window = each.placement.max_model_len
        longer = [
            benchmark_label(benchmark) for benchmark in benchmarks if max(lengths_of(benchmark), default=0) > window
        ]
        if longer:
            yield (
                f"model {each.model.name!r} has a window of {window:,} tokens, and longer docs are asked of it by "
                f"{', '.join(longer)}: their scores say nothing about it"
            )


def check_campaign(spec: CampaignSpec) -> Plan:
    """Return the plan, all checked that can fail before a GPU is held: `make_plan`, the results store, models compared with."""
    plan = make_plan(spec)
    for warning in plan.warnings:
        warn_once(warning)
    store = open_store(spec.results)
    store.check()
    _check_compared_with(spec, store)
    return plan


def _check_compared_with(spec: CampaignSpec, store: Store) -> None:
    """Raise `core.errors.UserError` where a model is to be compared with one that is neither in the campaign nor in the store."""
    names = {model.name for model in spec.models}
    others_of = {
        index: others
        for index, benchmark in enumerate(spec.benchmarks)
        if benchmark.adaptive and (others := set(benchmark.adaptive.against) - names)
    }
    if not others_of:
        return
    board = store.leaderboard()
    for index, others in others_of.items():
        label = benchmark_label(spec.benchmarks[index])
        known = {*names, *board.loc[board.benchmark == label, "model"]}
        for other in sorted(others - known):
            raise UserError(
                f"benchmarks[{index}].adaptive.against = {other!r}: no model of the campaign, and {store.uri} has no results of "
                f"it on {label!r}{nearest(other, known)}"
            )
