"""``make perf``: every measurement, one after another and small enough for half an hour, then one table of all ratios.

``python -m perf --minutes 30`` starts none that its usual minutes say would not end in time, and ends one that runs over; what was
left out or failed is named. ``--only generation results`` takes some. Each by itself (``python -m perf.loglikelihood``) takes more
docs and turns unless told otherwise: its ratios are the better ones.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from perf.measure import ROWS_FILE, load, read_rows, say, show

# Name → minutes it usually takes on two cores, with these arguments.
MEASUREMENTS = {
    "loglikelihood": (9.0, ("--scale", "0.5", "--runs", "2")),
    "generation": (2.0, ("--docs", "8")),
    "campaign": (5.0, ("--docs", "4", "--generated", "2")),
    "startup": (1.0, ("--runs", "1")),
    "streaming": (1.0, ("--runs", "1")),
    "service": (6.0, ()),
    "results": (1.0, ("--rows", "200000")),
    "memory": (1.0, ()),
    "overhead": (1.0, ("--turns", "1")),
    "report": (1.0, ()),
}


def run(name: str, seconds: float, rows: Path) -> str | None:
    """Run one measurement, for ``seconds`` at most. Returns why there is nothing of it, or None."""
    environment = {**os.environ, ROWS_FILE: str(rows)}
    command = [sys.executable, "-m", f"perf.{name}", *MEASUREMENTS[name][1]]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"ended after {seconds / 60:.1f} minutes"
    finally:
        if process.poll() is None:  # with what it has started; also on Ctrl-C
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    return f"exit status {status}" if status else None


def main() -> int:
    """Run them all. Returns 1 where one failed or was left out."""
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="for all of them")
    parser.add_argument("--only", nargs="+", default=list(MEASUREMENTS), choices=list(MEASUREMENTS), help="names")
    asked = parser.parse_args()
    begun, before = time.monotonic(), load()
    missing = {}
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.touch()
        for name in asked.only:
            if find_spec(f"perf.{name}") is None:
                continue
            left = asked.minutes * 60 - (time.monotonic() - begun)
            say(f"\n{name} ({left / 60:.1f} minutes left)")
            reason = run(name, left, rows) if MEASUREMENTS[name][0] * 60 <= left else "no time left for it"
            if reason:
                missing[name] = reason
        found = read_rows(rows)
    show("All measurements", found)
    print(f"in {(time.monotonic() - begun) / 60:.1f} minutes; before: {before}; after: {load()}")
    for name, reason in missing.items():
        print(f"{name}: {reason}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
