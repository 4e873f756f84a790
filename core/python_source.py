"""Python source that is read and not run: the parser, safe in threads, and the fields that a package's class declares."""

from __future__ import annotations

import ast
import threading
from collections.abc import Collection
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# CPython 3.11 counts the depth of a tree once for all threads, and of two at once one may raise SystemError (cpython#106905).
_ONE_AT_A_TIME = threading.Lock()


def parse(source: str | bytes) -> ast.Module:
    """Parse ``source``, from any thread. Raises SyntaxError, ValueError or RecursionError as `ast.parse` does."""
    with _ONE_AT_A_TIME:
        return ast.parse(source)


@cache
def declared_fields(package: str, file: str, classes: Collection[str]) -> dict[str, ast.expr]:
    """Return the public fields that classes of an installed package declare, each with its annotation.

    Empty where the package is not installed. It is not imported: vLLM, say, takes ten seconds, and a wrong name should cost none.
    """
    found = find_spec(package)
    source = Path(found.origin or "").parent / file if found else None
    if source is None or not source.is_file():
        return {}
    body = parse(source.read_text(encoding="utf-8")).body
    return {
        entry.target.id: entry.annotation
        for node in body
        if isinstance(node, ast.ClassDef) and node.name in classes
        for entry in node.body
        if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name) and entry.target.id[0] != "_"
    }
