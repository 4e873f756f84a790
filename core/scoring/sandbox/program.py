"""The process of a program, which answers its tests: ``python -I -S core/scoring/sandbox/program.py WRITE``.

The tests' process is at the other ends of stdin and of the descriptor WRITE. Nothing here decides anything: a program may do with
this process what it likes.
"""

from __future__ import annotations

import os
import resource
import sys
from functools import partial
from typing import Any

sys.path.insert(0, os.path.realpath(__file__).rsplit("/", 4)[0])  # pathlib is slow to import
from core.scoring.sandbox.wire import Peer

del sys.path[0]


def perform(names: dict[str, Any], message: list[Any]) -> Any:
    """Answer a request of the tests' process about the program's ``names``."""
    match message:
        case ["limit", dict(limits), [*path]]:
            sys.path += path
            return limit(limits)
        case ["run", str(code)]:
            # As HumanEval's own check does: not as ``__main__``.
            exec(compile(code, "program.py", "exec", dont_inherit=True), names)  # noqa: S102
            return None
        case ["get", str(name)]:
            return names[name]
    raise ValueError(f"not a request: {message[0]}")


def limit(limits: dict[str, Any]) -> None:
    """Set the limits that the kernel keeps for each process; those over all of them are kept from outside."""
    sizes = {
        resource.RLIMIT_AS: limits["memory_mb"] << 20,
        resource.RLIMIT_FSIZE: limits["file_mb"] << 20,
        resource.RLIMIT_NPROC: limits["processes"],
        resource.RLIMIT_CPU: int(limits["cpu_seconds"]) + 2,
        resource.RLIMIT_NOFILE: 64,  # and so the kernel's memory behind descriptors
        resource.RLIMIT_SIGPENDING: 256,  # and behind timers
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, size in sizes.items():
        hard = resource.getrlimit(kind)[1]
        size = size if hard == resource.RLIM_INFINITY else min(size, hard)
        resource.setrlimit(kind, (size, size))


def main() -> None:
    """Serve the tests' process until it is gone, then leave without waiting for threads or exit handlers of the program."""
    line = os.dup(0)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    Peer(line, int(sys.argv[1]), partial(perform, {}), trusting=True).serve()
    os._exit(0)


if __name__ == "__main__":
    main()
