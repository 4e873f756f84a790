"""Modules of a YAML's folder, imported so that each finds the others that lie there, and no folder gets another's.

lm-eval imports the file of a ``!function`` by itself: what it imports from beside it is found only with the folder on PYTHONPATH,
and two folders with a ``common.py`` share the first. Here a folder is a package of its own, named after its files' content: what
was edited is imported anew, and what ``datasets`` caches of a ``Dataset.map``, under the function's name, is not taken for what the
function does now.
"""

from __future__ import annotations

import builtins
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module, invalidate_caches
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from core.catalogue.imports import beside, helpers, shipped

PREFIX = "steelyard_beside_"


def load_module(path: Path) -> ModuleType:
    """Import the file of a ``!function``. Raises what its code raises."""
    if sys.meta_path[0] is not _Finder:  # others put theirs first, and would find our modules as they find any
        sys.meta_path[:] = [_Finder, *(finder for finder in sys.meta_path if finder is not _Finder)]
    return import_module(f"{_package(path.parent)}.{path.stem}")


def install() -> None:
    """Put `load_module` in the place of lm-eval's own, once; lm-eval's own modules stay parts of its package."""
    from lm_eval.tasks import _yaml_loader

    theirs: Callable[[Path], Any] = _yaml_loader._load_module_with_cache
    if theirs.__module__ == __name__:
        return
    _yaml_loader._load_module_with_cache = lambda path: theirs(path) if shipped(path) else load_module(path)


def helpers_digest(values: Any) -> str | None:
    """Hash the files beside those of the functions among ``values`` that they may import; None where there are none."""
    modules = {function.__module__ for function in _functions(values)}
    files = {str(sys.modules[name].__file__) for name in modules if name.startswith(PREFIX) and name in sys.modules}
    found = {helper for file in files for helper in helpers(Path(file))}
    return _hash((path.name, path.read_bytes()) for path in sorted(found)) if found else None


def _functions(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _functions(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _functions(each)
    elif callable(value) and isinstance(getattr(value, "__module__", None), str):
        yield value


def _package(folder: Path) -> str:
    contents = ((path.relative_to(folder).as_posix(), path.read_bytes()) for path in _files(folder))
    name = PREFIX + _hash([(str(folder), b""), *contents])[:16]
    if name not in sys.modules:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        invalidate_caches()  # of folders as they were
        sys.modules[name] = module_from_spec(spec)
    return name


def _files(folder: Path) -> list[Path]:
    """Python files that the modules of a folder can import from it."""
    packages = (each for each in folder.iterdir() if (each / "__init__.py").is_file())
    plain = (each for each in folder.glob("*/*.py") if not (each.parent / "__init__.py").is_file())
    return sorted([*folder.glob("*.py"), *plain, *(path for each in packages for path in each.rglob("*.py"))])


def _hash(parts: Iterator[tuple[str, bytes]] | list[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, content in parts:
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


class _Finder:
    """Finds the modules of our packages as Python does those of any other, for `_Loader` to load."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if not name.startswith(PREFIX) or path is None:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Gives a module an ``import`` of its own: each module's is looked up in its own builtins, whenever it is called."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile the source: Python's cache goes by seconds, and has no place in a person's folder."""
        return self.source_to_code(self.get_data(self.path), self.path)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        package = module.__name__.partition(".")[0]
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _importing(package)}
        super().exec_module(module)


def _importing(package: str) -> Callable[..., Any]:
    folder = Path(sys.modules[package].__path__[0])

    def import_(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        first = name.partition(".")[0]
        importer = Path(file) if (file := (globals or {}).get("__file__")) else None
        if level or beside(first, folder, importer) is None:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        module = builtins.__import__(f"{package}.{name}", globals, locals, fromlist or (), 0)
        return module if fromlist else sys.modules[f"{package}.{first}"]

    return import_
