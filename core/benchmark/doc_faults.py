"""Faults of docs as they are asked, found in what the harness built: they make a score worthless, and no metric shows them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.benchmark.cell import row_digest
from core.benchmark.images import images_of
from core.benchmark.seen import Seen, Turn
from core.catalogue.literal_templates import TEMPLATES, is_template, literal_names
from core.store.quality import NAMES_OF_DOCS

OUTSIDE = "target outside the choices"
ONE_TARGET = "the same target as every other doc"
ALIKE = "the same prompt as another doc"
ONE_QUESTION = "the same question as every other doc, only choices differ"
EMPTY = "empty prompt"
OWN_ANSWER = "its own answer among the few-shot examples"
EVALUATED = "few-shot examples from the evaluated docs"
UNSAID = "description or system prompt left out by the chat template"


@dataclass(frozen=True)
class Asked:
    """A doc and how it is asked. ``request`` is all of that but the few-shot examples, as a value to compare."""

    doc_id: int
    row: Any
    turn: Turn
    shots: Sequence[Turn]
    prompt: str
    request: tuple[Any, ...]
    images: bool


def doc_faults(
    task: Any, seen: Seen, system_prompt: str | None = None, *, chat: bool = False
) -> dict[int, tuple[str, ...]]:
    """Return the faults of a built lm-eval task's docs, by doc id; docs without any are missing.

    ``chat`` says that prompts went through a chat template, with ``system_prompt`` and the task's description as system message.
    """
    docs = list(_asked(task, seen))
    themselves, others = _showing(docs)
    found: dict[int, list[str]] = defaultdict(list)
    for fault in template_faults(task, docs):
        for doc in docs:
            found[doc.doc_id].append(fault)
    marked = [
        (ALIKE, alike := _alike(docs)),
        (ONE_QUESTION, _one_question(docs) - alike),
        (EMPTY, _empty(docs, alike) if task.OUTPUT_TYPE != "loglikelihood_rolling" else set()),
        (OWN_ANSWER, themselves),
        (EVALUATED, others),
        (OUTSIDE, {doc.doc_id for doc in docs if _outside(task, doc.turn)}),
        (ONE_TARGET, _one_target(task, docs)),
        (UNSAID, {doc.doc_id for doc in docs if not _says(task, doc, system_prompt)} if chat else set()),
    ]
    for fault, ids in marked:
        for doc_id in ids:
            found[doc_id].append(fault)
    return {doc_id: tuple(faults) for doc_id, faults in found.items()}


def counted(faults: Iterable[Sequence[str]], docs: int) -> list[str]:
    """Return a line for each fault with how many of so many docs have it."""
    counts = Counter(fault for each in faults for fault in each)
    return [f"{count:,} of {docs:,} docs: {fault}" for fault, count in counts.items()]


def template_faults(task: Any, docs: Sequence[Asked]) -> Iterator[str]:
    """Yield what is written like a template and is none: a field of the docs in single braces, or a field that there is not."""
    fields = {str(name) for doc in docs if isinstance(doc.row, Mapping) for name in doc.row}
    target = str(task.get_config("doc_to_target"))
    for field in TEMPLATES:
        text = task.get_config(field)
        if not isinstance(text, str) or text in fields:
            continue
        if meant := _meant(field, text, fields, target):
            yield f"{field}: {{{meant}}} is no template: write {{{{{meant}}}}}"
        elif _names_no_field(field, text, docs):
            yield f"{field}: {text!r} is no field of the docs, and is taken as text"


def _meant(field: str, text: str, fields: set[str], target: str) -> str | None:
    """Return the first name in single braces that was meant to be filled in.

    Without any template a question's are; beside one an instruction may name what to answer, as in: end with {answer}.
    """
    names, mixed = literal_names(text), is_template(text)
    known = (name for name in names if name in fields and not (mixed and name in target))
    return next(known, names[0] if names and field == "doc_to_text" and not mixed else None)


def _names_no_field(field: str, text: str, docs: Sequence[Asked]) -> bool:
    """Whether a text looks like the name of a field, and is neither an instruction about images nor a choice."""
    if field == "doc_to_text":
        return text.isidentifier() and not any(doc.images for doc in docs)
    return (
        field == "doc_to_target" and text.isidentifier() and not any(text in (doc.turn.choices or ()) for doc in docs)
    )


def _asked(task: Any, seen: Seen) -> Iterator[Asked]:
    by_doc: dict[int, list[Any]] = defaultdict(list)
    for instance in task.instances:
        by_doc[instance.doc_id].append(instance)
    for doc_id, instances in by_doc.items():
        row = instances[0].doc
        turn, shots = seen.turn(row), seen.shots(row)
        images = tuple(image.sha256 for image in images_of(instances[0]))
        asked = tuple(tuple(each for each in instance.args if isinstance(each, str)) for instance in instances)
        if shots:  # which differ from doc to doc
            own = turn.choices if isinstance(turn.question, int) else turn.question
            asked = ((str(own),), *(args[1:] for args in asked))
        yield Asked(doc_id, row, turn, shots, instances[0].args[0], (asked, images), bool(images))


def _alike(docs: Sequence[Asked]) -> set[int]:
    """Docs that are asked with the request of another, though their rows differ."""
    groups: dict[tuple[Any, ...], list[Asked]] = defaultdict(list)
    for doc in docs:
        groups[doc.request].append(doc)
    several = (group for group in groups.values() if len(group) > 1)
    return {doc.doc_id for group in several if len(set(map(_content, group))) > 1 for doc in group}


def _one_question(docs: Sequence[Asked]) -> set[int]:
    """All docs, where several are asked one question, without images. An empty one leaves the asking to the choices."""
    questions = {doc.turn.question for doc in docs if isinstance(doc.turn.question, str)}
    one = len(questions) == 1 < len(docs) and all(isinstance(doc.turn.question, str) and not doc.images for doc in docs)
    return {doc.doc_id for doc in docs} if one and questions.pop().strip() else set()


def _content(doc: Asked) -> str:
    if not isinstance(doc.row, Mapping):
        return row_digest(doc.row)
    return row_digest({name: value for name, value in doc.row.items() if str(name).lower() not in NAMES_OF_DOCS})


def _empty(docs: Sequence[Asked], alike: set[int]) -> set[int]:
    """Docs whose question is blank. Where all are, the choices ask, if they differ."""
    blank = {
        doc.doc_id
        for doc in docs
        if isinstance(doc.turn.question, str) and not doc.turn.question.strip() and not doc.images
    }
    return blank & alike if len(blank) == len(docs) > 1 else blank


def _says(task: Any, doc: Asked, system_prompt: str | None) -> bool:
    """Whether a prompt has the system prompt and the description, which some chat templates pass over in silence."""
    description = task.resolve_field(doc.row, task.get_config("description"))
    return all(text.strip() in doc.prompt for text in (system_prompt, description) if text)


def _showing(docs: Sequence[Asked]) -> tuple[set[int], set[int]]:
    """Docs that have themselves among their examples, and docs that have others of the evaluation there."""
    if not any(doc.shots for doc in docs):
        return set(), set()
    turns = {id(turn): turn for doc in docs for turn in (doc.turn, *doc.shots)}
    marks = {key: _marks(turn) for key, turn in turns.items()}
    evaluated = set().union(*(marks[id(doc.turn)] for doc in docs))
    themselves, others = set(), set()
    for doc in docs:
        own = marks[id(doc.turn)]
        shown = [marks[id(shot)] for shot in doc.shots]
        if any(own & each for each in shown):
            themselves.add(doc.doc_id)
        if any(evaluated & each for each in shown if not own & each):
            others.add(doc.doc_id)
    return themselves, others


def _marks(turn: Turn) -> set[Any]:
    """What two turns of one doc share: the row, as examples may be worded otherwise, or the words, where rows differ."""
    worded = {(turn.text.strip(), turn.answer)} if turn.answer is not None else set()
    return {row_digest(turn.row), *worded}


def _compares_targets(task: Any) -> bool:
    """Whether the harness's own code compares answers with targets; a task's may use them in any way."""
    from lm_eval.api.task import ConfigurableTask

    own = getattr(type(task), "process_results", None) is not ConfigurableTask.process_results
    return not (own or callable(task.get_config("process_results")))


def _outside(task: Any, turn: Turn) -> bool:
    """Whether a target is none of the choices, by the rules of lm-eval's ``process_results``, which counts every answer wrong then.

    It takes a negative number for a choice counted from the end, or for none: for people it is none.
    """
    if task.OUTPUT_TYPE not in ("multiple_choice", "generate_until") or not isinstance(turn.choices, list):
        return False
    if not _compares_targets(task):
        return False
    gold = turn.question if isinstance(turn.question, int) else turn.target
    return any(
        not 0 <= each < len(turn.choices) if isinstance(each, int) else each not in turn.choices
        for each in (gold if isinstance(gold, list) else [gold])
    )


def _one_target(task: Any, docs: Sequence[Asked]) -> set[int]:
    """All docs, where several have one target. Empty ones are counted by themselves."""
    if task.OUTPUT_TYPE == "loglikelihood_rolling" or not _compares_targets(task):
        return set()
    targets = {doc.turn.text if isinstance(doc.turn.question, int) else doc.turn.answer for doc in docs}
    alone = targets.pop() if len(targets) == 1 and len(docs) > 1 else None
    return {doc.doc_id for doc in docs} if alone and alone.strip() else set()
