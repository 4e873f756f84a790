"""Arguments of a task's code that makes its docs: the names it reads, as its source shows them. Runs none of it."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

from core.catalogue.imports import source_of
from core.catalogue.modules import Module, module_of
from core.yaml_file import FunctionName

# The model's tokenizer as lm-eval hands it to a task: in its own field, or by the model's name.
TOKENIZER = ("tokenizer", "pretrained")


@dataclass(frozen=True)
class Reads:
    """What a function reaches in its module and in those beside it.

    ``names`` are those of arguments that it may read, ``files`` the modules. ``passed_on`` says that it hands its arguments on to
    code that was not looked into; a function whose source cannot be read does.
    """

    names: frozenset[str]
    files: tuple[Path, ...]
    passed_on: bool

    @property
    def tokenizer(self) -> bool:
        """Whether the docs are made for a tokenizer."""
        return not self.names.isdisjoint(TOKENIZER)

    def packages(self) -> dict[str, str]:
        """Return the distributions that the modules import, with their versions."""
        roots = {root for file in self.files for root in _roots(_bindings(module_of(file)))}
        known = packages_distributions()
        return {name: version(name) for root in sorted(roots) for name in known.get(root, [])}


def reads(function: FunctionName) -> Reads:
    """Return what ``module.name`` reads."""
    module, _, name = function.written.rpartition(".")
    source = source_of(module, function.folder)
    if source is None or source.suffix != ".py":
        return Reads(frozenset(), (), passed_on=True)
    found: dict[tuple[Path, str], ast.AST] = {}
    _reach(source, name, found)
    if not found:
        return Reads(frozenset(), (source,), passed_on=True)
    taking = {name, *(each for node in found.values() for each in _handed(node))}
    names = frozenset(each for node in found.values() for each in _names(node, taking))
    files = tuple(sorted({file for file, _ in found}))
    return Reads(names, files, passed_on=not taking <= {known for _, known in found})


@dataclass(frozen=True)
class _Bindings:
    bound: Mapping[str, ast.AST]  # by a definition or an assignment
    imported: Mapping[str, tuple[str, str | None]]  # name → (module, what of it)


@lru_cache(maxsize=256)
def _bindings(module: Module) -> _Bindings:
    tree = module.tree
    bound: dict[str, ast.AST] = {}
    imported: dict[str, tuple[str, str | None]] = {}
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=origin, names=names):
                imported |= {each.asname or each.name: (origin or "", each.name) for each in names}
            case ast.Import(names=names):
                imported |= {each.asname or each.name: (each.name, None) for each in names}
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                bound[name] = node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                bound[name] = node
    return _Bindings(bound, imported)


def _reach(source: Path, name: str, found: dict[tuple[Path, str], ast.AST]) -> None:
    module = _bindings(module_of(source))
    if name in module.bound and (source, name) not in found:
        found[source, name] = node = module.bound[name]
        for each in _mentioned(node):
            _reach(source, each, found)
    elif name.split(".")[0] in module.imported:
        root, _, rest = name.partition(".")
        origin, what = module.imported[root]
        beside = source.parent / f"{origin.rpartition('.')[2]}.py"
        wanted = what or rest
        if wanted and beside.is_file() and beside != source:
            _reach(beside, wanted, found)


def _mentioned(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        match each:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                yield f"{name}.{attribute}"
            case ast.Name(id=name):
                yield name


def _names(node: ast.AST, taking: Collection[str]) -> Iterator[str]:
    """Names that a definition may read: keys that it looks up, texts it lists, and parameters of functions ``taking`` arguments."""
    for each in ast.walk(node):
        match each:
            case ast.Call(
                func=ast.Attribute(attr="get" | "pop" | "setdefault"), args=[ast.Constant(value=str(text)), *_]
            ):
                yield text
            case ast.Subscript(slice=ast.Constant(value=str(text))):
                yield text
            case ast.Tuple(elts=texts) | ast.List(elts=texts) | ast.Set(elts=texts):
                yield from (
                    text.value for text in texts if isinstance(text, ast.Constant) and isinstance(text.value, str)
                )
            case ast.FunctionDef(name=name, args=arguments) if name in taking:
                yield from (each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))


def _handed(node: ast.AST) -> Iterator[str]:
    """Names of the functions that a definition calls with a ``**``."""
    for each in ast.walk(node):
        if isinstance(each, ast.Call) and any(keyword.arg is None for keyword in each.keywords):
            yield each.func.attr if isinstance(each.func, ast.Attribute) else getattr(each.func, "id", "")


def _roots(module: _Bindings) -> set[str]:
    return {origin.split(".")[0] for origin, _ in module.imported.values() if origin}
