"""What the results store costs: a million samples to S3 through it, and the same table written by hand with pyarrow.

``python -m perf.results`` starts a real S3 server on this machine and, in turns, has our store take the responses in shards and
commit the samples (converted, encoded, hashed, created under a new name, with scores and record), and pyarrow write one Parquet
file of the same responses and one of the same samples, from the same Python objects and once more from a table that is ready.
Nothing runs beside it: in a campaign the shards are written while the engine works.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from core.request import Generated
from core.results import open_store
from core.sample import Cell, Sample, Score, Scoring
from core.store.schema import RESPONSES, SAMPLES
from perf.measure import Ratio, figure, in_turns, load, ratio, report, seconds_of

BUCKET = "steelyard-perf"
WORDS = 20_000


@dataclass(frozen=True)
class Data:
    """What is stored: one cell's responses and what scoring made of them."""

    cell: Cell
    responses: list[Generated]
    scoring: Scoring


def make_data(rows: int) -> Data:
    """Make short-answer samples of the length of GSM8K's; every text is another one."""
    dice = random.Random(0)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(2, 9))) for _ in range(WORDS)]

    def text(count: int) -> str:
        return " ".join(dice.choices(words, k=count))

    samples, responses = [], []
    for doc in range(rows):
        question, target, answer = text(45), text(30), text(30)
        responses.append(Generated(f"perf/{doc}/0/0", answer, "stop", prompt_tokens=100, completion_tokens=40))
        samples.append(
            Sample(
                task="perf",
                doc_id=doc,
                doc=json.dumps({"question": question, "answer": target}),
                prompt=f"Question: {question}\nAnswer:",
                choices=(),
                target=target,
                texts=(answer,),
                filtered={"strict": str(doc), "last-number": str(doc)},
                values={"exact_match,strict": 0.0, "exact_match,last-number": 1.0},
                value=0.0,
                prompt_tokens=100,
                completion_tokens=40,
            )
        )
    score = Score("perf", "exact_match", "strict", 0.0, 0.0, rows, higher_is_better=True, primary=True)
    cell = Cell("0" * 64, "perf", "perf", {"checkpoint": "c0ffee", "revision": "main", "dtype": "float32"})
    return Data(cell, responses, Scoring(tuple(samples), (score,), score))


def by_hand(data: Data) -> tuple[pa.Table, pa.Table]:
    """Return responses and samples as tables, a column at a time, as somebody who knows pyarrow would."""
    identity = {"fingerprint": data.cell.fingerprint, **data.cell.settings}

    def column(field: pa.Field, rows: Any) -> Any:
        if field.name == "kind":
            return ["generated"] * len(rows)
        if field.name in identity:
            return [identity[field.name]] * len(rows)
        if field.name in ("filtered", "metrics"):
            attribute = "filtered" if field.name == "filtered" else "values"
            return [list(getattr(row, attribute).items()) for row in rows]
        return [getattr(row, field.name, None) for row in rows]

    return (
        pa.table({field.name: column(field, data.responses) for field in RESPONSES}, schema=RESPONSES),
        pa.table({field.name: column(field, data.scoring.samples) for field in SAMPLES}, schema=SAMPLES),
    )


@dataclass(frozen=True)
class Seconds:
    """What one run took for responses and samples."""

    responses: float
    samples: float

    @property
    def whole(self) -> float:
        """Both."""
        return self.responses + self.samples


def ours(data: Data) -> Seconds:
    """Take responses as an engine gives them, then commit the cell."""
    store = open_store(f"s3://{BUCKET}/{secrets.token_hex(8)}")

    def take() -> None:
        with store.writer(data.cell.fingerprint) as writer:
            for response in data.responses:
                writer.add(response)

    return Seconds(seconds_of(take), seconds_of(lambda: store.commit(data.cell, data.scoring, {"seconds": 1.0})))


def theirs(data: Data, filesystem: pafs.FileSystem) -> Seconds:
    """Convert and write two files."""
    folder = f"{BUCKET}/{secrets.token_hex(8)}"
    begun = time.monotonic()
    responses, samples = by_hand(data)
    converted = time.monotonic() - begun
    share = len(RESPONSES) / (len(RESPONSES) + len(SAMPLES))
    return Seconds(
        converted * share + write(responses, f"{folder}-responses.parquet", filesystem),
        converted * (1 - share) + write(samples, f"{folder}-samples.parquet", filesystem),
    )


def write(table: pa.Table, path: str, filesystem: pafs.FileSystem) -> float:
    """Write one file as our store compresses it."""
    return seconds_of(
        lambda: pq.write_table(table, path, filesystem=filesystem, compression="zstd", write_page_checksum=True)
    )


def main() -> None:
    """Measure and print."""
    from deployments.local_s3 import local_s3

    parser = argparse.ArgumentParser(prog="python -m perf.results", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="samples, and responses")
    parser.add_argument("--runs", type=int, default=3, help="turns")
    asked = parser.parse_args()
    begun, before = time.monotonic(), load()
    data = make_data(asked.rows)
    ready = by_hand(data)
    gc.freeze()  # the data is not what the collector should look through while either way is timed
    with tempfile.TemporaryDirectory() as folder, local_s3(Path(folder)) as server:
        os.environ.update(server.env)
        server.create_bucket(BUCKET)
        filesystem = pafs.S3FileSystem(
            access_key=server.keys.access_key,
            secret_key=server.keys.secret_key,
            endpoint_override=server.endpoint,
            region=server.env["AWS_REGION"],
        )
        ways: dict[str, Callable[[], Seconds]] = {
            "our store": lambda: ours(data),
            "pyarrow from the same objects": lambda: theirs(data, filesystem),
            "pyarrow from a ready table": lambda: Seconds(
                *(write(table, f"{BUCKET}/{secrets.token_hex(8)}.parquet", filesystem) for table in ready)
            ),
        }
        small = make_data(1000)  # connections, and the server's first volumes
        ours(small)
        theirs(small, filesystem)
        found = in_turns(ways, asked.runs)
    store, objects, tables = found.values()

    def compared(what: str, value: Callable[[Seconds], float], other: list[Seconds] = objects, **more: Any) -> Ratio:
        return ratio(what, "s", list(map(value, store)), list(map(value, other)), **more)

    rows = [
        compared(
            f"{asked.rows:,} responses in shards, samples, scores, record",
            lambda run: run.whole,
            target="≥ 0.8",
            note="pyarrow: two files from the same objects",
        ),
        compared("  of it: responses", lambda run: run.responses),
        compared("  of it: samples, scores, record", lambda run: run.samples, target="≥ 0.8"),
        compared(
            "  the same against writing a ready table",
            lambda run: run.samples,
            tables,
            note="pyarrow converts nothing here",
        ),
        figure("samples per second, committed", "1/s", [asked.rows / run.samples for run in store]),
    ]
    report("Results to S3", rows, begun, before)


if __name__ == "__main__":
    main()
