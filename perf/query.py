"""Asking a store of ten million samples: the leaderboard, with and without intervals, against DuckDB by hand on the same files.

``python -m perf.query`` fills a local store with made-up samples, of short texts and no meaning: 20 models × 10 benchmarks ×
50,000 docs. DuckDB then takes mean, standard error and count of each cell from the samples' Parquet, as somebody would by hand;
ours gives its leaderboard as the records have it, from the samples' values by pandas, and with all that `steelyard results` says.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import duckdb

from core.board.read import read_board
from core.board.select import Selection
from core.results import Store, open_store
from core.sample import Cell, Sample, Score, Scoring
from perf.measure import figure, in_turns, load, ratio, report, say, seconds_of

MODELS, BENCHMARKS = 20, 10
BY_HAND = """
SELECT benchmark, model, avg(value) AS score, stddev_samp(value) / sqrt(count(*)) AS stderr, count(*) AS docs
FROM read_parquet('{folder}/samples/**/*.parquet', hive_partitioning = true) GROUP BY ALL ORDER BY ALL
"""


def fill(store: Store, docs: int) -> None:
    """Commit every cell; models answer right by dice of their own, more often the later they are named."""
    names = [f"model-{number:02d}" for number in range(MODELS)]
    for place in range(BENCHMARKS):
        benchmark = f"made-up-{place}"
        dice = random.Random(place)
        plain = [
            Sample(
                benchmark, doc, f'{{"question": {dice.random()}}}', f"Question {doc}?", (), str(doc), texts=(str(doc),)
            )
            for doc in range(docs)
        ]
        for number, model in enumerate(names):
            share = 0.3 + 0.4 * number / MODELS
            values = [float(dice.random() < share) for _ in range(docs)]
            rows = [
                replace(sample, value=value, values={"acc,none": value})
                for sample, value in zip(plain, values, strict=True)
            ]
            score = Score(benchmark, "acc", "none", sum(values) / docs, 0.01, docs, higher_is_better=True, primary=True)
            cell = Cell(f"{place:032x}{number:032x}", model, benchmark, {"checkpoint": model, "dtype": "bfloat16"})
            store.commit(cell, Scoring(tuple(rows), (score,), score), {"engine": "made up", "placement": {}})
        say(f"{place + 1} of {BENCHMARKS} benchmarks written")
    for model in names:
        number = int(model.rpartition("-")[2])
        cells = {f"made-up-{place}": f"{place:032x}{number:032x}" for place in range(BENCHMARKS)}
        store.write_model_run("made-up", "run-1", {"model": model, "cells": cells, "placement": {}})


def by_pandas(store: Store) -> object:
    """What people do with a frame."""
    frame = store.samples(columns=["value"])
    return frame.groupby(["benchmark", "model"], observed=True)["value"].agg(["mean", "sem", "count"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m perf.query", description=__doc__)
    parser.add_argument("--docs", type=int, default=50_000, help="of each benchmark")
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    before = load()
    rows = MODELS * BENCHMARKS * asked.docs
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        begun = time.monotonic()
        fill(store, asked.docs)
        gigabytes = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet")) / 1e9
        say(f"{rows:,} samples, {gigabytes:.2f} GB, in {time.monotonic() - begun:.0f} s")
        query = BY_HAND.format(folder=folder)
        ways = {
            "DuckDB": lambda: seconds_of(lambda: duckdb.sql(query).fetchall()),
            "records": lambda: seconds_of(lambda: store.leaderboard("made-up")),
            "pandas": lambda: seconds_of(lambda: by_pandas(store)),
            "board": lambda: seconds_of(lambda: read_board(store, "made-up", Selection())),
        }
        found = in_turns(ways, asked.runs)
        hand, of = found["DuckDB"], f"of {rows:,} samples"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        report(
            "Queries",
            [
                ratio(f"leaderboard {of}, from the records", "s", found["records"], hand),
                ratio(f"mean and standard error {of}, with pandas", "s", found["pandas"], hand),
                ratio(
                    f"leaderboard {of} with intervals and letters",
                    "s",
                    found["board"],
                    hand,
                    note=f"{BENCHMARKS * MODELS * (MODELS - 1) // 2:,} paired tests besides",
                ),
                figure("peak memory of the process", "GiB", [peak]),
            ],
            begun,
            before,
        )


if __name__ == "__main__":
    main()
