"""Why an engine process ended: its exit status and the telling lines of its log, fit to be shown."""

from __future__ import annotations

import re
import signal
from collections import deque
from pathlib import Path

from core.redact import redact

QUOTED_LINES = 12
READ_BYTES = 1 << 17
ERROR_LINE = re.compile(r"\b[A-Za-z_.]*(?:Error|Exception): .+")
FOLLOW_UP = re.compile(
    r"Engine core initialization failed|Engine loop is not running|EngineCore encountered an issue|engine core ended"
)
KERNEL_COUNTS = Path("/proc/vmstat")
OUT_OF_MEMORY = " (the kernel was out of memory meanwhile, and killed processes)"


def oom_kills(counts: Path = KERNEL_COUNTS) -> int:
    """How many processes the kernel has killed for want of memory since it started; 0 where it does not tell."""
    try:
        lines = counts.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def describe_exit(returncode: int | None) -> str:
    """How a process ended, as a phrase: ``was killed by SIGKILL`` or ``exited with status 1``."""
    if returncode is None:
        return "is gone"
    if returncode >= 0:
        return f"exited with status {returncode}"
    try:
        return f"was killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was killed by signal {-returncode}"


def quote_log(path: Path) -> str:
    """The last error named in ``path`` and its last lines, with where they are from; values of secrets are masked."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - READ_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return f" (its log {path} cannot be read)"
    lines = [redact(line) for line in lines if line.strip()]
    found = (match.group() for line in lines if (match := ERROR_LINE.search(line)) and not FOLLOW_UP.search(line))
    cause = next(iter(deque(found, maxlen=1)), None)
    said = f" ({cause})" if cause else ""
    return f"{said}; the end of its log {path}:\n" + "\n".join(f"  {line}" for line in lines[-QUOTED_LINES:])
