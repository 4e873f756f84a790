"""Scoring stored samples again: new scores beside the old ones, and no engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.results import open_store
from core.upkeep.status import statuses
from flows.campaign import CampaignFailedError, campaign
from flows.failures import CellsFailedError
from flows.rescore import rescore
from tests.core.task_folder import GENERATE, Function
from tests.core.task_folder import write_task as write_own
from tests.flows.scripted import LIMIT, Engines

TASK = """
task: own
custom_dataset: !function rows.rows
output_type: generate_until
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8}}
filter_list:
  - name: number
    filter: [{{function: regex, regex_pattern: "{pattern}"}}, {{function: take_first}}]
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""
ROWS = """
def rows(**_):
    from datasets import Dataset, DatasetDict
    return DatasetDict({{"test": Dataset.from_list([{{"question": f"{prefix}{{n}}?", "answer": "4"}} for n in range(6)])}})
"""


def write_task(folder: Path, *, pattern: str = "([0-9]+)", prefix: str = "") -> str:
    (folder / "own.yaml").write_text(TASK.format(pattern=pattern))
    (folder / "rows.py").write_text(ROWS.format(prefix=prefix))
    return str(folder / "own.yaml")


def test_a_changed_filter_scores_again_without_an_engine(
    engines: Engines, spec: dict[str, Any], tmp_path: Path
) -> None:
    spec = {**spec, "models": spec["models"][:1], "benchmarks": [write_task(tmp_path), "steelyard_prose"]}
    campaign({**spec, "benchmarks": spec["benchmarks"][:1]})
    store = open_store(spec["results"])
    (before,) = store.commit_records().values()
    assert before["headline"]["value"] == 1.0
    engines.built.clear()

    write_task(tmp_path, pattern="no number: ([0-9]+)")
    done = rescore(spec)
    assert (done.rescored, done.unchanged, done.missing) == (("first · own",), (), ("first · steelyard_prose",))
    assert engines.built == {}
    records = store.commit_records()
    after = next(record for record in records.values() if record["fingerprint"] != before["fingerprint"])
    assert records[before["fingerprint"]] == before, "the old score stays"
    assert (after["headline"]["value"], after["metadata"]["rescored_from"]) == (0.0, before["fingerprint"])
    board = store.leaderboard("flows")
    assert list(board["score"]) == [0.0]
    assert list(board["notes"]) == [f"{LIMIT} of {LIMIT} docs: the same target as every other doc"]
    samples = store.samples("flows")
    assert [list(each) for each in samples["faults"]] == [["the same target as every other doc"]] * LIMIT

    again = rescore(spec)
    assert (again.rescored, again.unchanged) == ((), ("first · own",))

    write_task(tmp_path, prefix="other ")
    assert rescore(spec).missing == ("first · own", "first · steelyard_prose")


def results_of(folder: Path, code: str) -> str:
    """A task whose docs ``code`` scores."""
    metrics = [{"metric": "hit", "aggregation": "mean", "higher_is_better": True}]
    functions = f"def results(doc, answers):\n    return {code}\n"
    fields: dict[str, Any] = {**GENERATE, "metric_list": metrics, "process_results": Function("mine.results")}
    return write_own(folder, "fault", fields, functions=functions)


def test_a_fault_in_scoring_costs_no_answer(engines: Engines, spec: dict[str, Any], tmp_path: Path) -> None:
    """Mended, it is scored without an engine: by a rescore, and by the next run."""
    spec = {**spec, "models": spec["models"][:1], "benchmarks": [results_of(tmp_path, "{'hit': doc['nowhere']}")]}
    with pytest.raises(CampaignFailedError, match="fault: no doc could be scored.*KeyError: 'nowhere'"):
        campaign(spec)
    assert len(engines.built["first"].seen) == 3
    engines.built.clear()
    with pytest.raises(CellsFailedError, match="first: fault: no doc could be scored"):
        rescore(spec)
    with pytest.raises(CampaignFailedError):
        campaign(spec)  # nothing is left to ask, and the function is as it was
    assert engines.built == {}

    results_of(tmp_path, "{'hit': 1}")
    assert rescore(spec).rescored == ("first · fault",)
    results_of(tmp_path, "{'hit': 2}")
    board = campaign(spec).leaderboard
    assert (list(board["score"]), list(board["docs"])) == ([2.0], [3])
    assert engines.built == {}
    store = open_store(spec["results"])
    assert len(store.commit_records()) == 2
    assert [(row.state, row.detail) for row in statuses(store)] == [("complete", "")]
