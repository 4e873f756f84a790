"""Names that a test text takes from the program that it tests, where the benchmark lists none."""

from __future__ import annotations

import ast
import builtins
import symtable
import sys
from collections import Counter
from collections.abc import Iterator

from core.python_source import parse

ABBREVIATIONS = {"np": "numpy", "pd": "pandas"}
MODULES = {**{name: name for name in (*sys.stdlib_module_names, *ABBREVIATIONS.values())}, **ABBREVIATIONS}


def names_of(tests: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return names that ``tests`` use and do not define, and name → module for those that stand for modules, as in ``math.pi``.

    Built-in functions are the tests' own, unless no other name is there: then the one is tested that the text calls. Empty where
    the text is not Python.
    """
    try:
        used, tree = _free(tests), parse(tests)
    except (SyntaxError, ValueError, RecursionError):
        return (), {}
    uses = Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    attributes = Counter(
        n.value.id for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)
    )
    modules = {name: MODULES[name] for name in used if name in MODULES and uses[name] == attributes[name]}
    others = [name for name in used if name not in modules]
    return tuple([name for name in others if not hasattr(builtins, name)] or others), modules


def _free(tests: str) -> list[str]:
    top = symtable.symtable(tests, "tests.py", "exec")
    defined = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    defined |= {symbol.get_name() for symbol in top.get_symbols() if symbol.is_namespace()}
    found = {
        symbol.get_name()
        for table in _tables(top)
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (table is top or symbol.is_global())
    }
    return sorted(found - defined)


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)
