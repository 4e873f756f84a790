"""A chat template that refuses a campaign's turns is found by the plan, with model, benchmark and mend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.benchmark.benchmark import load_benchmark
from core.benchmark.chat import MEND
from core.benchmark.prepare import chat_of
from core.campaign import BenchmarkSpec, CampaignSpec, ModelSpec, load_spec
from core.errors import UserError
from core.model.placement import Plan
from core.planning.plan import make_plan
from core.request import Loglikelihood
from tests.checkpoints import write_checkpoint

TURNS = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}</>{% endfor %}"
    "{% if add_generation_prompt %}<model>{% endif %}"
)
GEMMA = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TURNS
ALTERNATING = (
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% endfor %}"
    + TURNS
)
ONE_TURN = "{% if messages | selectattr('role', 'equalto', 'user') | list | length > 1 %}{{ raise_exception('one') }}{% endif %}"
FILLED = (
    "{% for message in messages %}{% if not message['content'] %}{{ raise_exception('empty') }}{% endif %}{% endfor %}"
)
TASK = """\
task: described
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: multiple_choice
doc_to_text: '{{q}} Answer:'
doc_to_choice: ['yes', 'no']
doc_to_target: gold
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
DESCRIBED = "description: 'Answer yes or no.'\n"


def keep_template(folder: Path, template: Any) -> None:
    """A checkpoint whose tokenizer knows three words, and has ``template``: one, or a list of named ones."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"Hi": 0, "?": 1}, unk_token="?"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(write_checkpoint(folder))
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": template}))


def campaign(
    folder: Path, template: Any, task: str = DESCRIBED, shots: int | None = None, **fields: Any
) -> CampaignSpec:
    keep_template(folder / "gemma", template)
    rows = [{"q": "Is 0 an even number?", "gold": 0}, {"q": "Is 1 an even number?", "gold": 1}]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "described.yaml").write_text(TASK % (folder / "rows.jsonl") + task)
    return load_spec(
        {
            "name": "n",
            "models": [{"model": str(folder / "gemma"), "chat_template": True, **fields}],
            "benchmarks": [{"name": str(folder / "described.yaml"), "num_fewshot": shots}],
            "fleet": {"gpus": 1, "gpu_memory_gb": 8, "device": "cpu"},
        }
    )


def plan(folder: Path, template: Any, task: str = DESCRIBED, **fields: Any) -> Plan:
    return make_plan(campaign(folder, template, task, **fields))


def refused(folder: Path, template: Any, task: str = DESCRIBED, **fields: Any) -> str:
    with pytest.raises(UserError) as caught:
        plan(folder, template, task, **fields)
    return str(caught.value)


def prompts(spec: CampaignSpec) -> list[str]:
    (model,), (benchmark,) = spec.models, spec.benchmarks
    loaded = load_benchmark(benchmark, chat=chat_of(model, Path(model.model)), seed=1)
    return [each.context for each in loaded.requests() if isinstance(each, Loglikelihood)]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (GEMMA, "TemplateError: System role not supported"),
        (ALTERNATING, "TemplateError: Conversation roles must alternate user/assistant/user/assistant/..."),
    ],
)
def test_a_description_that_a_template_refuses_is_refused_by_the_plan(tmp_path: Path, template: str, said: str) -> None:
    assert refused(tmp_path, template) == (
        f"benchmark 'described': model 'gemma': chat_template: it takes no system message ({said}): {MEND}"
    )


def test_so_is_a_system_prompt_whatever_is_asked(tmp_path: Path) -> None:
    said = refused(tmp_path, GEMMA, "", system_prompt="Be brief.")
    assert said.startswith("model 'gemma': chat_template: it takes no system message (TemplateError: System role not")


@pytest.mark.parametrize(("system", "opening"), [(None, ""), ("Be brief.", "Be brief.\n\n")])
def test_with_system_as_user_it_opens_the_first_user_turn(tmp_path: Path, system: str | None, opening: str) -> None:
    spec = campaign(tmp_path, GEMMA, system_as_user=True, system_prompt=system)
    assert make_plan(spec).warnings == ()
    asked = "Answer yes or no.\n\nIs 0 an even number? Answer:"
    assert prompts(spec)[0] == f"<user>{opening}{asked}</><model>"


def test_few_shot_examples_come_after_it(tmp_path: Path) -> None:
    spec = campaign(tmp_path, GEMMA, f"{DESCRIBED}fewshot_split: test\n", shots=1, system_as_user=True)
    make_plan(spec)
    assert prompts(spec)[0] == (
        "<user>Answer yes or no.\n\nIs 1 an even number? Answer:</><assistant>no</><user>Is 0 an even number? Answer:</><model>"
    )


def test_what_a_template_takes_is_rendered_as_ever(tmp_path: Path) -> None:
    spec = campaign(tmp_path, TURNS)
    assert make_plan(spec).warnings == ()
    assert prompts(spec)[0] == "<system>Answer yes or no.</><user>Is 0 an even number? Answer:</><model>"


def test_a_template_that_passes_over_system_messages_is_told_of(tmp_path: Path) -> None:
    silent = TURNS.replace("messages %}", "messages if message['role'] != 'system' %}")
    (warning,) = plan(tmp_path, silent).warnings
    assert warning.startswith(
        "benchmark 'described': model 'gemma': chat_template: it leaves out the system message in silence"
    )
    assert warning.endswith(MEND)


@pytest.mark.parametrize(
    ("template", "fields", "said"),
    [
        (
            ONE_TURN + TURNS,
            {"shots": 1},
            "it takes no few-shot examples as turns (TemplateError: one): set fewshot_as_multiturn",
        ),
        (
            "{{ date.year }}" + TURNS,
            {},
            "it lacks a variable (UndefinedError: 'date' is undefined): give it in chat_template_args",
        ),
        ("Hello", {}, "it leaves out the question: correct it, or set chat_template: false"),
        (
            "{{ raise_exception('No.\nNever.') }}",
            {},
            "it does not take the turns user (TemplateError: No.): correct it, or set",
        ),
        ("{% if %}", {}, "it does not take the turns user (TemplateSyntaxError: Expected an expression"),
        (
            [{"name": "rag", "template": TURNS}],
            {},
            "the tokenizer has 'rag' and no default: name one of them in chat_template_args",
        ),
    ],
)
def test_other_refusals_have_their_own_mend(tmp_path: Path, template: Any, fields: dict[str, Any], said: str) -> None:
    found = refused(tmp_path, template, "fewshot_split: test\n", **fields)
    assert f"model 'gemma': chat_template: {said}" in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"tokenize": True}, "chat_template_args.tokenize = True: Steelyard sets it: leave it out"),
        ({"chat_template": "rga"}, "chat_template_args.chat_template = 'rga': neither a template nor the name of one"),
    ],
)
def test_variables_that_are_none_are_refused(tmp_path: Path, variables: dict[str, Any], said: str) -> None:
    templates = [{"name": "rag", "template": TURNS}, {"name": "default", "template": TURNS}]
    assert f"model 'gemma': {said}" in refused(tmp_path, templates, chat_template_args=variables)


@pytest.mark.parametrize("chosen", ["rag", "rag" + TURNS])
def test_a_template_is_chosen_by_name_or_given(tmp_path: Path, chosen: str) -> None:
    templates = [{"name": "rag", "template": "rag" + TURNS}, {"name": "default", "template": TURNS}]
    spec = campaign(tmp_path, templates, "", chat_template_args={"chat_template": chosen})
    make_plan(spec)
    assert prompts(spec)[0] == "rag<user>Is 0 an even number? Answer:</><model>"


def test_a_checkpoint_without_template_may_be_given_one(tmp_path: Path) -> None:
    assert "the checkpoint has none; set chat_template: false" in refused(tmp_path / "a", "")
    make_plan(campaign(tmp_path / "b", "", chat_template_args={"chat_template": TURNS}))


def test_a_beginning_of_the_answer_is_tried_as_such(tmp_path: Path) -> None:
    ending = "{% if messages[-1]['role'] == 'assistant' %}{{ raise_exception('the model answers') }}{% endif %}" + TURNS
    found = refused(tmp_path, ending, "gen_prefix: 'So'\n")
    assert "it does not take the turns user, assistant (TemplateError: the model answers)" in found


def test_a_tokenizer_that_cannot_be_loaded_is_refused_where_its_template_is_wanted(tmp_path: Path) -> None:
    spec = campaign(tmp_path, TURNS)
    (tmp_path / "gemma" / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="^model 'gemma': chat_template: the tokenizer in '.*' cannot be loaded"):
        make_plan(spec)
    make_plan(spec.model_copy(update={"models": [ModelSpec(model=spec.models[0].model)]}))


def test_a_doc_that_a_template_refuses_is_named_with_the_model(tmp_path: Path) -> None:
    spec = campaign(tmp_path, FILLED + TURNS, "doc_to_text: '{{q if gold else \"\"}}'\n")
    text = (tmp_path / "described.yaml").read_text().replace("doc_to_text: '{{q}} Answer:'\n", "")
    (tmp_path / "described.yaml").write_text(text)
    make_plan(spec)
    with pytest.raises(
        UserError, match=r"prompts of 'described' cannot be built: model 'gemma': chat_template: it does not take"
    ):
        prompts(spec)


def test_a_yaml_in_single_braces_is_told_of_by_the_plan(tmp_path: Path) -> None:
    spec = campaign(tmp_path, TURNS)
    path = tmp_path / "described.yaml"
    path.write_text(path.read_text().replace("{{q}}", "{q}"))
    (warning,) = make_plan(spec).warnings
    assert warning == (
        "benchmark 'described': doc_to_text = '{q} Answer:' is no template, and every doc gets the same prompt: write {{q}} for "
        "a field"
    )
    assert make_plan(spec.model_copy(update={"benchmarks": [BenchmarkSpec(name="steelyard_facts")]})).warnings == ()
