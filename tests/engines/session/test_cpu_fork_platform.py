"""Forked vLLM processes on CPUs: what they are told by the environment. No vLLM is imported but where a test says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engines.session import cpu_platform
from engines.session.cpu_platform import FORK_ASKED_BY, fork_environment

ROOT = Path(__file__).resolve().parents[3]

# A worker as vLLM forks it: its cores are in the environment then. Prints its threads, and the cores of it and of its parent.
FORKED = """
import os, torch
from vllm.platforms import current_platform
from engines.session.cpu_fork_platform import _bind_after_forks, cores_in
assert type(current_platform).__name__ == "CpuForkPlatform", type(current_platform)
assert cores_in("0 1") == cores_in("{0,1}") == cores_in("granularity=fine,explicit,proclist=[0,1]") == [0, 1]
threads = torch.get_num_threads()
_bind_after_forks()
_bind_after_forks()
own = min(os.sched_getaffinity(0))
os.environ["GOMP_CPU_AFFINITY"] = str(own)
if os.fork() == 0:
    worked = float(torch.ones(400, 400).matmul(torch.ones(400, 400)).sum())
    print(threads, torch.get_num_threads(), os.sched_getaffinity(0) == {own}, worked == 400.0**3, flush=True)
    os._exit(0)
os.wait()
"""


def test_one_openmp_runtime_is_preloaded_once() -> None:
    made = fork_environment({})
    assert made[FORK_ASKED_BY] == "1"
    assert made["OMP_NUM_THREADS"] == made["TORCHDYNAMO_DISABLE"] == "1"
    assert "torch" in made["LD_PRELOAD"]
    assert Path(made["LD_PRELOAD"]).is_file()
    beside = fork_environment({"LD_PRELOAD": "/lib/tcmalloc.so"})["LD_PRELOAD"]
    assert beside == f"/lib/tcmalloc.so:{made['LD_PRELOAD']}"
    assert fork_environment({"LD_PRELOAD": "/lib/libiomp5.so"})["LD_PRELOAD"] == "/lib/libiomp5.so"


def test_nothing_is_forked_beside_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FORK_ASKED_BY, "1")
    monkeypatch.setattr(cpu_platform, "GPU_DRIVERS", ())
    assert cpu_platform.register() == "engines.session.cpu_fork_platform.CpuForkPlatform"
    monkeypatch.setattr(cpu_platform, "GPU_DRIVERS", (str(tmp_path),))
    assert cpu_platform.register() is None


@pytest.mark.skipif(any(Path(d).exists() for d in cpu_platform.GPU_DRIVERS), reason="this machine has a GPU")
def test_a_forked_worker_keeps_to_its_cores() -> None:
    environment = {**os.environ, **fork_environment(os.environ), "VLLM_NO_USAGE_STATS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", FORKED],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert ran.stdout.splitlines()[-1] == "1 1 True True"
