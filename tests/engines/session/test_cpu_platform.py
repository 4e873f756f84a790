"""The platform plugin as vLLM itself finds it: by its entry point, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engines.session import cpu_platform

ROOT = Path(__file__).resolve().parents[3]
ASK_VLLM = (
    "from vllm.platforms import current_platform as p; print(type(p).__name__, repr(p.ray_device_key), p.device_type)"
)


def says(code: str, asked: str | None) -> str:
    """The last line that ``code`` prints, with the plugin asked for or not."""
    environment = {name: value for name, value in os.environ.items() if name != cpu_platform.ASKED_BY}
    if asked is not None:
        environment[cpu_platform.ASKED_BY] = asked
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return ran.stdout.splitlines()[-1]


@pytest.mark.parametrize("asked", [None, "", "0"])
def test_registers_nothing_unless_asked(asked: str | None) -> None:
    assert says("from engines.session.cpu_platform import register; print(register())", asked) == "None"


def test_registers_nothing_beside_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(cpu_platform.ASKED_BY, "1")
    monkeypatch.setattr(cpu_platform, "GPU_DRIVERS", (str(tmp_path),))
    assert cpu_platform.register() is None


def test_vllm_keeps_its_own_platform_unless_asked() -> None:
    assert "CpuRayPlatform" not in says(ASK_VLLM, None)


@pytest.mark.skipif(any(Path(d).exists() for d in cpu_platform.GPU_DRIVERS), reason="this machine has a GPU")
def test_vllm_takes_the_platform_with_logical_gpus_when_asked() -> None:
    assert says(ASK_VLLM, "1") == "CpuRayPlatform 'GPU' cpu"


def test_registering_imports_no_vllm() -> None:
    code = "import sys, engines.session.cpu_platform as c; c.register(); print(bool({'vllm', 'torch', 'ray'} & set(sys.modules)))"
    assert says(code, "1") == "False"
