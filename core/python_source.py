"""The parser of Python source, safe in threads."""

from __future__ import annotations

import ast
import threading

# CPython 3.11 counts the depth of a tree once for all threads, and of two at once one may raise SystemError (cpython#106905).
_ONE_AT_A_TIME = threading.Lock()


def parse(source: str | bytes) -> ast.Module:
    """Parse ``source``, from any thread. Raises SyntaxError, ValueError or RecursionError as `ast.parse` does."""
    with _ONE_AT_A_TIME:
        return ast.parse(source)
