"""Child processes of Python that import our modules, from wherever they are started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def with_our_modules(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment ``inherited`` as a process has it that finds our modules, those of this process.

    Without safe path ``python -m`` would look in the current directory first, and find a ``core/`` or ``engines/`` of the user's.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), inherited.get("PYTHONPATH"))))
    return {**inherited, "PYTHONSAFEPATH": "1", "PYTHONPATH": path}
