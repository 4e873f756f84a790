"""Leaderboards for people, from small frames."""

import io
import math
from typing import Any

import pandas as pd
from rich.console import Console

from core.board.text import (
    engine_findings,
    leaderboard_markdown,
    leaderboard_rows,
    leaderboard_table,
    pairs_table,
    runs_table,
)
from core.compare.compare import PAIR_COLUMNS
from core.results import LEADERBOARD_COLUMNS
from core.tables import Table, interval_text


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


def printed(table: Table, width: int = 200, *, styled: bool = False) -> str:
    console = Console(
        width=width, file=io.StringIO(), force_terminal=styled, color_system="standard" if styled else None
    )
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


def test_the_spread_of_several_answers_per_doc_stands_under_the_table() -> None:
    spread = {"repeats": 4.0, "mean": 0.48, "mean_stderr": 0.02, "within": 0.09, "between": 0.16}
    rows = frame({"model": "m", "benchmark": "b", "score": 0.5, **spread}, {"model": "n", "benchmark": "b", "score": 0})
    said = "4 answers per doc, all of them 0.4800 ± 0.0200; standard deviation 0.3000 within docs, 0.4000 between docs"
    for text in (printed(leaderboard_table(rows)), leaderboard_markdown(rows)):
        assert f"m, b: {said}" in " ".join(text.split())
        assert text.count("answers per doc") == 1
    one = frame({"model": "m", "benchmark": "b", "score": 1.0, **spread, "mean_stderr": None, "between": None})
    assert "all of them 0.4800; standard deviation 0.3000 within docs, - between docs" in leaderboard_markdown(one)


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


COMPARED = frame(
    {"model": "best", "benchmark": "mmlu", "score": 0.7},
    {"model": "near", "benchmark": "mmlu", "score": 0.69},
    {"model": "worse", "benchmark": "mmlu", "score": 0.3},
    {"model": "alone", "benchmark": "prose", "score": 20.0, "stderr": None, "higher_is_better": False},
    {"model": "spread", "benchmark": "squad", "score": 0.5, "stderr": 0.02},
).assign(
    low=[0.6714, 0.6611, 0.2724, math.nan, math.nan],
    high=[0.7276, 0.7181, 0.3291, math.nan, math.nan],
    letters=pd.Series(["a", "ab", "b", None, None], dtype=object),
)


def test_the_interval_stands_in_for_the_standard_error_and_letters_beside_it() -> None:
    text = printed(leaderboard_table(COMPARED))
    assert "0.7000 │ [0.6714, 0.7276] │ a " in text
    assert "0.6900 │ [0.6611, 0.7181] │ ab " in text
    assert "20.0000 │" in text
    assert "0.5000 ± 0.0200 │ " in text
    assert "share a letter" in text


def test_without_comparison_there_are_no_columns_for_it() -> None:
    for text in (printed(leaderboard_table(MIXED)), leaderboard_markdown(MIXED)):
        assert "letter" not in text
        assert "interval" not in text


def test_every_model_not_told_apart_from_the_best_is_bold() -> None:
    lines = printed(leaderboard_table(COMPARED), styled=True).splitlines()
    bold = {name: "\x1b[1m" in line for name in COMPARED["model"] for line in lines if name in line and "acc" in line}
    assert bold == {"best": True, "near": True, "worse": False, "alone": True, "spread": True}
    markdown = leaderboard_markdown(COMPARED)
    assert "| **best** | acc | **0.7000** |" in markdown
    assert "| **near** | acc |" in markdown
    assert "| worse | acc | 0.3000 | [0.2724, 0.3291] | b |" in markdown


def test_rows_carry_interval_and_letters() -> None:
    rows = {row["model"]: (row["low"], row["high"], row["letters"]) for row in leaderboard_rows(COMPARED)}
    assert rows["near"] == (0.6611, 0.7181, "ab")
    assert rows["alone"] == (None, None, None)


def test_a_leaderboard_of_ordinary_names_fits_160_columns() -> None:
    wide = COMPARED.assign(
        model=[f"Qwen3-30B-A3B-Instruct-2507-{place}" for place in range(5)],
        benchmark=["mmlu_pro_computer_science"] * 5,
        engine="distributed",
    )
    lines = printed(leaderboard_table(wide), 160).splitlines()
    assert max(map(len, lines)) <= 160
    assert sum("Qwen3-30B-A3B-Instruct-2507-" in line and "distributed" in line for line in lines) == 5


def test_what_is_held_against_a_score_is_told_below() -> None:
    noted = COMPARED.assign(notes=["3 of 9 answers cut", "", "", "", ""])
    text = printed(leaderboard_table(noted))
    assert "0.7000* │" in text
    assert "* best, mmlu: 3 of 9 answers cut" in text
    assert "\\* best, mmlu: 3 of 9 answers cut" in leaderboard_markdown(noted)


PAIRS = pd.DataFrame(
    [
        ["b", "acc", "[red]x", "y", 0.14, 0.01, 0.27, 0.00001, 0.00002, "McNemar", 1050, 2, 10, 3, 37, "f", "g"],
        ["b", "acc", "y", "z", 0.001, -math.inf, math.inf, 0.5, 1.0, "sign flips", 3, 0, 1, 1, 1, "g", "h"],
        [
            "c",
            "acc",
            "x",
            "y",
            math.nan,
            math.nan,
            math.nan,
            math.nan,
            math.nan,
            "no common doc",
            0,
            4,
            0,
            0,
            0,
            "i",
            "j",
        ],
    ],
    columns=list(PAIR_COLUMNS),
)


def test_a_pair_is_one_line_with_difference_interval_p_values_docs_and_test() -> None:
    text = printed(pairs_table(PAIRS))
    first, second, third = [line for line in text.splitlines() if " y " in line]
    for part in ("[red]x", "+0.1400", "[0.0100, 0.2700]", "<0.0001", "1,050 (-2)", " 10 ", " 3 ", "McNemar"):
        assert part in first
    for part in ("[-∞, ∞]", "0.5000", "1.0000", "sign flips"):
        assert part in second
    assert "no common doc" in third


def test_significant_pairs_alone_are_bold() -> None:
    assert pairs_table(PAIRS).markdown().count("**") == 2
    assert "**+0.1400**" in pairs_table(PAIRS).markdown()
    lines = printed(pairs_table(PAIRS), styled=True).splitlines()
    bold = {test: "\x1b[1m" in line for test in PAIRS["method"] for line in lines if test in line}
    assert bold == {"McNemar": True, "sign flips": False, "no common doc": False}


def test_an_interval_rounds_to_no_negative_zero() -> None:
    assert interval_text(-0.00001, 0.5) == "[0.0000, 0.5000]"
    assert interval_text(None, None) == ""


def test_the_newest_run_of_each_campaign_says_whether_engines_agree() -> None:
    runs: list[dict[str, Any]] = [
        {"campaign": "a", "run": "1", "engines": {"text": "old"}},
        {"campaign": "a", "run": "2", "engines": {"text": "Engines agree"}},
        {"campaign": "b", "run": "3", "engines": None},
        {"campaign": "c", "run": "4"},
    ]
    assert engine_findings(runs) == ["Engines agree"]
    assert engine_findings([]) == []
