"""vLLM as somebody uses it by hand, in a process of its own: ``vllm.LLM`` and one call of ``generate`` at a time.

Everything is timed in that process, so what crosses between the two costs the by-hand side nothing. ``python -m perf.by_hand FD``
serves a parent; `ByHand` is that parent's side.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from core.request import Generate
from engines.engine import EngineConfig
from engines.process.engine import child_environment


@dataclass(frozen=True)
class Answers:
    """What calls of ``generate`` gave: texts and generated tokens by request id, and the seconds within the calls."""

    texts: dict[str, str]
    tokens: int
    seconds: float


class ByHand:
    """A context manager around the process. ``phases`` are seconds of its start, by name, once inside."""

    def __init__(self, config: EngineConfig, *, arguments: Mapping[str, Any] | None = None) -> None:
        self._config, self._arguments = config, dict(arguments or {})
        self.phases: dict[str, float] = {}
        self.log = Path(tempfile.mkstemp(prefix="steelyard-by-hand-", suffix=".log")[1])

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair()
        begun = time.monotonic()
        with theirs, self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "perf.by_hand", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # As our engine sets it: vLLM compiles a small function even where it is told not to compile.
                env={**child_environment(os.environ), "TORCHDYNAMO_DISABLE": "1"},
            )
        self._connection = Connection(ours.detach())
        self._connection.send((self._config, self._arguments))
        try:
            phases = self._connection.recv()
        except EOFError as error:
            raise RuntimeError(f"vLLM by hand did not start, see {self.log}") from error
        self.phases = {"process": time.monotonic() - begun - sum(phases.values()), **phases}
        return self

    def generate(self, calls: Sequence[Sequence[Generate]]) -> Answers:
        """Make one call for each of ``calls``, one after another."""
        self._connection.send(list(map(list, calls)))
        return Answers(*self._connection.recv())

    def __exit__(self, *error: object) -> None:
        begun = time.monotonic()
        self._connection.close()
        self._process.wait()
        self.phases["close"] = time.monotonic() - begun


def serve(connection: Connection) -> None:
    """Load a model, say how long that took, and answer until the parent hangs up."""
    config, more = connection.recv()
    begun = time.monotonic()
    from vllm import LLM

    from engines.session.params import cut, engine_arguments, generation_params

    imported = time.monotonic()
    llm = LLM(**{**engine_arguments(config, None), **more})
    connection.send({"import": imported - begun, "engine": time.monotonic() - imported})
    tokenizer = llm.get_tokenizer()
    eos_text = tokenizer.decode(tokenizer.eos_token_id)
    while True:
        try:
            calls = connection.recv()
        except EOFError:
            break
        prepared = [
            ([request.prompt for request in call], [generation_params(request.sampling, eos_text) for request in call])
            for call in calls
        ]
        begun = time.monotonic()
        outputs = [llm.generate(prompts, params, use_tqdm=False) for prompts, params in prepared]
        seconds = time.monotonic() - begun
        texts, tokens = {}, 0
        for call, (_, params), given in zip(calls, prepared, outputs, strict=True):
            for request, sampling, output in zip(call, params, given, strict=True):
                texts[request.id] = cut(output.outputs[0].text, sampling.stop)
                tokens += len(output.outputs[0].token_ids)
        connection.send((texts, tokens, seconds))


if __name__ == "__main__":
    with Connection(int(sys.argv[1])) as parent:
        serve(parent)
