"""Leaderboards for people, from small frames."""

import io

import pandas as pd
from rich.console import Console
from rich.table import Table

from core.report import leaderboard_markdown, leaderboard_rows, leaderboard_table, runs_table
from core.results import LEADERBOARD_COLUMNS


def frame(*rows: dict[str, object]) -> pd.DataFrame:
    common = {
        "campaign": "nightly",
        "metric": "acc",
        "stderr": 0.01,
        "docs": 1000,
        "higher_is_better": True,
        "engine": "lightweight",
        "tensor_parallel": 1,
        "pipeline_parallel": 1,
        "replicas": 1,
        "tokens_per_second": 1234.5,
        "reason": "fits | one GPU",
    }
    return pd.DataFrame([{**common, **row} for row in rows], columns=list(LEADERBOARD_COLUMNS))


def printed(table: Table) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


MIXED = frame(
    {"model": "worse", "benchmark": "mmlu", "score": 0.3},
    {"model": "best", "benchmark": "mmlu", "score": 0.7},
    {"model": "worse", "benchmark": "wikitext", "score": 20.0, "higher_is_better": False},
    {"model": "best", "benchmark": "wikitext", "score": 10.0, "higher_is_better": False},
)


def test_rows_are_ranked_within_each_benchmark_whichever_way_is_better() -> None:
    ranked = [(row["benchmark"], row["model"]) for row in leaderboard_rows(MIXED)]
    assert ranked == [("mmlu", "best"), ("mmlu", "worse"), ("wikitext", "best"), ("wikitext", "worse")]


def test_rows_have_none_where_nothing_is_known() -> None:
    (row,) = leaderboard_rows(frame({"model": "m", "benchmark": "b", "score": None, "stderr": None, "engine": None}))
    assert (row["score"], row["stderr"], row["engine"], row["fingerprint"]) == (None, None, None, None)


def test_the_table_shows_score_with_standard_error_docs_and_speed() -> None:
    text = printed(leaderboard_table(MIXED))
    for part in ("0.7000 ± 0.0100", "1,000", "lightweight", "1,234"):
        assert part in text


def test_a_score_without_standard_error_stands_alone() -> None:
    text = printed(leaderboard_table(frame({"model": "m", "benchmark": "b", "score": 0.5, "stderr": None})))
    assert "0.5000" in text
    assert "±" not in text


def test_the_runs_table_gives_each_model_one_line_with_its_reason() -> None:
    text = printed(runs_table(MIXED))
    assert text.count("fits | one GPU") == 2


def test_names_in_square_brackets_are_not_markup() -> None:
    assert "[red]m" in printed(leaderboard_table(frame({"model": "[red]m", "benchmark": "b", "score": 0.5})))


def test_markdown_has_one_line_per_row_with_pipes_escaped() -> None:
    lines = leaderboard_markdown(MIXED).splitlines()
    assert len([line for line in lines if line.startswith("| mmlu") or line.startswith("| wikitext")]) == 4
    assert "- best: fits \\| one GPU" in lines


def test_an_empty_leaderboard_still_prints() -> None:
    assert "benchmark" in printed(leaderboard_table(frame()))
    assert leaderboard_markdown(frame()).startswith("| benchmark")
    assert "reason" in printed(runs_table(frame()))
