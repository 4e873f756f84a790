"""The command line in process, and the campaigns it is given."""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from deployments import cli
from tests.checkpoints import write_checkpoint

GET_COMMAND = cache(typer.main.get_command)  # Typer makes its tree of commands anew at every call


@pytest.fixture
def steelyard(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line with arguments; returns exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["steelyard", *arguments])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(typer.main, "get_command", GET_COMMAND)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return code if isinstance(code, int) else 0, out, err

    return run


@pytest.fixture
def campaign(tmp_path: Path) -> Callable[..., str]:
    """Write a campaign over a small checkpoint, with other benchmarks and fields; returns its path."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint")

    def write(*benchmarks: Any, **fields: Any) -> str:
        spec = {
            "name": "bad",
            "models": [str(checkpoint)],
            "benchmarks": list(benchmarks) or ["steelyard_facts"],
            "fleet": {"gpus": 8, "gpu_memory_gb": 8, "device": "cpu"},
            "results": str(tmp_path / "results"),
            **fields,
        }
        path = tmp_path / "campaign.yaml"
        path.write_text(yaml.safe_dump(spec))
        return str(path)

    return write
