"""What README, the start page of docs/ and examples/ tell people to run, run."""

from __future__ import annotations

import doctest
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from core.campaign import CampaignSpec
from tests import models
from tests.docs_commands import commands_of, lines_of

ROOT = Path(__file__).resolve().parents[1]
# What the commands of docs/index.md print, in their order.
START_PAGE = {
    "models": "30, hidden size 576",
    "plan": "lightweight",
    "run": "smollm2-chat",
    "status": "6 of 6 cells complete",
    "results": "steelyard_facts",
    "report": "report.html: ",
    "compare": "smollm2-chat",
}
# Runs the session of a page as if it were typed. What was computed before it is in the store.
SESSION = """
import doctest, pathlib, sys
for example in doctest.DocTestParser().get_examples(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")):
    exec(compile(example.source, "session", "single"), globals())
"""
STEELYARD = [sys.executable, "-c", "from deployments.cli import main; main()"]


def run(command: list[str], cwd: Path) -> str:
    wide = {**os.environ, "COLUMNS": "200"}  # readline, which pytest imports, may set it
    done = subprocess.run(command, cwd=cwd, env=wide, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shape(printed: str) -> list[str]:
    """Return the words of what a session prints, numbers alike, without the answer at its end: both are the processor's."""
    tables, _, _ = printed.rstrip().rpartition("\n")
    return [re.sub(r"-?\d[\d.]*(e-\d+)?", "0", word) for word in tables.split()]


@pytest.mark.vllm
def test_the_examples_run_one_after_the_other(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / ".demo").mkdir()
    checkpoint = tmp_path / ".demo" / "smollm2-135m-instruct"
    checkpoint.symlink_to(models.smollm2(models.cache_directory(tmp_path)))
    typed = [
        words for line in lines_of(ROOT / "docs/index.md") for words in commands_of(line) if words[0] == "steelyard"
    ]
    assert [words[1] for words in typed] == list(START_PAGE)
    for words in typed:
        assert START_PAGE[words[1]] in run([*STEELYARD, *words[1:]], tmp_path)
    spec = "examples/smollm2.yaml"
    rows = [json.loads(line) for line in run([*STEELYARD, "results", spec, "--format", "json"], tmp_path).splitlines()]
    assert {row["benchmark"] for row in rows} == {"steelyard_facts", "steelyard_arithmetic", "own_benchmark"}
    assert len(rows) == 6
    assert "steelyard_facts" in run([sys.executable, "examples/from_python.py"], tmp_path)
    printed = run([sys.executable, "-c", SESSION, str(ROOT / "docs/python.md")], tmp_path)
    said = doctest.DocTestParser().get_examples((ROOT / "docs/python.md").read_text(encoding="utf-8"))
    assert shape(printed) == shape("".join(example.want for example in said))


def test_the_readme_s_campaign_is_a_campaign() -> None:
    block = re.search(
        r"^    name: nightly\n(?:    .*\n)+", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert block is not None
    spec = CampaignSpec.model_validate(yaml.safe_load(block.group()))
    assert [model.name for model in spec.models] == ["SmolLM2-135M-Instruct", "llama-70b"]


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
