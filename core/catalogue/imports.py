"""Imports of a task's Python module, as its source says them: where each leads, and which packages are not installed.

A module of a person's may import others that lie beside it: `core.benchmark.beside` loads them by the rule that `beside` states.
lm-eval's own modules are part of its package.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from core.catalogue.index import harness_folder
from core.catalogue.modules import module_of, names_of


@dataclass(frozen=True)
class Missing:
    """What cannot be imported, and the file that imports it; ``fault`` says why where it is there."""

    name: str
    importer: Path
    fault: str = ""


@lru_cache(maxsize=4096)
def shipped(path: Path) -> bool:
    """Whether a file comes with lm-eval."""
    return path.resolve().is_relative_to(harness_folder().resolve())


def beside(name: str, folder: Path, importer: Path | None = None) -> Path | None:
    """Return the file that ``import name`` gets from ``folder``, None where it is not looked for there.

    As with a script, what lies beside it goes before what is installed, but for a folder without ``__init__.py``. The standard
    library keeps its names, and a module does not get itself.
    """
    if name in sys.stdlib_module_names or shipped(folder):
        return None
    found = next((path for path in (folder / name / "__init__.py", folder / f"{name}.py") if path.is_file()), None)
    if found is None:
        bare = folder / name
        return bare if any(bare.glob("*.py")) and not _is_installed(name) else None
    return None if found == importer and found.name != "__init__.py" else found


def source_of(module: str, folder: Path) -> Path | None:
    """Return the file of ``!function module.name``: beside the YAML as lm-eval looks for it, else of an installed module."""
    found = folder / f"{module.replace('.', '/')}.py"
    return found if found.is_file() else _installed(module)


def missing(source: Path, folder: Path | None, function: str = "") -> list[Missing]:
    """Return what cannot be imported when a module is, or when its ``function`` is called; in the order of the imports.

    ``folder`` is where modules beside it lie, None for an installed one. Modules of a person's and of lm-eval's tasks are followed;
    what else is installed is taken to have what it needs.
    """
    find = _missing_of_shipped if shipped(source) else _missing
    return find(source, folder, function)


def _missing(source: Path, folder: Path | None, function: str) -> list[Missing]:
    found: dict[str, Missing] = {}
    for each in _walk(source, folder, set(), function):
        found.setdefault(each.name, each)
    return list(found.values())


_missing_of_shipped = lru_cache(maxsize=4096)(
    _missing
)  # whose files stay as they are, and which thousands of tasks share


def helpers(source: Path) -> list[Path]:
    """Return the files beside a person's module that it may import, directly or by way of others; also when it is called."""
    found: dict[Path, None] = {}
    _gather(source, source.parent, found)
    found.pop(source, None)
    return list(found)


def _gather(source: Path, folder: Path, found: dict[Path, None]) -> None:
    if source in found:
        return
    found[source] = None
    for node in ast.walk(module_of(source).tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for _, target in _targets(node, source, folder):
                if target is not None and target.suffix == ".py" and target.is_relative_to(folder):
                    _gather(target, folder, found)


def _walk(source: Path, folder: Path | None, seen: set[Path], function: str = "") -> Iterator[Missing]:
    if source in seen:
        return
    seen.add(source)
    tree = module_of(source).tree
    for node in [*_unconditional(tree.body), *_of_function(tree, function)]:
        for name, target in _targets(node, source, folder):
            if target is None:
                yield Missing(name, source)
            elif target.suffix == ".py" and (fault := module_of(target).fault):
                yield Missing(name, source, fault)
            elif target.suffix == ".py" and (shipped(target) or (folder and target.is_relative_to(folder))):
                yield from _walk(target, folder, seen)


def _unconditional(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports without which a module or a function cannot run: plain ones, and those of a ``try`` that raises again."""
    for statement in body:
        match statement:
            case ast.Import() | ast.ImportFrom():
                yield statement
            case ast.Try(body=inner, handlers=handlers):
                if all(isinstance(node, ast.Raise) for handler in handlers for node in handler.body[-1:]):
                    yield from _unconditional(inner)
            case ast.With(body=inner):
                yield from _unconditional(inner)


def _of_function(tree: ast.Module, name: str) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports in a function's body, and in those of its module's functions that it calls in turn."""
    functions = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}
    waiting, seen = [name], {name}
    while waiting:
        function = functions.get(waiting.pop())
        if function is None:
            continue
        yield from _unconditional(function.body)
        calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
        called = {each.id for each in calls if isinstance(each, ast.Name)} - seen
        seen |= called
        waiting += sorted(called)


def _targets(node: ast.Import | ast.ImportFrom, source: Path, folder: Path | None) -> Iterator[tuple[str, Path | None]]:
    """(name, file) of what an import needs: no file where it is not there, ``source`` where there is nothing to follow."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield from _target(alias.name, [], source, folder)
        return
    names = [alias.name for alias in node.names if alias.name != "*"]
    if node.level == 0:
        yield from _target(node.module or "", names, source, folder)
        return
    start, written = source.parents[node.level - 1], "." * node.level + (node.module or "")
    if folder is not None and source.is_relative_to(folder) and not start.is_relative_to(folder):
        yield written, source if shipped(start) else None  # a person's folder is a package, and in none
    else:
        yield from _steps(start, (node.module or "").split(".") if node.module else [], names, written)


def _target(module: str, names: list[str], source: Path, folder: Path | None) -> Iterator[tuple[str, Path | None]]:
    parts = module.split(".")
    if folder is not None and beside(parts[0], folder, source) is not None:
        yield from _steps(folder, parts, names, module)
    elif parts[0] == "lm_eval":
        yield from _steps(harness_folder().parents[1], parts, names, module)
    else:
        yield parts[0], source if _is_installed(parts[0]) else None


def _steps(folder: Path, parts: list[str], names: list[str], written: str) -> Iterator[tuple[str, Path | None]]:
    """Follow a dotted name from a folder, and then the imported names that are modules of what was found."""
    found: Path | None = folder
    for part in parts:
        found = _in_folder(part, folder)
        yield written, found
        if found is None or found.suffix not in ("", ".py"):
            return
        if found.suffix and found.name != "__init__.py":
            yield from ((_dotted(written, name), None) for name in names if not _defines(found, name))
            return
        folder = found.parent if found.suffix else found
    own = folder / "__init__.py"
    for name in names:
        inner = _in_folder(name, folder)
        if inner is not None or not _defines(own, name):
            yield _dotted(written, name), inner


def _defines(module: Path, name: str) -> bool:
    """Whether a module may bind a name; it is not looked into where it is another's."""
    if not module.is_file():
        return False
    names = names_of(module)
    return name in names.defined or names.hidden or shipped(module)


def _dotted(module: str, name: str) -> str:
    return f"{module}{name}" if module.endswith(".") else f"{module}.{name}"


def _in_folder(name: str, folder: Path) -> Path | None:
    """A module's file in a folder; of a folder without ``__init__.py``, which is a package too, the folder."""
    usual = (folder / name / "__init__.py", folder / f"{name}.py", folder / name)
    found = next((each for each in usual if each.exists()), None)
    return found or next(folder.glob(f"{name}.*.so"), None)


@cache
def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # ValueError: in sys.modules without a spec
        return True


def _installed(module: str) -> Path | None:
    """File of an installed module, its parents not imported."""
    root, *rest = module.split(".")
    try:
        found = find_spec(root)
    except (ImportError, ValueError):  # ValueError: in sys.modules without a spec
        return None
    if found is None:
        return None
    folders = [Path(folder) for folder in found.submodule_search_locations or []]
    source = Path(found.origin) if found.origin and found.has_location else None
    for part in rest:
        candidates = [each for folder in folders for each in (folder / part / "__init__.py", folder / f"{part}.py")]
        compiled = [each for folder in folders for each in folder.glob(f"{part}.*") if each.suffix in (".so", ".pyd")]
        source = next((each for each in [*candidates, *compiled] if each.is_file()), None)
        folders = [folder / part for folder in folders if (folder / part).is_dir()]
    return source
