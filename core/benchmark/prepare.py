"""Cells of one model, ready to be answered: benchmarks as the model is asked them, and what it judges of others' answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from core.benchmark.benchmark import Chat, load_benchmark
from core.benchmark.cell import asked_digest, make_cell
from core.benchmark.chat import Messages, opened_by_system, refusal
from core.benchmark.datasets.made import Tokenizer
from core.benchmark.doc_faults import OUTSIDE
from core.benchmark.find import cluster_field
from core.benchmark.loading import LOADING
from core.benchmark.targets import doubt_of
from core.campaign import BenchmarkSpec, CampaignSpec, ModelSpec, benchmark_label
from core.cell_work import CellWork
from core.errors import UserError, nearest, reason_of
from core.log import log, warn_once
from core.model.placement import PlannedModel
from core.request import Generate
from core.results import Store, open_store
from core.scoring.judge import Judging
from core.scoring.judge_spec import JudgeSpec

# Arguments of ``apply_chat_template`` that are not the template's variables.
OURS = frozenset(
    {"conversation", "tokenize", "add_generation_prompt", "continue_final_message", "return_assistant_tokens_mask"}
)


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
        tokenizer=_tokenizer(planned.model, weights),
    )
    for remark in loaded.remarks:
        if OUTSIDE not in remark:  # its doubts name the docs
            warn_once(f"benchmark {loaded.label!r}: {remark}")
    if benchmark.judge and not all(isinstance(request, Generate) for request in loaded.requests()):
        raise UserError(f"benchmark {loaded.label!r} has no generated answers for a judge to score: drop its judge")
    adaptive = benchmark.adaptive
    if adaptive and planned.model.name in adaptive.against:  # what others are compared with answers all docs
        adaptive = None
    settings = loaded.settings if adaptive is None else {**loaded.settings, "adaptive": adaptive.model_dump()}
    placed = (planned.model, planned.checkpoint, planned.placement)
    cell = make_cell(*placed, loaded.label, settings, loaded.datasets)
    if loaded.doubts:
        log.warning(doubt_of(f"{cell.model} · {loaded.label}", loaded.doubts, loaded.docs))
    return CellWork(
        cell,
        loaded,
        complete=False,
        asked=asked_digest(cell),
        timeout_seconds=benchmark.timeout_seconds,
        cluster=cluster_field(benchmark.name),
        adaptive=adaptive,
    )


def _tokenizer(model: ModelSpec, weights: Path) -> Tokenizer:
    return Tokenizer(str(model.vllm.get("tokenizer", weights)), model.trust_remote_code)


def _image_token(planned: PlannedModel, weights: Path) -> Callable[[], str] | None:
    if not planned.checkpoint.multimodal:
        return None
    return partial(image_token, weights, trust_remote_code=planned.model.trust_remote_code)


def chat_of(model: ModelSpec, weights: Path) -> Chat | None:
    """Return how ``model``'s prompts become chat turns; None where its spec asks for no template."""
    if not model.chat_template:
        return None
    return Chat(
        render=_renderer_of(model, weights),
        tokenizer_name=model.name,
        system_prompt=model.system_prompt,
        fewshot_as_multiturn=model.fewshot_as_multiturn,
    )


def _renderer_of(model: ModelSpec, weights: Path) -> Callable[..., str]:
    """Return `chat_renderer` as the spec of a model asks for it, whose errors name the model."""
    with _naming(model):
        render = chat_renderer(
            weights,
            trust_remote_code=model.trust_remote_code,
            variables=model.chat_template_args,
            system_as_user=model.system_as_user,
        )

    def render_named(messages: Messages, add_generation_prompt: bool = True) -> str:
        with _naming(model):
            return render(messages, add_generation_prompt)

    return render_named


@contextmanager
def _naming(model: ModelSpec) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"model {model.name!r}: {error}") from error


def chat_renderer(
    directory: Path,
    *,
    trust_remote_code: bool = False,
    variables: Mapping[str, Any] | None = None,
    system_as_user: bool = False,
) -> Callable[..., str]:
    """Return ``render(messages, add_generation_prompt=True) -> str`` for the checkpoint in ``directory``.

    ``variables`` go to the template beside the messages; ``chat_template`` among them names one of several, or is one. Without a
    generation prompt the last message is left open for the model to continue, as lm-evaluation-harness does. Messages in content
    parts (`core.benchmark.images.in_parts`) get the processor's template where it has one of its own. With ``system_as_user`` a
    system message opens the first user turn. Raises `core.errors.UserError` where there is no chat template, or no tokenizer to
    apply it, and so does the function returned where the template refuses the messages.
    """
    given = dict(variables or {})
    if taken := sorted(OURS.intersection(given)):
        raise UserError(f"chat_template_args.{taken[0]} = {given[taken[0]]!r}: Steelyard sets it: leave it out")
    chosen = given.pop("chat_template", None)
    with LOADING:  # models are prepared side by side; transformers' lazy modules do not stand two first imports at once
        from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code)
    except Exception as error:  # a tokenizer's files may make its class raise anything
        raise UserError(
            f"chat_template: the tokenizer in {str(directory)!r} cannot be loaded: {reason_of(error)}"
        ) from error
    processors = _processors_template(directory)
    if not (tokenizer.chat_template or processors or chosen):
        raise UserError(f"chat_template: the tokenizer in {str(directory)!r} has none; set chat_template: false")
    _check_chosen(chosen, tokenizer.chat_template)

    def apply(messages: Messages, add_generation_prompt: bool) -> str:
        parts = any(not isinstance(message["content"], str) for message in messages)
        return str(
            tokenizer.apply_chat_template(
                list(messages),
                chat_template=chosen or (processors if parts or not tokenizer.chat_template else None),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
                **given,
            )
        )

    def render(messages: Messages, add_generation_prompt: bool = True) -> str:
        turns = opened_by_system(messages) if system_as_user else messages
        try:
            return apply(turns, add_generation_prompt)
        except Exception as error:  # a template raises anything
            reason = refusal(turns, error, lambda others: apply(others, add_generation_prompt))
            raise UserError(f"chat_template: {reason}") from error

    return render


def _check_chosen(chosen: Any, templates: Any) -> None:
    """Raise `core.errors.UserError` where a tokenizer has several templates and none is chosen, or none of a name that is."""
    names = sorted(templates) if isinstance(templates, dict) else []
    if chosen is None and names and "default" not in names:
        raise UserError(
            f"chat_template: the tokenizer has {', '.join(map(repr, names))} and no default: name one of them in "
            f"chat_template_args: {{chat_template: {names[0]}}}"
        )
    if chosen is not None and chosen not in names and "{" not in str(chosen):
        raise UserError(
            f"chat_template_args.chat_template = {chosen!r}: neither a template nor the name of one that the tokenizer has"
            f"{nearest(str(chosen), names)}"
        )


def _processors_template(directory: Path) -> str | None:
    """Read the template that older processors keep for themselves; ``chat_template.jinja`` is the tokenizer's too."""
    file = directory / "chat_template.json"
    if not file.is_file() or (directory / "chat_template.jinja").is_file():
        return None
    try:
        template = json.loads(file.read_text(encoding="utf-8"))["chat_template"]
        if isinstance(template, list):  # of several, as in tokenizer_config.json
            template = {each["name"]: each["template"] for each in template}
        return str(template["default"] if isinstance(template, dict) else template)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"chat_template: {str(file)!r} holds none; fetch the file again") from error


@cache
def image_token(directory: Path, *, trust_remote_code: bool = False) -> str:
    """Return the text that stands for an image in a prompt of the checkpoint in ``directory``, for prompts without chat template.

    It is what lm-evaluation-harness's ``hf-multimodal`` backend writes. Raises `core.errors.UserError` where the config names none.
    """
    with LOADING:
        from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code)
    number = getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None)
    if number is None:
        raise UserError(
            f"images: config.json in {str(directory)!r} has no image_token_id, which prompts without chat template need; "
            "set chat_template: true"
        )
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code)
    return str(tokenizer.decode([number], skip_special_tokens=False))


def judges_of(spec: CampaignSpec) -> set[str]:
    """Names of the models that judge."""
    return {benchmark.judge.model for benchmark in spec.benchmarks if benchmark.judge}


def judgings(spec: CampaignSpec, run: str, planned: PlannedModel, weights: Path) -> list[CellWork]:
    """Find what ``planned``'s model judges of the campaign's run ``run``; a cell's ``model`` is the one that answered.

    Answers that are not complete in the store are named in the log and left out.
    """
    store, judge = open_store(spec.results), planned.model
    chat = chat_of(judge, weights)
    works = []
    for judge_spec, benchmark, model, fingerprint in _answered(spec, store, run, judge.name):
        if not store.is_complete(fingerprint):
            log.warning(f"{model} · {benchmark_label(benchmark)}: not judged, it is not complete")
            continue
        judging = Judging(
            spec=judge_spec,
            benchmark=benchmark_label(benchmark),
            samples=tuple(store.cell_samples(fingerprint)),
            render_chat=chat.render if chat else None,
            system_prompt=judge.system_prompt,
            think_end_token=judge.think_end_token,
        )
        cell = make_cell(judge, planned.checkpoint, planned.placement, judging.label, judging.settings)
        complete = store.is_complete(cell.fingerprint)
        cell = replace(cell, model=model)
        cluster = cluster_field(benchmark.name)
        works.append(CellWork(cell, judging, complete, benchmark.timeout_seconds, cluster, asked=asked_digest(cell)))
    return works


def _answered(
    spec: CampaignSpec, store: Store, run: str, judge: str
) -> Iterator[tuple[JudgeSpec, BenchmarkSpec, str, str]]:
    """(judge, benchmark, model, fingerprint) of every cell of the run that ``judge`` scores."""
    (manifest,) = (each for each in store.campaigns(spec.name) if each["run"] == run)
    cells = {entry["model"]: entry["cells"] for entry in manifest["models"] if "judge" not in entry}
    for benchmark in spec.benchmarks:
        if benchmark.judge and benchmark.judge.model == judge:
            for model in spec.models:
                if fingerprint := cells.get(model.name, {}).get(benchmark_label(benchmark)):
                    yield benchmark.judge, benchmark, model.name, fingerprint
