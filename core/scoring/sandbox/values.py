"""Plain values as JSON and back, by exact built-in types: all that a program and its tests tell each other.

``encode`` reads a value with the built-in types' own methods, whatever a subclass overrides; ``decode`` makes values of the types
named here and nothing else. Anything else goes to ``lend``, whose answer ``resolve`` takes on the other side.
"""

from __future__ import annotations

import builtins
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

EXACT = 1 << 63  # larger integers go as hexadecimal: Python reads decimal ones up to 4300 digits only
NUMPY_KINDS = "biufcUS"
TYPES: dict[str, Any] = {
    kind.__name__: kind for kind in vars(builtins).values() if isinstance(kind, type) and kind is not type
}
CONTAINERS: dict[type, Callable[[Any], Iterable[Any]]] = {
    list: list.__iter__,
    tuple: tuple.__iter__,
    set: set.__iter__,
    frozenset: frozenset.__iter__,
}
MAPPINGS = {kind.__name__: kind for kind in (Counter, OrderedDict, dict)}
VIEWS: dict[str, Any] = {"keys": type({}.keys()), "values": type({}.values()), "items": type({}.items())}


class CrossingError(BaseException):
    """Ends a verdict. Not an ``Exception``, for tests may expect one of those; and ``first`` stays, whoever catches it."""

    first: CrossingError | None = None

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        CrossingError.first = CrossingError.first or self


class RefusedError(CrossingError):
    """Something that cannot cross."""


class MalformedError(CrossingError):
    """Something that ``encode`` never writes."""


def encode(value: Any, lend: Callable[[Any], Any]) -> Any:
    """Return ``value`` as what JSON can hold. Raises `RefusedError` where it nests too deeply or contains itself."""
    try:
        return _encode(value, lend)
    except RecursionError:
        raise RefusedError("a value nests too deeply, or contains itself") from None


def decode(data: Any, resolve: Callable[[list[Any]], Any]) -> Any:
    """Return the value that ``encode`` wrote. Raises `MalformedError` for anything else."""
    try:
        return _decode(data, resolve)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise MalformedError(f"{type(error).__name__}: {error}") from None


def _encode(value: Any, lend: Callable[[Any], Any]) -> Any:
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        return value if -EXACT < value < EXACT else ["int", hex(value)]
    for kind, items in CONTAINERS.items():
        if isinstance(value, kind):
            return [kind.__name__, [_encode(item, lend) for item in items(value)]]
    if isinstance(value, dict):
        pairs = [[_encode(key, lend), _encode(item, lend)] for key, item in dict.items(value)]
        if isinstance(value, defaultdict):
            return ["defaultdict", pairs, _encode(value.default_factory, lend)]
        return [next(name for name, kind in MAPPINGS.items() if isinstance(value, kind)), pairs]
    if isinstance(value, type) and TYPES.get(name := value.__name__) is value:
        return ["type", name]
    return _encode_rare(value, lend) or lend(value)


def _encode_rare(value: Any, lend: Callable[[Any], Any]) -> list[Any] | None:
    if isinstance(value, bytes | bytearray):
        return ["bytes" if isinstance(value, bytes) else "bytearray", value.hex()]
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, range):
        return ["range", *(_encode(part, lend) for part in (value.start, value.stop, value.step))]
    if isinstance(value, deque):
        return ["deque", [_encode(item, lend) for item in value], value.maxlen]
    for name, view in VIEWS.items():
        if isinstance(value, view):
            return [name, [_encode(item, lend) for item in value]]
    # A value of these types has imported its module.
    if (fractions := sys.modules.get("fractions")) and isinstance(value, fractions.Fraction):
        return ["Fraction", str(value)]
    if (decimal := sys.modules.get("decimal")) and isinstance(value, decimal.Decimal):
        return ["Decimal", str(value)]
    if numpy := sys.modules.get("numpy"):
        if isinstance(value, numpy.generic) and value.dtype.kind in NUMPY_KINDS:
            return ["scalar", value.dtype.str, _encode(value.item(), lend)]
        if isinstance(value, numpy.ndarray) and value.dtype.kind in NUMPY_KINDS:
            return ["array", value.dtype.str, list(value.shape), _encode(value.ravel().tolist(), lend)]
    return None


def _decode(data: Any, resolve: Callable[[list[Any]], Any]) -> Any:
    if data is None or isinstance(data, bool | int | float | str):
        return data
    match data:
        case ["list" | "tuple" | "set" | "frozenset" as name, [*items]]:
            return TYPES[name](_decode(item, resolve) for item in items)
        case ["dict" | "Counter" | "OrderedDict" as name, [*pairs]]:
            return MAPPINGS[name](_pairs(pairs, resolve))
        case ["defaultdict", [*pairs], factory]:
            return defaultdict(_decode(factory, resolve), _pairs(pairs, resolve))
        case ["type", str(name)]:
            return TYPES[name]
        case ["int", str(digits)]:
            return int(digits, 16)
        case ["bytes" | "bytearray" as name, str(digits)]:
            return TYPES[name].fromhex(digits)
        case ["complex", float(real), float(imaginary)]:
            return complex(real, imaginary)
        case ["range", start, stop, step]:
            return range(*(_decode(part, resolve) for part in (start, stop, step)))
        case ["deque", [*items], maxlen]:
            return deque((_decode(item, resolve) for item in items), maxlen)
        case ["keys", [*items]]:
            return dict.fromkeys(_decode(item, resolve) for item in items).keys()
        case ["values", [*items]]:
            return dict(enumerate(_decode(item, resolve) for item in items)).values()
        case ["items", [*items]]:
            return dict(_decode(item, resolve) for item in items).items()
        case ["Fraction" | "Decimal" as name, str(text)]:
            return _number(name, text)
        case ["scalar" | "array", str(), *_]:
            return _numpy(data, resolve)
    return resolve(data)


def _pairs(pairs: list[Any], resolve: Callable[[list[Any]], Any]) -> dict[Any, Any]:
    return {_decode(key, resolve): _decode(item, resolve) for key, item in pairs}


def _number(name: str, text: str) -> Any:
    from decimal import Decimal
    from fractions import Fraction

    return Fraction(text) if name == "Fraction" else Decimal(text)


def _numpy(data: list[Any], resolve: Callable[[list[Any]], Any]) -> Any:
    import numpy

    if (dtype := numpy.dtype(data[1])).kind not in NUMPY_KINDS:
        raise ValueError(data[1])
    values = numpy.array(_decode(data[-1], resolve), dtype=dtype)
    return values[()] if data[0] == "scalar" else values.reshape(data[2])


def restore(old: Any, new: Any) -> Any:
    """Make the list, dict, set or bytearray ``old`` equal ``new`` in place, and those inside it. Returns what stands for both."""
    if type(old) is not type(new):
        return new
    if isinstance(old, list):
        old[:] = [restore(a, b) for a, b in zip(old, new, strict=False)] + new[len(old) :]
    elif isinstance(old, dict):
        merged = {key: restore(old.get(key), item) for key, item in new.items()}
        old.clear()
        old.update(merged)
    elif isinstance(old, set):
        old.clear()
        old.update(new)
    elif isinstance(old, deque | bytearray):
        old.clear()
        old.extend(new)
    elif isinstance(old, tuple) and len(old) == len(new):
        return tuple(restore(a, b) for a, b in zip(old, new, strict=True))
    else:
        return new
    return old
