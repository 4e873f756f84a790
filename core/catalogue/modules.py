"""Python modules of tasks as their source shows them: parsed, not imported."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from core.python_source import parse

# A module that calls one of these may bind names that its source does not show.
RUN_TIME = {"globals", "vars", "setattr", "exec"}


@dataclass(frozen=True, eq=False)
class Module:
    """A parsed module. ``fault`` says why it cannot be parsed; ``tree`` is empty then."""

    source: Path
    tree: ast.Module
    fault: str | None = None


def module_of(source: Path) -> Module:
    """Parse a module's file; one that has not changed is parsed once."""
    return _parsed(source, source.stat().st_mtime_ns)


@lru_cache(maxsize=2048)
def _parsed(source: Path, _modified: int) -> Module:
    try:
        with warnings.catch_warnings():  # of old escapes in other people's code
            warnings.simplefilter("ignore")
            return Module(source, parse(source.read_bytes()))
    except (SyntaxError, ValueError, RecursionError) as error:
        where = f"{source.name} line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
        return Module(source, ast.Module(body=[], type_ignores=[]), where)


@dataclass(frozen=True)
class Names:
    """Names that a module binds, and those that it registers with lm-eval when it is imported."""

    defined: frozenset[str] = frozenset()
    registered: frozenset[str] = frozenset()
    hidden: bool = False  # binds more than its source shows


def names_of(source: Path) -> Names:
    """Return a module's names."""
    return _names(module_of(source))


@lru_cache(maxsize=1024)
def _names(module: Module) -> Names:
    tree = module.tree
    defined = frozenset(_defined(tree.body))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    registered = {
        str(each.value)
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id.startswith("register_")
        for each in [*call.args, *(keyword.value for keyword in call.keywords)]
        if isinstance(each, ast.Constant)
    }
    called = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
    hidden = bool(defined & {"*", "__getattr__"} or called & RUN_TIME)
    return Names(defined, frozenset(registered), hidden)


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    """Names a module binds, also inside ``if``, ``try``, ``for`` and ``with``; ``*`` where it takes all of another module."""
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
                continue
            case ast.Import(names=names):
                yield from (alias.asname or alias.name.split(".")[0] for alias in names)
            case ast.ImportFrom(names=names):
                yield from (alias.asname or alias.name for alias in names)
            case ast.Assign() | ast.AnnAssign():
                yield from (node.id for node in ast.walk(statement) if isinstance(node, ast.Name))
        for field in ("body", "orelse", "finalbody"):
            yield from _defined(getattr(statement, field, []))
        for handler in getattr(statement, "handlers", []):
            yield from _defined(handler.body)
