"""Rows of the benchmark files in shared/data, for the tasks of this folder."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("STEELYARD_TEST_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))


def _splits(**rows: list[dict[str, Any]]) -> Any:
    from datasets import Dataset, DatasetDict

    return DatasetDict({split: Dataset.from_list(docs) for split, docs in rows.items()})


def gsm8k(**_metadata: Any) -> Any:
    def read(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]

    return _splits(train=read("gsm8k_train_200.jsonl"), test=read("gsm8k_test.jsonl"))


def bbh(name: str, **_metadata: Any) -> Any:
    return _splits(test=json.loads((DATA / "bbh" / f"{name}.json").read_text(encoding="utf-8"))["examples"])


def mmlu(subject: str, **_metadata: Any) -> Any:
    def read(split: str) -> list[dict[str, Any]]:
        with (DATA / "mmlu" / split / f"{subject}_{split}.csv").open(encoding="utf-8", newline="") as file:
            return [
                {"question": question, "choices": choices, "answer": "ABCD".index(letter)}
                for question, *choices, letter in csv.reader(file)
            ]

    return _splits(dev=read("dev"), test=read("test"))
