"""Chat templates tried before anything starts, on turns of the shapes that a campaign's benchmarks have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.benchmark.benchmark import Chat
from core.benchmark.chat import MEND
from core.benchmark.find import leaves_of
from core.benchmark.images import PLACEHOLDER, asks_images, in_parts
from core.benchmark.prepare import chat_of
from core.campaign import BenchmarkSpec, ModelSpec, benchmark_label
from core.errors import UserError
from core.model.placement import PlannedModel
from core.model.weights import fetch_checkpoint

NO_QUESTION = "it leaves out the question: correct it, or set chat_template: false"
NO_SYSTEM = f"it leaves out the system message in silence: {MEND}"
SYSTEM, QUESTION, ANSWER = "Be brief.", "Is water wet?", "Yes"


@dataclass(frozen=True)
class Shape:
    """What a benchmark's prompts have beside a question."""

    system: bool = False
    shots: bool = False
    prefix: bool = False  # the beginning of the answer, which the model goes on with
    images: bool = False

    def messages(self) -> list[dict[str, str]]:
        """Return turns of this shape, as lm-eval makes them."""
        question = f"{PLACEHOLDER}{QUESTION}" if self.images else QUESTION
        roles = {
            "system": [SYSTEM] if self.system else [],
            "user": [question],
            "assistant": [ANSWER] if self.prefix else [],
        }
        shot = [{"role": "user", "content": "Is fire hot?"}, {"role": "assistant", "content": ANSWER}]
        turns = [{"role": role, "content": text} for role, texts in roles.items() for text in texts]
        return [*turns[: self.system], *(shot if self.shots else []), *turns[self.system :]]


@dataclass
class Checked:
    """``faults`` are refusals, a line each; ``warnings`` what templates pass over in silence."""

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_chats(models: Iterable[PlannedModel], benchmarks: Sequence[BenchmarkSpec]) -> Checked:
    """Render turns with every model's chat template as its prompts will be. Fetches tokenizers, no weights."""
    checked = Checked()
    for planned in (each for each in models if each.model.chat_template):
        try:
            chat = chat_of(planned.model, fetch_checkpoint(planned.checkpoint, weights=False))
        except UserError as error:
            checked.faults.append(str(error))
            continue
        except OSError as error:
            reason = error.strerror or error
            checked.faults.append(f"model {planned.model.name!r}: its tokenizer cannot be read: {reason}")
            continue
        if chat is not None:
            _check(planned.model, chat, benchmarks, checked)
    return checked


def _check(model: ModelSpec, chat: Chat, benchmarks: Sequence[BenchmarkSpec], checked: Checked) -> None:
    wanted = {Shape(bool(model.system_prompt)): ""}
    for benchmark in benchmarks:
        for shape in shapes_of(model, benchmark):
            wanted.setdefault(shape, f"benchmark {benchmark_label(benchmark)!r}: ")
    faults: dict[str, str] = {}  # each with where it is met first
    for shape, where in wanted.items():
        try:
            text = rendered(chat.render, shape)
        except UserError as error:
            faults.setdefault(str(error), where)
            continue
        if QUESTION not in text:
            faults.setdefault(f"model {model.name!r}: chat_template: {NO_QUESTION}", where)
        elif shape.system and SYSTEM not in text:
            checked.warnings.append(f"{where}model {model.name!r}: chat_template: {NO_SYSTEM}")
    checked.faults += [f"{where}{fault}" for fault, where in faults.items()]


def rendered(render: Callable[..., str], shape: Shape) -> str:
    """Return turns of a shape as a prompt. Raises `core.errors.UserError` where the template refuses them."""
    given: Callable[..., str] = in_parts(render) if shape.images else render
    return given(shape.messages(), add_generation_prompt=not shape.prefix)


def shapes_of(model: ModelSpec, benchmark: BenchmarkSpec) -> Iterator[Shape]:
    """Yield the shapes of a benchmark's prompts, by its YAML alone; of tasks in Python only what the model's spec says."""
    for leaf in leaves_of(benchmark.name):
        config: Any = leaf.config or {}
        own = config.get("num_fewshot")
        examples = own if benchmark.num_fewshot is None or own == 0 else benchmark.num_fewshot
        yield Shape(
            system=bool(model.system_prompt or config.get("description")),
            shots=bool(examples) and model.fewshot_as_multiturn,
            prefix=bool(config.get("gen_prefix")),
            images=asks_images(leaf.name, config),
        )
