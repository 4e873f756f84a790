"""Chaos: processes of campaigns killed with SIGKILL at random moments, until what is stored is as if nothing had happened.

``python -m perf.chaos`` (``make chaos``) evaluates a tiny model on vLLM with its results on SeaweedFS, once undisturbed for the
rows and scores that are right. Then it runs the same campaign into empty prefixes while it kills the campaign, its engine, the S3
server and, on the distributed engine, Ray's processes. Whatever ends is run again; each campaign that completes is compared row by
row, and after each end nothing may be left of it. ``--seed`` repeats the same choices; ``--minutes`` bounds the whole.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml

from core.results import open_store
from engines.host.folder import runtime_folder
from engines.host.slots import DevicePool, holders
from engines.process.engine import child_environment
from perf.chaos_world import BUCKET, Store, ours, surroundings, title_of, write_model
from perf.measure import say

COMMAND = [sys.executable, "-c", "from deployments.cli import main; main()", "run"]
RUN_SECONDS = 600.0  # a run that takes longer hangs
RAY_SHARE = 0.35  # of the time
OUTAGE_SECONDS = 10.0  # of S3, at most
LEFT_SECONDS = 30.0  # what a dead campaign leaves notices it and ends
LOOK_SECONDS = 0.05
TOLERANCE = 1e-4  # of log-probabilities: batches differ from run to run
IN_RAY = ("ray::RayWorkerWrapper", "ray::ModelService", "raylet", "gcs_server")
ROWS = ["model", "benchmark", "task", "doc_id"]


@dataclass(frozen=True)
class Kind:
    """Campaigns of one engine, and how often each kind of process is killed beneath them."""

    engine: str
    kills: Mapping[str, int]
    model: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Tally:
    """What came of it."""

    killed: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    completed: int = 0
    restarts: int = 0
    faults: list[str] = field(default_factory=list)


def kinds(kills: int) -> list[Kind]:
    """Return what to run for about so many kills: a tenth of them within Ray."""
    ray = max(1, kills // 10)
    s3 = max(1, kills // 8)
    rest = max(2, kills - ray - s3)
    return [
        Kind("distributed", {"ray": ray}, {"tensor_parallel": 2}),
        Kind("lightweight", {"campaign": rest // 2, "engine": rest - rest // 2, "s3": s3}),
    ]


class Chaos:
    """Campaigns of one kind, disturbed; everything random comes from ``seed``."""

    def __init__(self, kind: Kind, store: Store, folder: Path, model: Path, seed: str, until: float) -> None:
        self._before = {process.pid for process in ours()}
        self.kind, self.store, self.folder, self.model = kind, store, folder, model
        self.random = random.Random(seed)
        self.until = until
        self.tally = Tally()
        self._left = Counter(kind.kills)
        self._right = self._scores = pd.DataFrame()
        self._seconds = 0.0

    def run(self) -> Tally:
        """Run until all are killed that should be, or the time is over."""
        results = self._prefix()
        begun = time.monotonic()
        status, said = self._campaign(results, victim=None)
        if status != 0:
            self.tally.faults.append(f"undisturbed, it ended with {status}: {said[-2000:]}")
            return self.tally
        self._seconds = time.monotonic() - begun
        self._right, self._scores = self._rows(results), self._scored(results)
        say(f"{self.kind.engine}: undisturbed in {self._seconds:.0f} s, {len(self._right)} rows")
        results = self._prefix()
        while self._left.total() and time.monotonic() < self.until:
            if self._once(results):
                results = self._prefix()
        if self._dirty(results):
            while not self._once(results, disturbed=False):
                if time.monotonic() > self.until + RUN_SECONDS:
                    self.tally.faults.append("it does not complete although nothing disturbs it")
                    break
        return self.tally

    def _once(self, results: str, *, disturbed: bool = True) -> bool:
        """Run the campaign, disturbed once. Returns whether it completed, and was compared."""
        victim = self.random.choice(sorted(self._left.elements())) if disturbed else None
        status, _ = self._campaign(results, victim)
        if status != 0:
            return False
        self.tally.completed += 1
        self._compare(results)
        return True

    def _campaign(self, results: str, victim: str | None) -> tuple[int, str]:
        """Run it once; ``victim`` is killed at a random moment of its life."""
        self.tally.runs += 1
        spec = {
            "name": "chaos",
            "models": [
                {
                    "model": str(self.model),
                    "engine": self.kind.engine,
                    "dtype": "float32",
                    "max_model_len": 512,
                    **self.kind.model,
                }
            ],
            "benchmarks": [
                {"name": "steelyard_facts", "limit": 12},
                {
                    "name": "steelyard_arithmetic",
                    "limit": 16,
                    "sampling": {"max_tokens": 128, "until": ["never said"]},
                },
            ],
            "fleet": {"gpus": 2, "gpu_memory_gb": 3, "device": "cpu"},
            "policy": {"service_idle_seconds": 0, "stall_minutes": 1, "replicas_max": 1},
            "results": results,
            "canary": False,
        }
        path = self.folder / "campaign.yaml"
        path.write_text(yaml.safe_dump(spec))
        log = self.folder / f"run-{self.kind.engine}-{self.tally.runs}.log"
        environment = {**child_environment(os.environ), **self.store.server.env, "COLUMNS": "200"}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*COMMAND, str(path)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        begun = time.monotonic()
        killed = self._disturb(process, victim) if victim is not None else None
        try:
            status = process.wait(min(RUN_SECONDS, max(60.0, self.until + 120 - time.monotonic())))
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
            self.tally.faults.append(f"run {self.tally.runs} hangs, disturbed: {killed}; its log is {log}")
        said = log.read_text(errors="replace")
        restarts = said.count("→ restart") + said.count("→ isolate")
        self.tally.restarts += restarts
        if killed is not None:
            say(f"  {self.tally.killed.total():3} {killed}; exit {status}, {restarts} restarts of the engine")
        elif victim is not None:
            self._seconds = min(self._seconds, time.monotonic() - begun)  # a machine that was busy may be so no more
            say(f"      {victim} was gone already; exit {status}")
        self._check_left(killed or "nothing killed")
        return status, said

    def _disturb(self, process: subprocess.Popen[bytes], victim: str) -> str | None:
        """Kill ``victim`` at a random moment. Returns what was killed, None where the campaign ended before."""
        begun = time.monotonic()
        moment = self.random.random()
        if victim in ("engine", "ray"):
            while not (found := self._processes(victim)):
                if process.poll() is not None:
                    return None
                time.sleep(LOOK_SECONDS)  # a process that starts tells nobody here
        left = max(1.0, self._seconds - (time.monotonic() - begun))
        with suppress(subprocess.TimeoutExpired):
            process.wait(moment * left)
        if process.poll() is not None:
            return None
        what = victim
        if victim == "campaign":
            process.kill()
        elif victim == "s3":
            self.store.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(OUTAGE_SECONDS * self.random.random())
            self.store.restart()
        else:
            found = self._processes(victim)
            if not found:
                return None
            chosen = self.random.choice(found)
            with suppress(psutil.NoSuchProcess):
                what = f"{victim} ({title_of(chosen)})"
                chosen.kill()
        self._left[victim] -= 1
        self.tally.killed[victim] += 1
        return f"{what} after {time.monotonic() - begun:.1f} s"

    def _processes(self, victim: str) -> list[psutil.Process]:
        """Processes of an engine, or of Ray, sorted by what they are."""
        found = []
        for process in self._started():
            with suppress(psutil.Error, ProcessLookupError):
                title = title_of(process)
                if victim == "ray":
                    wanted = title.startswith(IN_RAY)
                else:
                    leader = psutil.Process(os.getpgid(process.pid))
                    wanted = "engines.process.lightweight_process" in " ".join(leader.cmdline()) or title.startswith(
                        "VLLM::"
                    )
                if wanted:
                    found.append((title, process))
        return [process for _, process in sorted(found, key=lambda each: each[0])]

    def _started(self) -> list[psutil.Process]:
        """Processes that campaigns have started."""
        others = self._before | {self.store.server.pid}
        return [process for process in ours() if process.pid not in others]

    def _check_left(self, after: str) -> None:
        """Note what a campaign that has ended leaves: processes, and devices that are held."""
        deadline = time.monotonic() + LEFT_SECONDS
        while left := self._started():
            if time.monotonic() > deadline:
                self.tally.faults.append(f"left after {after}: {', '.join(map(title_of, left))}")
                for process in left:
                    with suppress(psutil.Error):
                        process.kill()
                break
            psutil.wait_procs(left, timeout=0.2)
        while held := holders(DevicePool("cpu", ("0", "1"))):  # the last threads of what was killed may still be ending
            if time.monotonic() > deadline:
                self.tally.faults.append(f"held after {after}: {held}")
                break
            time.sleep(LOOK_SECONDS)
        if sockets := list(runtime_folder().glob("*.sock")):
            self.tally.faults.append(f"sockets of clusters left after {after}: {sockets}")
            for socket in sockets:
                socket.unlink(missing_ok=True)

    def _compare(self, results: str) -> None:
        rows, scores = self._rows(results), self._scored(results)
        if rows.duplicated(ROWS).any() or scores.duplicated().any():
            self.tally.faults.append(f"{results}: rows twice")
        try:
            pd.testing.assert_frame_equal(rows, self._right, rtol=0, atol=TOLERANCE)
            pd.testing.assert_frame_equal(scores, self._scores, rtol=0, atol=TOLERANCE)
        except AssertionError as error:
            self.tally.faults.append(f"{results}: not as undisturbed: {error}")

    def _rows(self, results: str) -> pd.DataFrame:
        """What was answered, in order."""
        samples = self._open(results).samples()
        columns = [*ROWS, "texts", "logprobs", "is_greedy", "value", "error", "target"]
        frame = samples[columns].sort_values(ROWS).reset_index(drop=True)
        # Lists of numbers as columns of their own, so that they are compared as numbers.
        lists = [list(each) for each in frame.pop("logprobs")]
        width = max(map(len, lists))
        spread = pd.DataFrame([each + [float("nan")] * (width - len(each)) for each in lists]).add_prefix("logprob_")
        for name in ("texts", "is_greedy"):
            frame[name] = frame[name].map(lambda each: [str(one) for one in each])
        return frame.join(spread)

    def _scored(self, results: str) -> pd.DataFrame:
        scores = self._open(results).scores()
        columns = ["model", "benchmark", "task", "metric", "filter", "value", "docs"]
        return scores[columns].sort_values(columns[:5]).reset_index(drop=True)

    def _dirty(self, results: str) -> bool:
        """Whether a campaign was begun there and not completed."""
        return bool(self._open(results).campaigns("chaos")) or self.tally.completed == 0

    def _open(self, results: str) -> Any:
        os.environ.update(self.store.server.env)
        return open_store(results)

    def _prefix(self) -> str:
        return f"s3://{BUCKET}/{self.kind.engine}-{secrets.token_hex(4)}"


def chaos(kills: int, seed: str, minutes: float, engines: Sequence[str], cache: Path | None = None) -> list[Tally]:
    """Do it all; see above."""
    from tests import models
    from tests.deployments.prefect_server import prefect_server

    begun = time.monotonic()
    tallies = []
    with surroundings() as folder, prefect_server(folder / "prefect") as prefect:  # one server saves each run 10 s
        os.environ.update(prefect.env)
        model = write_model(folder / "model", models.smollm2(cache or models.cache_directory(folder / "models")))
        store = Store(folder / "s3")
        try:
            for kind in kinds(kills):
                if kind.engine in engines:
                    say(f"{kind.engine}: seed {seed}, kills {dict(kind.kills)}")
                    share = RAY_SHARE if kind.engine == "distributed" and len(engines) > 1 else 1.0
                    until = begun + 60 * minutes * share
                    tallies.append(Chaos(kind, store, folder, model, f"{seed}-{kind.engine}", until).run())
        finally:
            store.close()
    return tallies


def main() -> int:
    """Run it and say what came of it. Returns 1 where anything was lost, twice or left."""
    parser = argparse.ArgumentParser(prog="python -m perf.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=32)
    parser.add_argument("--seed", default=secrets.token_hex(4))
    parser.add_argument("--minutes", type=float, default=18, help="no campaign begins later")
    parser.add_argument("--engines", nargs="+", default=["distributed", "lightweight"])
    parser.add_argument("--cache", type=Path, help="where checkpoints are kept")
    asked = parser.parse_args()
    begun = time.monotonic()
    tallies = chaos(asked.kills, asked.seed, asked.minutes, asked.engines, asked.cache)
    killed = sum((tally.killed for tally in tallies), Counter[str]())
    say(
        f"seed {asked.seed}: {killed.total()} of {asked.kills} kills {dict(killed)} over {sum(t.runs for t in tallies)} runs, "
        f"{sum(t.restarts for t in tallies)} restarts of engines, {sum(t.completed for t in tallies)} campaigns completed and "
        f"compared, {(time.monotonic() - begun) / 60:.1f} minutes"
    )
    faults = [fault for tally in tallies for fault in tally.faults]
    for fault in faults:
        say(f"FAULT: {fault}")
    return 1 if faults or not killed else 0


if __name__ == "__main__":
    sys.exit(main())
