"""A wrong task YAML is refused with file, line, field and fix; what lm-eval takes is taken."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from core.benchmark.find import entries, find
from core.catalogue import imports
from core.catalogue.index import harness_folder, harness_index
from core.catalogue.task_rules import Known, faults_of
from core.catalogue.task_yaml import check_yaml, read_yaml
from core.errors import UserError
from core.yaml_file import FunctionName

GOOD = """\
task: own
dataset_path: json
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
"""


def refused(folder: Path, text: str, **options: Any) -> str:
    path = folder / "own.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        check_yaml(path, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("more", "line", "message"),
    [
        ("dataset_pth: x", 6, "unknown field 'dataset_pth' — did you mean 'dataset_path'?"),
        ("num_fewshot: five", 6, "num_fewshot = 'five': use a whole number"),
        ("num_fewshot: -1", 6, "num_fewshot = -1: use 0 or more"),
        ("repeats: true", 6, "repeats = True: use a whole number"),
        ("should_decontaminate: 'no'", 6, "should_decontaminate = 'no': use true or false"),
        ("process_docs: utils.f", 6, "process_docs = 'utils.f': use !function module.name"),
        ("output_type: multiple-choice", 6, "output_type = 'multiple-choice': use one of"),
        ("doc_to_choice: '{{a'", 6, "doc_to_choice: its template does not parse"),
        ("metric_list: acc", 6, "metric_list = 'acc': use a list"),
        ("metric_list:\n  - acc", 7, "metric_list[0] = 'acc': use a mapping, say {metric: acc"),
        ("metric_list:\n  - aggregation: mean", 7, "metric_list[0] has no 'metric'"),
        (
            "metric_list:\n  - metric: acc_nrm",
            7,
            "metric_list[0].metric = 'acc_nrm': there is no such metric — did you mean 'acc_norm'?",
        ),
        (
            "metric_list:\n  - metric: acc\n    aggregation: men",
            8,
            "metric_list[0].aggregation = 'men': there is no such aggregation — did you mean 'mean'?",
        ),
        (
            "metric_list:\n  - metric: acc\n    agregation: mean",
            8,
            "unknown field 'agregation' in metric_list[0] — did you mean 'aggregation'?",
        ),
        (
            "metric_list:\n  - metric: acc\n    higher_is_better: 1",
            8,
            "metric_list[0].higher_is_better = 1: use true or false",
        ),
        (
            "metric_list:\n  - metric: wer",
            7,
            "metric_list[0]: 'wer' brings no aggregation; add one, say aggregation: mean",
        ),
        ("filter_list:\n  - name: a", 7, "filter_list[0] has no 'filter'"),
        (
            "filter_list:\n  - name: a\n    filters: []",
            8,
            "unknown field 'filters' in filter_list[0] — did you mean 'filter'?",
        ),
        (
            "filter_list:\n  - name: a\n    filter:\n      - function: regx",
            9,
            "filter_list[0].filter[0].function = 'regx': there is no such filter — did you mean 'regex'?",
        ),
        (
            "filter_list:\n  - name: a\n    filter:\n      - function: regex\n        regex_patern: x",
            10,
            "unknown field 'regex_patern' in filter_list[0].filter[0] — did you mean 'regex_pattern'?",
        ),
        ("fewshot_config:\n  samler: first_n", 7, "unknown field 'samler' in fewshot_config — did you mean 'sampler'?"),
        (
            "fewshot_config:\n  sampler: frist_n",
            7,
            "fewshot_config.sampler = 'frist_n': there is no such sampler — did you mean 'first_n'?",
        ),
        ("generation_kwargs: [a]", 6, "generation_kwargs = ['a']: use a mapping"),
        ("generation_kwargs:\n  max_gen_toks: many", 7, "generation_kwargs.max_gen_toks = 'many': use a whole number"),
        ("generation_kwargs:\n  until:\n    - 1", 8, "generation_kwargs.until[0] = 1: use text, in quotes"),
        ("generation_kwargs:\n  do_sample: maybe", 7, "generation_kwargs.do_sample = 'maybe': use true or false"),
    ],
)
def test_a_wrong_field_gets_line_and_fix(tmp_path: Path, more: str, line: int, message: str) -> None:
    fault = refused(tmp_path, f"{GOOD}{more}\n")
    assert f"own.yaml': line {line}: {message}" in fault
    assert "\n" not in fault


@pytest.mark.parametrize("field", ["task", "dataset_path", "test_split", "doc_to_text", "doc_to_target"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    text = "".join(line for line in GOOD.splitlines(keepends=True) if not line.startswith(f"{field}:"))
    assert f"own.yaml': field '{field}' is missing" in refused(tmp_path, text)


def test_multiple_choice_needs_choices(tmp_path: Path) -> None:
    assert "field 'doc_to_choice' is missing" in refused(tmp_path, f"{GOOD}output_type: multiple_choice\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: [\n", "own.yaml': line 2, column 1: "),
        ("task: a\n  b: c\n", "own.yaml': line 2, column 4: "),
        ("a: !unknown b\n", "line 1, column 4: could not determine a constructor for the tag '!unknown'"),
        ("task: own\nmetadata: &a [*a]\n", "own.yaml': line 2: what its anchor marks holds itself"),
        ("\x00", "own.yaml': "),
        ("1: 2\ntask: 3\n", "line 2: task = 3: use text"),
        ("", "empty, not a mapping of fields"),
        ("just words", "a str, not a mapping of fields"),
        ("task: own\ninclude: gone.yaml\n", "line 2: include = 'gone.yaml': cannot read"),
        ("task: own\ninclude: own.yaml\n", "line 2: include = 'own.yaml': the files include each other"),
        ("task: own\ninclude: {a: b}\n", "line 2: include = {'a': 'b'}: use the path of a YAML"),
    ],
)
def test_what_cannot_be_read_gets_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("more", "line", "message"),
    [
        ("num_fewshot: 5\nnum_fewshot: 0", 7, "the field 'num_fewshot' stands twice, first on line 6; leave one out"),
        (
            "metric_list:\n  - metric: acc\n    metric: f1",
            8,
            "the field 'metric' stands twice, first on line 7; leave one out",
        ),
        ("metadata: {a: 1, a: 2}", 6, "the field 'a' stands twice, first on line 6; leave one out"),
        ("'task': other", 6, "the field 'task' stands twice, first on line 1; leave one out"),
    ],
)
def test_a_field_that_stands_twice_is_told_with_both_lines(tmp_path: Path, more: str, line: int, message: str) -> None:
    fault = refused(tmp_path, f"{GOOD}{more}\n")
    assert f"own.yaml': line {line}, column " in fault
    assert fault.endswith(f": {message}")


def test_a_field_that_stands_twice_in_an_included_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "_base").write_text(f"{GOOD}num_fewshot: 5\nnum_fewshot: 0\n")
    assert "_base': line 7, column 1: the field 'num_fewshot' stands twice" in refused(tmp_path, "include: _base\n")


@pytest.mark.parametrize("name", ["turblimp", "zhoblimp"])
def test_lm_eval_s_own_files_are_read_as_lm_eval_reads_them(name: str) -> None:
    """Two of the 15 of its catalogue in which a field stands twice."""
    from lm_eval.tasks._yaml_loader import load_yaml

    path = harness_folder() / name / f"{name}_group.yaml"
    assert path.read_text().count("aggregate_metric_list:") == 2
    assert check_yaml(path, misspelt=False) == load_yaml(path, resolve_func=False)


def test_what_merge_keys_bring_stands_once(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        f"{GOOD}metadata:\n  base: &base {{a: 1, b: 2}}\n  deep: {{deeper: &next {{<<: *base, a: 3}}}}\n"
        "dataset_kwargs: {<<: *next, b: 4}\n"
    )
    assert check_yaml(path)["dataset_kwargs"] == {"a": 3, "b": 4}


CHOICES = "task: own\ndataset_path: json\ntest_split: test\noutput_type: multiple_choice\ndoc_to_text: a\n"


@pytest.mark.parametrize(
    ("written", "line", "shown", "reads"),
    [
        ("doc_to_choice: [no, 'yes']", 6, "[0] = False", "a switch"),
        ("doc_to_choice: [on, off]", 6, "[0] = True", "a switch"),
        ("doc_to_choice: ['a', 2]", 6, "[1] = 2", "a number"),
        ("doc_to_choice:\n  - a\n  - 1.5", 8, "[1] = 1.5", "a number"),
        ("doc_to_choice: [a, 010]", 6, "[1] = 8", "a number"),
        ("doc_to_choice: [a, 12:30]", 6, "[1] = 750", "a number"),
        ("doc_to_choice: [a, 2020-01-02]", 6, "[1] = '2020-01-02'", "a date"),
        ("doc_to_choice: [a, null]", 6, "[1] = None", "none"),
        ("doc_to_choice: [a, ]\nfewshot_config:\n  doc_to_choice: [b, ~]", 8, "[1] = None", "none"),
        ("doc_to_choice: {a: yes, b: no}", 6, ".a = True", "a switch"),
    ],
)
def test_choices_that_yaml_read_as_something_else_are_told_with_the_quotes_they_need(
    tmp_path: Path, written: str, line: int, shown: str, reads: str
) -> None:
    fault = refused(tmp_path, f"{CHOICES}{written}\ndoc_to_target: b\n")
    assert "\n" not in fault
    field = "fewshot_config.doc_to_choice" if "fewshot" in written else "doc_to_choice"
    assert f"own.yaml': line {line}: {field}{shown}: use text, in quotes: YAML reads " in fault
    assert fault.endswith(f"as {reads}")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("doc_to_choice: ['', a]", "doc_to_choice[0] = '': use text of one character at least"),
        ("doc_to_choice: []", "doc_to_choice = []: list the choices"),
        ("doc_to_choice: no", "doc_to_choice = False: use text"),
        ("doc_to_choice: [[a], [b]]", "doc_to_choice[0] = ['a']: use text"),
    ],
)
def test_choices_that_lm_eval_cannot_take_are_refused(tmp_path: Path, written: str, message: str) -> None:
    assert f"line 6: {message}" in refused(tmp_path, f"{CHOICES}{written}\ndoc_to_target: b\n")


@pytest.mark.parametrize(("written", "shown"), [("no", "False"), ("2020-01-02", "'2020-01-02'"), ("1.5", "1.5")])
def test_a_target_that_yaml_read_as_something_else_is_told(tmp_path: Path, written: str, shown: str) -> None:
    fault = refused(tmp_path, f"{GOOD.replace(chr(34) + '{{answer}}' + chr(34), written)}")
    assert f"line 5: doc_to_target = {shown}: use text or a whole number" in fault
    assert ", in quotes: YAML reads " in fault


@pytest.mark.parametrize("name", ["code2text_go", "code2text"])
def test_a_group_s_member_in_the_catalogue_is_checked_as_it_is_alone(name: str) -> None:
    with pytest.raises(UserError, match=r"line 6: generation_kwargs\.num_beams = 10: vLLM searches no beams.*go\.yaml"):
        find(name)


@pytest.mark.parametrize("name", ["niah_single_1", "ruler"])
def test_a_package_that_a_task_needs_by_way_of_its_helpers_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    imports._missing_of_shipped.cache_clear()
    monkeypatch.setattr(imports, "_is_installed", lambda package: package not in ("wonderwords", "nltk"))
    told = r"prepare_niah\.py \(by way of niah_utils\.py\) imports 'nltk' and 'wonderwords', which are not installed: "
    try:
        with pytest.raises(UserError, match=rf"line \d+: custom_dataset = .*{told}pip install '[a-z-]+\[ruler\]'"):
            find(name)
    finally:
        imports._missing_of_shipped.cache_clear()


def test_every_fault_has_a_line_of_its_own_in_the_file_s_order(tmp_path: Path) -> None:
    found = refused(tmp_path, f"{GOOD}repeats: 0\nnum_fewshot: x\noutput_type: y\n").splitlines()
    assert [line.split("line ")[1][0] for line in found] == ["6", "7", "8"]


def test_a_fault_of_an_included_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "_base").write_text(f"# a template\n{GOOD.replace('task: own', 'num_fewshot: x')}")
    fault = refused(tmp_path, "include: _base\ntask: own\n")
    assert "_base': line 2: num_fewshot = 'x': use a whole number (included by own.yaml)" in fault
    (tmp_path / "own.yaml").write_text("include: _base\ntask: own\nnum_fewshot: 1\n")
    assert check_yaml(tmp_path / "own.yaml")["num_fewshot"] == 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("utils.proces", "utils.py defines no 'proces' — did you mean 'process'?"),
        ("utls.process", "there is no utls.py beside the YAML and no such module installed — did you mean 'utils'?"),
        ("process", "write module.function"),
        ("broken.process", "broken.py line 1: "),
        ("needs.process", "needs.py imports 'no_such_package', which is not installed"),
        ("json.no_such_function", "json/__init__.py defines no 'no_such_function'"),
    ],
)
def test_a_function_that_is_not_there_is_refused(tmp_path: Path, function: str, message: str) -> None:
    (tmp_path / "utils.py").write_text("def process(docs): return docs\n")
    (tmp_path / "broken.py").write_text("def process(:\n")
    (tmp_path / "needs.py").write_text(
        "try:\n    import no_such_package\nexcept ImportError as e:\n    raise ImportError('x') from e\ndef process(d): ...\n"
    )
    fault = refused(tmp_path, f"{GOOD}process_docs: !function {function}\n")
    assert f"line 6: process_docs = !function {function}: {message}" in fault


@pytest.mark.parametrize(
    "source",
    [
        "from json import dumps as f\n",
        "import json\nif json:\n    f = print\n",
        "try:\n    import no_such_package\nexcept ImportError:\n    no_such_package = None\ndef f(x): ...\n",
        "globals().update({'f': print})\n",
        "from json import *\n",
        "class f: ...\n",
    ],
)
def test_a_function_that_is_there_is_found_without_running_its_module(tmp_path: Path, source: str) -> None:
    (tmp_path / "utils.py").write_text(f"{source}\nif __name__: raise SystemExit\n")
    path = tmp_path / "own.yaml"
    path.write_text(f"{GOOD}process_docs: !function utils.f\n")
    assert check_yaml(path)["process_docs"].written == "utils.f"


def test_names_that_a_task_registers_itself_are_known(tmp_path: Path) -> None:
    (tmp_path / "utils.py").write_text(
        "from lm_eval.api.registry import register_filter\n\n@register_filter('mine')\nclass Mine: ...\ndef f(x): ...\n"
    )
    path = tmp_path / "own.yaml"
    path.write_text(
        f"{GOOD}process_docs: !function utils.f\nfilter_list:\n  - name: a\n    filter:\n      - function: mine\n        any: 1\n"
    )
    assert check_yaml(path)["filter_list"][0]["filter"][0]["function"] == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("group: g\n", "task = None: list the group's tasks"),
        ("group: g\ntask: own\n", "line 1: group: one task is no group; write 'tag'"),
        ("group: g\ntask:\n  - a\n  - b\n", "line 4: task[1] = 'b' is not known"),
        ("group: g\ntask:\n  - {dataset_path: x}\n", "line 3: task[0] has neither 'task' nor 'group'"),
        ("group: g\ntask: [a]\naggregate_metric_list:\n  - metrc: acc\n", "line 4: unknown field 'metrc'"),
        (
            "group: g\ntask: [a]\naggregate_metric_list:\n  - metric: acc\n    aggregation: median\n",
            "line 5: aggregate_metric_list[0].aggregation = 'median': use mean",
        ),
        ("group: g\ntask: [a]\nnum_fewshto: 3\n", "line 3: unknown field 'num_fewshto' — did you mean 'num_fewshot'?"),
    ],
)
def test_a_wrong_group_gets_line_and_fix(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text, members={"a": None})


@pytest.mark.parametrize("wrong", ["leaf", "inner"])
def test_a_field_that_stands_twice_in_a_group_s_member_is_told(tmp_path: Path, wrong: str) -> None:
    texts = {"outer": "group: outer\ntask: [inner]\n", "inner": "group: inner\ntask: [own]\n", "leaf": GOOD}
    texts[wrong] += "metadata: {}\nmetadata: {}\n"
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"{wrong}\.yaml': line \d, column 1: the field 'metadata' stands twice"):
        find(str(tmp_path / "outer.yaml"))


def harness_fault(name: str) -> BaseException | None:
    """What lm-eval itself stumbles over before it asks for a dataset, None where it gets that far."""
    import datasets
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import Entry, Kind

    asked = RuntimeError("asked for a dataset")

    def ask(*args: Any, **kwargs: Any) -> None:
        raise asked

    kinds = {"task": Kind.TASK, "python": Kind.PY_TASK, "group": Kind.GROUP, "tag": Kind.TAG}
    manager = TaskManager(include_defaults=False)
    for entry in entries().values():
        manager.task_index[entry.name] = Entry(entry.name, kinds[entry.kind], entry.path, tags=set(entry.members))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_dataset", ask)
        try:
            manager.load(name)
        except BaseException as error:
            return None if error is asked else error
    return None


def test_only_what_lm_eval_cannot_build_is_refused_of_its_catalogue() -> None:
    index = harness_index()
    suspects, folders = [], set()
    for entry in index.entries.values():
        if entry.path is None:
            continue
        known = Known(index.entries, misspelt=False)
        # The whole check, which reads the file again, once a folder; the rules alone for the thousands beside it.
        first = entry.path.parent not in folders
        folders.add(entry.path.parent)
        if first or faults_of(dict(entry.config or {}), known):
            try:
                check_yaml(entry.path, index.entries, misspelt=False)
            except UserError as error:
                suspects.append((entry.name, str(error)))
    assert len(folders) > 500
    beams = {name for name, fault in suspects if "num_beams = 10: vLLM searches no beams" in fault}
    assert beams == {f"code2text_{language}" for language in ("go", "java", "javascript", "php", "python", "ruby")}
    for name, fault in suspects:
        assert name in beams or harness_fault(name) is not None, fault


def test_an_installed_module_is_looked_up_without_importing_it(tmp_path: Path) -> None:
    before: dict[str, ModuleType] = dict(sys.modules)
    path = tmp_path / "own.yaml"
    path.write_text(f"{GOOD}process_docs: !function lm_eval.tasks.bbh.cot_fewshot.no_such_module.f\n")
    with pytest.raises(UserError, match="no such module installed"):
        check_yaml(path)
    assert "lm_eval.tasks.bbh" not in set(sys.modules) - set(before)


def test_functions_know_their_yaml_s_folder(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(f"{GOOD}process_docs: !function utils.f\n")
    (function,) = [v for v in read_yaml(tmp_path / "own.yaml").config.values() if isinstance(v, FunctionName)]
    assert (function.written, function.folder, str(function)) == ("utils.f", tmp_path, str(tmp_path / "utils.f"))
    assert harness_folder().is_dir()
