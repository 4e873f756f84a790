"""Suites and folders: their members stand in the campaign as benchmarks of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.benchmark.find import entries, find
from core.campaign import CampaignSpec, benchmark_label, load_spec
from core.catalogue.index import harness_index
from core.catalogue.task_yaml import check_yaml
from core.errors import UserError
from core.spec.suite import suites


def spec(*benchmarks: Any) -> CampaignSpec:
    return load_spec({"name": "n", "models": ["org/m"], "benchmarks": list(benchmarks)})


def refused(*benchmarks: Any) -> str:
    with pytest.raises(UserError) as caught:
        spec(*benchmarks)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_suites_are_there_with_versions_and_no_name_of_the_catalogue() -> None:
    assert suites().keys() == {"core", "math", "code", "reasoning", "multimodal", "long-context"}
    for suite in suites().values():
        assert suite.version
        assert suite.description.endswith(".")
        assert len({benchmark_label(member) for member in suite.members}) == len(suite.members) > 1
    assert suites().keys().isdisjoint(harness_index().entries)


@pytest.mark.parametrize("name", suites())
def test_every_member_is_in_the_catalogue_and_can_be_built_here(name: str) -> None:
    for member in suites()[name].members:
        assert member.name in entries()
        find(member.name)


@pytest.mark.parametrize("name", suites())
def test_a_suite_s_yaml_is_a_group_of_lm_eval_s_format(name: str) -> None:
    check_yaml(suites()[name].path, entries())


def test_members_stand_where_the_name_stood_with_the_settings_given_to_it() -> None:
    found = spec("steelyard_facts", {"name": "core", "limit": 7}, "ifeval").benchmarks
    members = suites()["core"].members
    assert [each.name for each in found] == ["steelyard_facts", *(each.name for each in members), "ifeval"]
    assert {each.limit for each in found[1:-1]} == {7}
    assert [each.num_fewshot for each in found[1:-1]] == [each.num_fewshot for each in members]
    assert {each.suite for each in found} == {None, suites()["core"].label}
    assert {each.num_fewshot for each in spec({"name": "core", "num_fewshot": 1}).benchmarks} == {1}


def test_a_spec_that_is_expanded_stays_as_it_is() -> None:
    once = spec("core", "math")
    assert CampaignSpec.model_validate(once.model_dump(mode="json")) == once


def test_a_benchmark_that_is_named_itself_keeps_its_settings() -> None:
    found = {each.name: each for each in spec("core", {"name": "gsm8k", "num_fewshot": 8}).benchmarks}
    assert (found["gsm8k"].num_fewshot, found["gsm8k"].suite) == (8, None)


def test_what_two_suites_list_comes_once_and_must_be_the_same() -> None:
    names = [each.name for each in spec("core", "math").benchmarks]
    assert names.count("gsm8k") == 1
    assert "'gsm8k' comes from 'core' and 'math' with other settings" in refused({"name": "core", "limit": 3}, "math")
    spec({"name": "core", "limit": 3}, "math", "gsm8k")


def test_a_revision_is_one_dataset_s() -> None:
    assert "'core': dataset_revision is one dataset's" in refused({"name": "core", "dataset_revision": "v1"})


def write(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_a_folder_stands_for_its_tasks_and_groups_not_for_members_and_templates(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "mine",
        a="task: a\n",
        b="include: _base.yaml\ntask: b\n",
        _base="dataset_path: x\n",
        all="group: all\ntask: [a, {group: inner, task: [c]}]\n",
        c="task: c\n",
    )
    assert [Path(each.name).stem for each in spec(f"{folder}/").benchmarks] == ["all", "b"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no task YAML in it; a Python task needs one too"),
        ({"a": "task: [\n"}, "a.yaml': line 2, column 1"),
        (
            {"a": "task: a\n", "c": "name: n\nmodels: []\n"},
            "c.yaml': names neither a 'task' nor a 'group'; mend it, or name",
        ),
    ],
)
def test_a_folder_that_is_not_clear_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    folder = write(tmp_path / "mine", **files)
    assert message in refused(f"{folder}/")


def test_a_folder_that_is_not_there_gets_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "my_tasks", a="task: a\n")
    assert "no such folder — did you mean 'my_tasks'?" in refused(f"{tmp_path}/my_taks/")


def test_ruler_stands_in_the_long_context_suite_at_six_lengths() -> None:
    found = {benchmark_label(each): each for each in spec("long-context").benchmarks}
    lengths = {label: each.metadata["max_seq_lengths"] for label, each in found.items() if each.name == "ruler"}
    assert lengths == {f"ruler_{size}k": [size * 1024] for size in (4, 8, 16, 32, 64, 128)}
    assert "label is one benchmark's" in refused({"name": "long-context", "label": "mine"})
