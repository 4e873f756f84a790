"""What we read from configs is what vLLM reads, over every architecture that can be had here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_architecture_is_read_as_vllm_reads_it() -> None:
    command = [sys.executable, "-m", "perf.configs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    last = done.stdout.splitlines()[-1]
    assert int(last.split(" read ")[0]) > 200, last
    assert "0 differ for no known reason" in last
