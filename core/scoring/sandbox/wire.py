"""The line between a program's process and its tests' process: requests, answers, and handles of objects that stay where they are.

Both scripts of a sandbox use this file; standard library only. The two sides are not equals: a program may be asked for anything,
and may itself ask only that a function be called which the tests gave it.
"""

from __future__ import annotations

import builtins
import importlib
import json
import os
import struct
import sys
from collections.abc import Callable
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any, NoReturn

from core.scoring.sandbox.values import CrossingError, MalformedError, RefusedError, decode, encode, restore

MESSAGE_BYTES = 64 << 20
HEADER = struct.Struct(">I")
OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda target, *args, **kwargs: target(*args, **kwargs),
    "iter": iter,
    "next": next,
    "getattr": getattr,
    "setattr": setattr,
}


class EndedError(CrossingError):
    """The other side is gone."""


class Handle:
    """An object that lives on the other side: to be called, iterated and passed back, its attributes to be read and set.

    It cannot be compared, for the answer would be the other side's own; nor has it special attributes, some of which libraries
    believe (numpy takes an address from ``__array_interface__``).
    """

    def __init__(self, peer: Peer, key: int, name: str) -> None:
        self.__dict__.update(_peer=peer, _key=key, _name=name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it there."""
        return self._peer.operate("call", self, args, kwargs)

    def __iter__(self) -> Any:
        return self._peer.operate("iter", self)

    def __next__(self) -> Any:
        return self._peer.operate("next", self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._peer.operate("getattr", self, (name,))

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.operate("setattr", self, (name, value))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        raise RefusedError(f"{self!r} was compared, and only plain values can be")

    __hash__ = object.__hash__

    def __reduce_ex__(self, _protocol: Any) -> NoReturn:
        raise RefusedError(f"{self!r} was copied, and only plain values can be")

    def __repr__(self) -> str:
        return f"<{self._name}>"


class Peer:
    """One end of the line, a pair of pipes. ``perform`` answers requests other than `OPERATIONS`.

    ``trusting`` is the program's end: the tests may do all of those with any object that it lent, and name functions of a library.
    """

    def __init__(self, read: int, write: int, perform: Callable[[list[Any]], Any], *, trusting: bool) -> None:
        self._from, self._to, self._perform, self._trusting = read, write, perform, trusting
        self._lent: dict[int, Any] = {}
        self._keys: dict[int, int] = {}  # by the id of a lent object; being lent keeps it alive
        self._borrowed: dict[int, Handle] = {}

    def request(self, *message: Any) -> Any:
        """Send a request and return its answer; what the other side asks meanwhile is answered. Raises what it raised."""
        self._send([*message])
        while (reply := self._receive())[0] not in ("done", "raised", "refused"):
            self._answer(reply)
        match reply:
            case ["done", value]:
                return self._decode(value)
            case ["raised", str(name), [*bases], ["list", [*args]]]:
                raise _exception(name, bases, [self._decode(arg) for arg in args])
            case ["refused", str(reason)]:
                raise RefusedError(reason)
        raise MalformedError("no answer reads so")

    def serve(self) -> None:
        """Answer requests until the other side has gone."""
        while True:
            try:
                message = self._receive()
            except EndedError:
                return
            self._answer(message)

    def operate(
        self, operation: str, handle: Handle, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do something with an object of the other side. What it changes of the lists and dicts given changes here too."""
        given = [list(args), kwargs or {}]
        answer = self.request(operation, handle._key, self._encode(given))
        if type(answer) is not tuple or len(answer) != 2:
            raise MalformedError("no operation answers so")
        value, changed = answer
        if changed is not None:
            restore(given, changed)
        return value

    def _answer(self, message: list[Any]) -> None:
        try:
            answer = ["done", self._encode(self._done(message))]
        except RefusedError as error:
            answer = ["refused", str(error)]
        except (MalformedError, EndedError):
            raise
        except BaseException as error:  # whatever a program raises, SystemExit among it
            answer = self._raised(error)
        try:
            self._send(answer)
        except RefusedError as error:
            self._send(["refused", str(error)])

    def _done(self, message: list[Any]) -> Any:
        match message:
            case [str(operation), int(key), data] if operation in OPERATIONS:
                if key not in self._lent or not (self._trusting or operation == "call"):
                    raise MalformedError(f"{operation} of object {key} is not for the other side")
                given = self._decode(data)
                before = self._encode(given)
                value = OPERATIONS[operation](self._lent[key], *given[0], **given[1])
                return value, None if self._encode(given) == before else given
        return self._perform(message)

    def _raised(self, error: BaseException) -> list[Any]:
        bases = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]
        given = [*error.args]
        if isinstance(error, OSError) and error.filename is not None and len(given) == 2:
            given.append(error.filename)
        return ["raised", type(error).__name__, bases, encode(given, str)]

    def _encode(self, value: Any) -> Any:
        return encode(value, self._lend)

    def _decode(self, data: Any) -> Any:
        return decode(data, self._resolve)

    def _lend(self, value: Any) -> list[Any]:
        if isinstance(value, Handle) and self._borrowed.get(value._key) is value:
            return ["yours", value._key]
        if not self._trusting:
            if isinstance(value, BuiltinFunctionType) and value.__module__ in sys.stdlib_module_names:
                return ["named", value.__module__, value.__name__]
            if not isinstance(value, FunctionType | partial):
                _refuse(value)
        key = self._keys.setdefault(id(value), len(self._keys))
        self._lent[key] = value
        return ["mine", key, type(value).__name__]

    def _resolve(self, data: list[Any]) -> Any:
        match data:
            case ["mine", int(key), str(kind)]:
                owner = "the tests" if self._trusting else "the program"
                return self._borrowed.setdefault(key, Handle(self, key, f"{kind[:100]} of {owner}"))
            case ["yours", int(key)]:
                return self._lent[key]
            case ["named", str(module), str(name)] if self._trusting:
                return getattr(importlib.import_module(module), name)
        raise ValueError("no value reads so")

    def _send(self, message: list[Any]) -> None:
        try:
            data = json.dumps(message).encode()
        except RecursionError:
            raise RefusedError("a value nests too deeply") from None
        if len(data) > MESSAGE_BYTES:
            raise RefusedError(f"a value is larger than {MESSAGE_BYTES >> 20} MB")
        data = HEADER.pack(len(data)) + data
        try:
            while data:
                data = data[os.write(self._to, data) :]
        except OSError:
            raise EndedError from None

    def _receive(self) -> list[Any]:
        (length,) = HEADER.unpack(self._read(HEADER.size))
        if length > MESSAGE_BYTES:
            raise MalformedError("a message is too large")
        try:
            message = json.loads(self._read(length))
        except (ValueError, RecursionError):
            raise MalformedError("a message is not JSON") from None
        if not isinstance(message, list) or not message or not isinstance(message[0], str):
            raise MalformedError("no message reads so")
        return message

    def _read(self, length: int) -> bytes:
        pieces = []
        while length:
            try:
                piece = os.read(self._from, min(length, 1 << 20))
            except OSError:
                raise EndedError from None
            if not piece:
                raise EndedError
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces)


def _refuse(value: Any) -> NoReturn:
    raise RefusedError(f"a value of type {type(value).__name__} cannot be passed")


def _exception(name: str, bases: list[Any], args: list[Any]) -> BaseException:
    """Build an exception of the nearest built-in class, under its own name."""
    known = [getattr(builtins, base, None) for base in bases if isinstance(base, str)]
    base = next((kind for kind in known if isinstance(kind, type) and issubclass(kind, BaseException)), None)
    if base is None:
        raise MalformedError(f"{name} is no exception")
    kind = base if name == base.__name__ else type(name[:100], (base,), {})
    try:
        return kind(*args)
    except Exception:  # some want arguments of certain types
        return Exception(*args)
