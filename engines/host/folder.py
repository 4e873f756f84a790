"""This user's folder on this machine: slots, queue, sockets, tokens."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from core.errors import UserError

PATH_BYTES = 100  # a Unix socket's path may have 107


def runtime_folder() -> Path:
    """This user's own directory for sockets and the token; ``STEELYARD_RUNTIME`` where that is set.

    Raises `core.errors.UserError` where it is somebody else's: who writes there could have us run their code.
    """
    named = os.environ.get("STEELYARD_RUNTIME")
    usual = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    path = Path(named) if named else Path(usual) / f"steelyard-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UserError(f"STEELYARD_RUNTIME = {str(path)!r}: not a directory of yours; name one that is")
    path.chmod(0o700)
    if len(os.fsencode(path)) + 30 > PATH_BYTES:
        raise UserError(f"STEELYARD_RUNTIME = {str(path)!r}: too long for sockets; name a shorter path")
    return path
