"""Packages that a task needs and that are not installed, and the command that installs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OWNERS = ("steelyard", "lm-eval")  # whose extras are offered, the first that has one


def pip_install(packages: Sequence[str]) -> str:
    """Return the command for packages by the names they are imported under: an extra that brings them, else their own names."""
    wanted = {package: str(canonicalize_name(package)) for package in packages}
    for owner in OWNERS:
        brought = {extra: wanted.keys() & _imported(wanted, names) for extra, names in _extras(owner).items()}
        best = max(brought, key=lambda extra: (len(brought[extra]), -len(_extras(owner)[extra])), default=None)
        if best is not None and brought[best]:
            rest = [wanted[package] for package in packages if package not in brought[best]]
            return " ".join(["pip install", f"'{owner}[{best}]'", *rest])
    return f"pip install {' '.join(wanted.values())}"


def _imported(wanted: dict[str, str], names: frozenset[str]) -> set[str]:
    """Packages that are among ``names``, or the first part of one: ``antlr4`` comes with antlr4-python3-runtime."""
    return {package for package, name in wanted.items() if any(f"{each}-".startswith(f"{name}-") for each in names)}


@cache
def _extras(owner: str) -> dict[str, frozenset[str]]:
    """Names of the packages that each extra of an installed package brings."""
    try:
        listed = [Requirement(each) for each in requires(owner) or []]
    except PackageNotFoundError:  # Steelyard runs from a checkout too
        return {}
    extras = {extra for each in listed for extra in _of(each)}
    return {extra: frozenset(_names(owner, extra)) for extra in sorted(extras)}


def _of(requirement: Requirement) -> Iterator[str]:
    """Extras that a requirement belongs to."""
    if requirement.marker is not None:
        clauses = str(requirement.marker).split("extra == ")[1:]
        yield from (canonicalize_name(clause.split('"')[1]) for clause in clauses)


def _names(owner: str, extra: str, above: tuple[tuple[str, str], ...] = ()) -> Iterator[str]:
    if (owner, extra) in above:
        return
    try:
        listed = [Requirement(each) for each in requires(owner) or []]
    except PackageNotFoundError:
        return
    for each in listed:
        if extra not in _of(each):
            continue
        name = canonicalize_name(each.name)
        yield name
        if name in map(canonicalize_name, OWNERS):
            for inner in each.extras:
                yield from _names(name, canonicalize_name(inner), (*above, (owner, extra)))
