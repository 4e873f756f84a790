"""The catalogue: the same names as lm-eval's, listed without datasets or code; tasks, groups and Python tasks by path."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.benchmark.benchmark import check_benchmark, load_benchmark
from core.benchmark.find import cluster_field, entries, find, leaves_of
from core.benchmark.listing import Listing, details, known_licences, licence_of, listings, select, summary
from core.benchmark.load import load_tasks
from core.campaign import BenchmarkSpec, load_spec
from core.catalogue.index import harness_folder, leaves, read_index
from core.errors import UserError

ROW = {"question": "1 + 1", "answer": "2"}
TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
"""


def write_task(folder: Path, name: str, more: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = folder / "rows.jsonl"
    rows.write_text(json.dumps(ROW) + "\n")
    path = folder / f"{name}.yaml"
    path.write_text(TASK.format(name=name, rows=rows) + more)
    return path


def test_the_index_is_lm_eval_s() -> None:
    from lm_eval.tasks._index import TaskIndex

    kinds = {"TASK": "task", "PY_TASK": "python", "GROUP": "group", "TAG": "tag"}
    folders = [path for path in sorted(harness_folder().iterdir()) if path.is_dir()][::6]  # all of them take it 10 s
    for folder in [*folders, harness_folder() / "mmlu", harness_folder() / "scrolls"]:
        theirs = TaskIndex.build([folder])
        assert {
            name: (kinds[entry.kind.name], entry.yaml_path, sorted(entry.tags)) for name, entry in theirs.items()
        } == {
            name: (entry.kind, entry.path, sorted(entry.members or entry.tags))
            for name, entry in read_index(folder).entries.items()
        }


def test_leaves_are_the_tasks_that_lm_eval_builds_with_what_groups_override(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_task(tmp_path, name, "tag: [some]\n" if name != "a" else "")
    group = tmp_path / "all.yaml"
    group.write_text(
        "group: all\nnum_fewshot: 0\ndescription: from the group\ntask:\n  - {task: a, description: from the entry}\n"
        "  - group: inner\n    description: from the inner group\n    task: [b]\n  - some\n"
    )
    found = {leaf.name: leaf.config["description"] for leaf in leaves_of(str(group))}
    tasks, groups = load_tasks(str(group))
    assert found == {name: task.config.description for name, task in tasks.items()}
    assert groups.keys() == {"all", "all::inner"}


def test_listing_loads_no_dataset_and_runs_no_code() -> None:
    code = (
        "import sys; from core.benchmark.listing import listings; found = listings(); "
        "print(len(found), [name for name in ('lm_eval', 'datasets', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, heavy = done.stdout.split(" ", 1)
    assert int(count) >= len(entries())
    assert heavy.strip() == "[]"


def test_everything_is_listed_and_what_cannot_be_loaded_says_why() -> None:
    found = {each.name: each for each in listings()}
    assert found.keys() >= entries().keys()
    gsm8k = found["gsm8k"]
    assert (gsm8k.kind, gsm8k.request_types, gsm8k.dataset, gsm8k.config) == (
        "task",
        ("generate_until",),
        "openai/gsm8k",
        "main",
    )
    assert (gsm8k.num_fewshot, "math_word_problems" in gsm8k.tags, Path(gsm8k.path).is_file()) == (5, True, True)
    mmlu = found["mmlu"]
    assert (mmlu.kind, mmlu.dataset, mmlu.tasks, mmlu.request_types) == ("group", "cais/mmlu", 57, ("multiple_choice",))
    assert found["humaneval"].kind == "bundled"
    assert found["core"].kind == "suite"
    assert "neither 'task' nor 'group'" in found["t0_eval"].fault
    assert "1 cannot be loaded" in summary(found.values())


def test_a_folder_s_broken_files_are_listed_with_their_fault(tmp_path: Path) -> None:
    write_task(tmp_path, "good")
    (tmp_path / "bad.yaml").write_text("task: [\n")
    (tmp_path / "nameless.yaml").write_text("dataset_path: x\n")
    (tmp_path / "twice.yaml").write_text("task: good\n")
    (tmp_path / "_base.yaml").write_text("dataset_path: x\n")
    (tmp_path / "more.yaml").write_text("include: _base.yaml\ntask: more\n")
    found = listings(tmp_path)
    assert {each.name: each.fault.split(":")[0].split(" by ")[0] for each in found if each.kind == "broken"} == {
        "bad.yaml": "line 2, column 1",
        "nameless.yaml": "names neither a 'task' nor a 'group'",
        "twice.yaml": "the name 'good' is taken",
    }
    assert "3 broken files; 3 cannot be loaded" in summary(found)


@pytest.fixture(scope="module")
def catalogue() -> list[Listing]:
    return listings()


def test_a_search_looks_at_names_datasets_and_tags(catalogue: list[Listing]) -> None:
    def names(*args: str, **options: str) -> set[str]:
        return {each.name for each in select(catalogue, *args, **options)}

    assert "gsm8k" in names("openai/gsm8k cot") | names("openai/gsm8k")
    assert {"gsm8k_cot", "gsm8k"} <= names("OPENAI/GSM8K")
    assert names("gsm8k_c?t") == {"gsm8k_cot"}
    assert names(suite="math") == {"gsm8k", "hendrycks_math500", "aime24", "aime25"}
    tagged = select(catalogue, tag="math_word_problems", request_type="multiple_choice")
    assert "mathqa" in {each.name for each in tagged}
    assert all(each.request_types == ("multiple_choice",) for each in tagged)
    assert {each.kind for each in select(catalogue, kind="suite")} == {"suite"}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"tag": "math_word_problem"}, "did you mean 'math_word_problems'"),
        ({"request_type": "generate"}, "use one of generate_until, loglikelihood"),
        ({"suite": "maths"}, "did you mean 'math'"),
        ({"kind": "tasks"}, "did you mean 'task'"),
    ],
)
def test_an_option_nothing_has_gets_the_nearest(catalogue: list[Listing], option: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        select(catalogue, **option)


def test_details_name_metrics_members_and_what_is_missing_here(catalogue: list[Listing]) -> None:
    found = {each.name: each for each in catalogue}
    facts = details(found["hellaswag"])
    assert facts["metrics"] == "acc, acc_norm"
    assert facts["splits"] == "validation: validation, training: train"
    assert "mmlu_anatomy" in details(found["mmlu"])["tasks"]
    assert "gsm8k (5-shot)" in details(found["core"])["benchmarks"]
    assert "not installed" in details(found["acp_app_gen"])["fault"]


def test_licences_of_well_known_datasets_are_known_without_a_hub() -> None:
    licences = {leaf.name: licence_of(leaf) for name in ("gsm8k", "arc_easy", "hellaswag") for leaf in leaves_of(name)}
    assert licences == {"gsm8k": "mit", "arc_easy": "cc-by-sa-4.0", "hellaswag": "unknown"}
    used = {str(entry.config.get("dataset_path")) for entry in entries().values() if entry.config}
    assert known_licences().keys() <= used, "each is a dataset of the catalogue"


def test_a_licence_is_what_folder_readme_or_yaml_say(tmp_path: Path) -> None:
    def licence(readme: str, more: str = "") -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        write_task(folder, "own", more)
        (folder / "README.md").write_text(readme)
        (leaf,) = leaves(read_index(folder).entries, "own")
        return licence_of(leaf)

    assert licence("# Own\n**License:** MIT License\n") == "MIT License"
    assert licence("- Licence: CC-BY-4.0.\n") == "CC-BY-4.0"
    assert licence("Distributed under the License is the harness.\n") == "unknown"
    assert licence("License: MIT\n", "metadata: {version: 1, license: Apache-2.0}\n") == "Apache-2.0"


def test_an_unknown_member_of_an_own_group_is_named_with_its_line(tmp_path: Path) -> None:
    write_task(tmp_path, "a")
    group = tmp_path / "all.yaml"
    group.write_text("group: all\ntask:\n  - a\n  - gsm8k\n  - hellaswagg\n")
    with pytest.raises(
        UserError, match="all.yaml': line 5: task\\[2\\] = 'hellaswagg' is not known — did you mean 'hellaswag'"
    ):
        check_benchmark(BenchmarkSpec(name=str(group)))


def test_a_fault_of_an_own_group_s_member_is_found_before_anything_starts(tmp_path: Path) -> None:
    write_task(tmp_path, "a", "output_type: guess\n")
    group = tmp_path / "all.yaml"
    group.write_text("group: all\ntask: [a]\n")
    with pytest.raises(UserError, match="a.yaml': line 7: output_type = 'guess'"):
        check_benchmark(BenchmarkSpec(name=str(group)))
    group.write_text("group: all\noutput_type: generate_until\ntask: [a]\n")
    check_benchmark(BenchmarkSpec(name=str(group)))


def test_bundled_benchmarks_can_be_members_of_own_groups(tmp_path: Path) -> None:
    write_task(tmp_path, "a")
    group = tmp_path / "all.yaml"
    group.write_text("group: all\ntask: [a, steelyard_facts]\n")
    assert load_benchmark(BenchmarkSpec(name=str(group), limit=1), chat=None, seed=1).docs == 2


def test_a_suite_s_name_is_explained_where_it_cannot_stand() -> None:
    with pytest.raises(UserError, match="'core' is a suite"):
        find("core")


PYTHON_TASK = """
from datasets import Dataset, DatasetDict
from lm_eval.api.task import ConfigurableTask

class Own(ConfigurableTask):
    def __init__(self, config=None):
        fields = {"task": "own", "test_split": "test", "doc_to_text": "{{q}}", "doc_to_target": "{{a}}"}
        super().__init__(config=fields)

    def download(self, *args, **kwargs):
        self.dataset = DatasetDict({"test": Dataset.from_list([{"q": "1 + 1", "a": "2"}])})
"""


def test_a_folder_with_a_python_task_runs_every_task_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write_task(folder, "plain")
    (folder / "own.py").write_text(PYTHON_TASK)
    (folder / "own.yaml").write_text("task: own\nclass: !function own.Own\n")
    (tmp_path / "campaign.yaml").write_text("name: n\nmodels: [org/m]\nbenchmarks: [{name: mine/, limit: 1}]\n")
    spec = load_spec(tmp_path / "campaign.yaml")
    assert [Path(each.name).name for each in spec.benchmarks] == ["own.yaml", "plain.yaml"]
    for benchmark in spec.benchmarks:
        check_benchmark(benchmark)
        (request,) = load_benchmark(benchmark, chat=None, seed=1).requests()
        assert getattr(request, "prompt", None) == "1 + 1"


def test_a_python_task_whose_class_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(PYTHON_TASK)
    (tmp_path / "own.yaml").write_text("task: own\nclass: !function own.Onw\n")
    with pytest.raises(
        UserError, match="line 2: class = !function own.Onw: own.py defines no 'Onw' — did you mean 'Own'"
    ):
        check_benchmark(BenchmarkSpec(name=str(tmp_path / "own.yaml")))


def write_benchmark(folder: Path, metadata: str) -> str:
    path = folder / "passages.yaml"
    path.write_text(
        "task: passages\ndataset_path: json\noutput_type: generate_until\ntest_split: train\n"
        f"doc_to_text: '{{{{question}}}}'\ndoc_to_target: '{{{{answer}}}}'\nmetadata: {metadata}\n"
    )
    return str(path)


def test_a_benchmark_names_its_cluster_in_its_metadata(tmp_path: Path) -> None:
    assert cluster_field(write_benchmark(tmp_path, "{version: 1.0, cluster: passage}")) == "passage"


def test_a_benchmark_that_names_none_has_none(tmp_path: Path) -> None:
    assert cluster_field(write_benchmark(tmp_path, "{version: 1.0}")) is None
    assert cluster_field("steelyard_facts") is None


def test_a_cluster_that_is_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metadata\.cluster = \['passage', 'title'\]: name one field"):
        cluster_field(write_benchmark(tmp_path, "{cluster: [passage, title]}"))
