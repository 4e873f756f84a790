"""What chaos happens in: an S3 server that can be killed, a tiny model, and processes that find each other and nobody else's."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from deployments.demo_model import write_llama
from deployments.local_s3 import S3Server, local_s3

BUCKET = "chaos"


class Store:
    """The S3 server, which can be killed; another then answers in its place."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self.server: S3Server = self._stack.enter_context(local_s3(folder))
        self.server.create_bucket(BUCKET)

    def kill(self) -> None:
        """End it at once."""
        os.kill(self.server.pid, signal.SIGKILL)

    def restart(self) -> None:
        """Have another in its place."""
        self.close()
        self.server = self._stack.enter_context(local_s3(self._folder, like=self.server))

    def close(self) -> None:
        """End it."""
        self._stack.close()


def write_model(folder: Path, tokenizer: Path) -> Path:
    """Write a Llama of random weights, as small as vLLM's CPU build takes, whose heads two ranks can share."""
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2, "max_position_embeddings": 1024}
    write_llama(tokenizer, folder, "float32", **sizes, initializer_range=0.2)  # answers that differ
    return folder


def ours() -> list[psutil.Process]:
    """Live processes that were started here, whoever their parents are now."""
    from tests.processes import running

    own = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    return [process for pid, process in running().items() if pid not in own]


def title_of(process: psutil.Process) -> str:
    """What a process is, in a few words."""
    try:
        words = process.cmdline()
        name: str = process.name()
    except psutil.Error:
        return "gone"
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1]
    return words[0].split("/")[-1] if words and words[0].startswith(("ray::", "VLLM::")) else name


@contextmanager
def surroundings() -> Iterator[Path]:
    """Give a folder for everything, and have all processes started here find each other and nobody else's."""
    folder = Path(tempfile.mkdtemp(prefix="sy-c-"))  # short: sockets lie in it
    os.environ |= {
        "STEELYARD_RUNTIME": str(folder / "r"),
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }
    for name in [name for name in os.environ if name.startswith("AWS_") or name == "PREFECT_API_URL"]:
        del os.environ[name]
    try:
        yield folder
    finally:
        for process in ours():
            with suppress(psutil.Error):
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)
