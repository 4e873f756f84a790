"""``steelyard benchmarks`` and ``steelyard datasets list`` in process. Nothing here loads a dataset or starts an engine."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from core.benchmark.find import bundled, entries
from core.spec.suite import suites

Run = Callable[..., tuple[int, str, str]]


def test_every_name_is_a_line_and_the_last_one_counts_them(steelyard: Run) -> None:
    code, out, _ = steelyard("benchmarks")
    assert code == 0
    lines = out.splitlines()
    assert {line.split(" ")[0] for line in lines} >= entries().keys()
    assert f"{len(suites())} suites, {len(bundled())} bundled; 1 cannot be loaded" in lines[-1]


def test_an_exact_name_gives_details_and_says_how_many_more_match(steelyard: Run) -> None:
    code, out, _ = steelyard("benchmarks", "gsm8k")
    assert code == 0
    for fact in ("openai/gsm8k main", "exact_match", "math_word_problems", "gsm8k.yaml", "more match 'gsm8k'"):
        assert fact in out


def test_csv_and_json_carry_the_same_rows(steelyard: Run) -> None:
    arguments = ("benchmarks", "gsm8k_cot*", "--type", "generate_until", "--format")
    _, text, _ = steelyard(*arguments, "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    _, text, _ = steelyard(*arguments, "json")
    objects = [json.loads(line) for line in text.splitlines()]
    assert [row["name"] for row in rows] == [each["name"] for each in objects]
    assert len(rows) > 2
    assert objects[0]["tags"] == rows[0]["tags"].split()
    _, text, _ = steelyard("benchmarks", "core", "--format", "json")
    assert "arc_challenge (25-shot)" in json.loads(text)["details"]["benchmarks"]


def test_a_folder_of_one_s_own_is_listed_with_what_is_broken(steelyard: Run, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("task: good\ndataset_path: org/data\n")
    (tmp_path / "bad.yaml").write_text("task: [\n")
    code, out, _ = steelyard("benchmarks", f"{tmp_path}/")
    assert code == 0
    assert "org/data" in out
    assert "cannot be loaded: line 2, column 1" in out
    assert "1 broken files; 1 cannot be loaded" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gsmk8"], "no benchmark for 'gsmk8' — did you mean 'gsm8k'?"),
        (["--tag", "no_such_tag"], "--tag no_such_tag: nothing in the catalogue has it"),
        (["--format", "excel"], "format 'excel': use one of table, csv, json"),
        (["no/such/folder"], "'no/such/folder': no such folder of task YAMLs"),
        (["gsm8k", "--type", "loglikelihood"], "no benchmark for 'gsm8k'"),
    ],
)
def test_what_is_not_there_is_one_line_and_exit_2(steelyard: Run, arguments: list[str], words: str) -> None:
    code, out, err = steelyard("benchmarks", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_a_wrong_task_yaml_names_file_line_field_and_fix_and_nothing_starts(
    steelyard: Run, campaign: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text(
        "task: own\ndataset_path: json\ntest_split: test\ndoc_to_text: a\ndoc_to_target: b\nnum_fewshot: five\n"
    )
    code, out, err = steelyard("run", campaign("own.yaml"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{tmp_path}/own.yaml': line 6: num_fewshot = 'five': use a whole number" in err
    assert not (tmp_path / "results").exists()


def test_a_field_that_stands_twice_in_a_task_yaml_is_told_with_both_lines_and_exit_2(
    steelyard: Run, campaign: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text(
        "task: own\ndataset_path: json\ntest_split: test\ndoc_to_text: a\ndoc_to_target: b\nnum_fewshot: 5\nnum_fewshot: 0\n"
    )
    code, out, err = steelyard("plan", campaign("own.yaml"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert (
        f"{tmp_path}/own.yaml': line 7, column 1: the field 'num_fewshot' stands twice, first on line 6; leave" in err
    )


def test_a_dataset_that_cannot_be_had_is_named_and_nothing_starts(
    steelyard: Run, campaign: Callable[..., str], tmp_path: Path
) -> None:
    code, out, err = steelyard("run", campaign("gsm8k", "steelyard_facts", datasets={"offline": True}))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "benchmark 'gsm8k': dataset 'openai/gsm8k' cannot be had: datasets.offline is set" in err
    assert not (tmp_path / "results").exists()


def test_datasets_are_listed_with_place_and_fault(steelyard: Run, campaign: Callable[..., str]) -> None:
    code, out, _ = steelyard("datasets", "list", campaign("mmlu", "steelyard_facts", datasets={"offline": True}))
    assert code == 1
    lines = {line.split(" ")[0]: line for line in out.splitlines()}
    assert "57 configs" in lines["cais/mmlu"]
    assert "datasets.offline is set" in lines["cais/mmlu"]
    assert "code" in lines["hooks.rows"]
    assert steelyard("datasets", "list", campaign("steelyard_facts"))[0] == 0


def test_plan_warns_of_a_prompt_that_every_doc_gets_and_goes_on(
    steelyard: Run, campaign: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"q": "2 + 2?", "a": "4"}\n')
    files = f"dataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}\n"
    text = f"task: own\ndataset_path: json\n{files}test_split: test\ndoc_to_text: 'Q: {{q}}'\ndoc_to_target: a\n"
    (tmp_path / "own.yaml").write_text(text)
    code, out, err = steelyard("plan", campaign("own.yaml"))
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith("steelyard: warning: benchmark 'own': doc_to_text = 'Q: {q}' is no template")
    assert "lightweight" in out
