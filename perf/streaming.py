"""A checkpoint on S3, from nothing on this machine to a loaded model: streamed, or fetched first, or fetched by an earlier run.

``python -m perf.streaming`` starts a real S3 server on this machine and takes turns. What a disk costs that is slower than memory,
and what a network, is not in it: the server's files and the copies are in the page cache of one machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import fsspec

from core.model.checkpoint import read_checkpoint
from core.model.weights import fetch_checkpoint
from deployments.local_s3 import local_s3
from engines.engine import EngineConfig
from engines.process.lightweight import LightweightEngine
from perf import workload
from perf.measure import in_turns, load, ratio, report

BUCKET = "steelyard-perf"


@contextmanager
def on_s3(folder: Path) -> Iterator[str]:
    """Put ``folder`` on an S3 server of its own. Gives its URI."""
    with tempfile.TemporaryDirectory() as data, local_s3(Path(data)) as server:
        server.create_bucket(BUCKET)
        os.environ.update(server.env)
        fsspec.filesystem("s3", skip_instance_cache=True).put(f"{folder}/", f"{BUCKET}/m/", recursive=True)
        yield f"s3://{BUCKET}/m"


def opened(uri: str, base: EngineConfig, *, stream: bool) -> float:
    """Return the seconds until the model of ``uri`` is loaded."""
    begun = time.monotonic()
    checkpoint = read_checkpoint(uri)
    folder = fetch_checkpoint(checkpoint, weights=not stream)
    engine = LightweightEngine(replace(base, model=str(folder), checkpoint=checkpoint, stream=stream))
    try:
        engine.open()
        return time.monotonic() - begun
    finally:
        engine.close()


def from_nothing(uri: str, base: EngineConfig, *, stream: bool) -> float:
    """Do so with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["STEELYARD_CACHE"] = cache
        return opened(uri, base, stream=stream)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m perf.streaming", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="turns")
    asked = parser.parse_args()
    begun, before = time.monotonic(), load()
    folder = workload.checkpoint()
    base = workload.config(folder, "bfloat16")
    with on_s3(folder) as uri, tempfile.TemporaryDirectory() as kept:

        def again() -> float:
            os.environ["STEELYARD_CACHE"] = kept
            return opened(uri, base, stream=False)

        os.environ["STEELYARD_CACHE"] = kept
        fetch_checkpoint(read_checkpoint(uri))
        found = in_turns(
            {
                "streamed": lambda: from_nothing(uri, base, stream=True),
                "fetched": lambda: from_nothing(uri, base, stream=False),
                "fetched before": again,
            },
            asked.runs,
        )
    rows = [
        ratio(f"loaded from S3: streamed, or {name}", "s", found["streamed"], found[name])
        for name in ("fetched", "fetched before")
    ]
    report("A checkpoint on S3", rows, begun, before)


if __name__ == "__main__":
    main()
