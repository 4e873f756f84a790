"""``steelyard import`` and ``export`` with lm-evaluation-harness's own files: written by it, read by it, nothing lost between."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.compare.compare import compare_store
from core.results import open_store
from core.sample import Cell, Sample, Score, Scoring
from tests.core.store_parts import METADATA

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of two runs of the harness."""
    folder = tmp_path_factory.mktemp("harness")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.core.lm_eval_run", str(folder)]
    subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)
    return folder


def results_of(folder: Path) -> Path:
    (path,) = folder.rglob("results_*.json")
    return path


def lines_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    from lm_eval.utils import get_file_task_name, get_sample_results_filenames

    paths = get_sample_results_filenames([str(path) for path in folder.rglob("*") if path.is_file()])
    return {
        get_file_task_name(Path(path).name): [json.loads(line) for line in Path(path).read_text().splitlines()]
        for path in paths
    }


def loaded(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_harness_files_come_back_out_as_they_went_in(steelyard: Run, harness: Path, tmp_path: Path) -> None:
    store, out = str(tmp_path / "store"), tmp_path / "out"
    files = [str(path) for path in (harness / "single").rglob("*") if path.is_file()]
    code, said, _ = steelyard("import", "lm-eval", *files, "--store", store)
    assert (code, said.count("8 samples\n")) == (0, 3)
    assert steelyard("export", str(out), "--store", store)[0] == 0
    before, after = loaded(results_of(harness / "single")), loaded(results_of(out))
    for part in ("results", "configs", "versions", "n-shot", "higher_is_better", "config", "model_name", "date"):
        assert after[part] == before[part], part
    assert after["task_hashes"] == before["task_hashes"]
    assert lines_of(out) == lines_of(harness / "single")


def test_imported_scores_stand_in_the_leaderboard_with_intervals(steelyard: Run, harness: Path, tmp_path: Path) -> None:
    store, path = str(tmp_path / "store"), results_of(harness / "single")
    steelyard("import", "lm-eval", str(path), "--store", store, "--name", "old-run")
    results = loaded(path)["results"]
    board = compare_store(open_store(store)).board.set_index("benchmark")
    assert board["score"].to_dict() == {
        "steelyard_arithmetic": results["steelyard_arithmetic"]["exact_match,first-number"],
        "steelyard_facts": results["steelyard_facts"]["acc,none"],
        "steelyard_prose": results["steelyard_prose"]["word_perplexity,none"],
    }
    assert set(board["model"]) == {"old-run"}
    assert set(board["engine"]) == {"lm-eval"}
    assert board["low"].notna().to_dict() == {
        "steelyard_arithmetic": True,
        "steelyard_facts": True,
        "steelyard_prose": False,
    }
    assert not board.loc["steelyard_prose", "higher_is_better"]


def test_a_file_that_is_imported_twice_changes_nothing(steelyard: Run, harness: Path, tmp_path: Path) -> None:
    arguments = ("import", "lm-eval", str(results_of(harness / "single")), "--store", str(tmp_path / "store"))
    steelyard(*arguments)
    assert steelyard(*arguments)[1].count("(known already)") == 3
    assert len(open_store(str(tmp_path / "store")).commit_records()) == 3


def test_a_group_is_one_benchmark_with_its_own_score(steelyard: Run, harness: Path, tmp_path: Path) -> None:
    store, path = str(tmp_path / "store"), results_of(harness / "grouped")
    assert steelyard("import", "lm-eval", str(path), "--store", store)[0] == 0
    (row,) = compare_store(open_store(store)).board.to_dict("records")
    assert (row["benchmark"], row["metric"], row["docs"]) == ("both", "acc", 16)
    assert row["score"] == loaded(path)["groups"]["both"]["acc,none"]
    assert row["low"] < row["high"]
    steelyard("export", str(tmp_path / "out"), "--store", store)
    exported = loaded(results_of(tmp_path / "out"))
    assert exported["groups"]["both"]["acc,none"] == row["score"]
    assert sorted(exported["group_subtasks"]["both"]) == ["steelyard_facts", "steelyard_letters"]


@pytest.fixture
def ours(tmp_path: Path) -> str:
    """A store of our own with generation under two filters and repeats, and choices."""
    store = open_store(str(tmp_path / "ours"))
    settings = {"source": "org/tiny", "revision": "r1", "dtype": "float32", "checkpoint": "c0ffee"}
    task = {"version": 2.0, "num_fewshot": 5, "repeats": 2, "harness": "0.4.13"}
    generated = tuple(
        Sample(
            task="sums",
            doc_id=place,
            doc=json.dumps({"question": f"{place} + 1", "text": "ä\u2028"}),
            prompt=f"{place} + 1 =",
            choices=(),
            target=str(place + 1),
            texts=(f" {place + 1}", " no"),
            reasoning=("hm", ""),
            filtered={"strict": f"{place + 1}", "flexible": f'["{place + 1}", "no"]'},
            values={"exact_match,strict": 1.0, "exact_match,flexible": 0.5},
            value=1.0,
            error="it died" if place == 2 else None,
        )
        for place in range(3)
    )
    scores = tuple(
        Score("sums", "exact_match", filter_, value, stderr, 2, higher_is_better=True, primary=filter_ == "strict")
        for filter_, value, stderr in (("strict", 1.0, 0.0), ("flexible", 0.5, None))
    )
    for number, benchmark in enumerate(("sums", "sums_again")):  # two benchmarks with one task
        cell = Cell(
            f"{number:064}", "tiny", benchmark, {**settings, "benchmark": {"tasks": {"sums": task}, "limit": 3}}
        )
        store.commit(cell, Scoring(generated, scores, scores[0]), METADATA)
    chosen = Sample("pick", 0, "{}", "Which?", (" a", " b"), "1", logprobs=(-1.5, -0.5), is_greedy=(False, True))
    chosen = Sample(**{**vars(chosen), "values": {"acc,none": 1.0}, "value": 1.0})
    score = Score("pick", "acc", "none", 1.0, None, 1, higher_is_better=True, primary=True)
    store.commit(Cell("f" * 64, "tiny", "pick", settings), Scoring((chosen,), (score,), score), METADATA)
    return store.uri


def test_the_harness_own_code_reads_our_export(steelyard: Run, ours: str, tmp_path: Path) -> None:
    import datasets
    from lm_eval.loggers.wandb_logger import WandbLogger
    from lm_eval.utils import get_latest_filename, get_results_filenames, get_sample_results_filenames, make_table

    out = tmp_path / "out"
    code, said, _ = steelyard("export", str(out), "--store", ours)
    assert code == 0
    files = said.split()
    assert {Path(file).parent.name for file in files} == {"tiny"}
    assert len(get_results_filenames(files)) == 2
    assert len(get_sample_results_filenames(files)) == 3
    first = loaded(Path(min(get_results_filenames(files))))
    table = make_table(first)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert ["", "", "strict", "5", "exact_match", "↑", "1.0", "±", "0.0000"] in cells
    assert {row[0] for row in cells} >= {"sums", "pick"}
    newest = loaded(Path(get_latest_filename(get_results_filenames(files))))
    assert newest["steelyard"]["fingerprints"] == {"sums_again": f"{1:064}"}
    samples = sorted(file for file in get_sample_results_filenames(files) if "samples_sums_" in file)[0]
    read = datasets.load_dataset("json", data_files=samples, split="train", cache_dir=str(tmp_path / "cache"))
    assert read["filter"] == ["strict", "strict", "flexible", "flexible"]  # the doc without an answer is left out
    lines = [json.loads(line) for line in Path(samples).read_text(encoding="utf-8").split("\n") if line]
    assert lines[0]["resps"] == [[" 1", " no"]]
    assert lines[2]["filtered_resps"] == [["1", "no"]]
    logger = WandbLogger.__new__(WandbLogger)  # its constructor wants an account
    logger.post_init(first)
    assert logger._sanitize_results_dict()[1]["sums/exact_match,flexible"] == 0.5


def test_our_export_imports_with_the_same_scores_and_answers(steelyard: Run, ours: str, tmp_path: Path) -> None:
    out, back = tmp_path / "out", str(tmp_path / "back")
    _, said, _ = steelyard("export", str(out), "--store", ours, "--benchmark", "sums", "--benchmark", "pick")
    assert steelyard("import", "lm-eval", *said.split(), "--store", back)[0] == 0
    columns = ["benchmark", "model", "metric", "filter", "score", "docs"]
    before, after = (
        store.leaderboard()[columns].sort_values("benchmark").to_dict("records")
        for store in (open_store(ours), open_store(back))
    )
    assert after == [row for row in before if row["benchmark"] != "sums_again"]
    for name in ("texts", "reasoning", "logprobs", "is_greedy", "choices", "filtered", "metrics", "prompt", "target"):
        texts = []
        for store in (ours, back):
            frame = open_store(store).samples(benchmarks=["sums", "pick"])
            frame = frame[frame["error"].isna()].sort_values(["task", "doc_id"])
            texts.append([list(each.items()) if isinstance(each, dict) else list(each) for each in frame[name]])
        assert texts[0] == texts[1], name


def test_files_that_are_none_of_the_harness_are_one_line(steelyard: Run, tmp_path: Path) -> None:
    wrong = tmp_path / "results_x.json"
    for text, words in (("{", "use a results file of"), ('{"results": []}', "it has no 'results' and 'configs'")):
        wrong.write_text(text)
        code, _, err = steelyard("import", "lm-eval", str(wrong), "--store", str(tmp_path / "s"))
        assert (code, err.count("\n"), words in err) == (2, 1, True), err
    assert steelyard("import", "lm-eval", str(tmp_path / "none.json"), "--store", str(tmp_path / "s"))[0] == 2
    code, _, err = steelyard("export", str(tmp_path / "o"), "--format", "helm")
    assert (code, "use one of lm-eval, mlflow, wandb" in err) == (2, True)
