"""The headers of safetensors files, checked against the files. Weights are never read whole."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import UserError
from core.model.files import Files

LARGEST_HEADER = 100_000_000  # the format's own limit
ZIP_START, ZIP_END, ZIP_END_BYTES = b"PK\x03\x04", b"PK\x05\x06", 22
GIT_LFS = b"version https://git-lfs"
# Of the element types that fill whole bytes; others are packed.
ELEMENT_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 1),
}


@dataclass(frozen=True)
class Tensor:
    """One tensor: element type by safetensors' name, count of elements, and its bytes, ``start`` to ``end`` after the header."""

    dtype: str
    elements: int
    start: int
    end: int

    @property
    def bytes(self) -> int:
        """Bytes that it takes in its file."""
        return self.end - self.start


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file. ``values`` is the header as stored, ``data_start`` where the tensors' bytes begin."""

    values: dict[str, Any]
    data_start: int
    tensors: Mapping[str, Tensor]


def read_header(files: Files, name: str) -> Header:
    """Read one file's header and check the file against it.

    Raises `core.errors.UserError` for a header that cannot be one, a file that is cut off or too long, and a tensor whose bytes are
    not those of its shape and type.
    """
    fault = f"{files.source!r}: {name} is not a safetensors file"
    size, head = files.names[name], files.read(name, 0, 8)
    check_fetched(files, name)
    if len(head) < 8:
        raise UserError(f"{fault}: {len(head)} bytes long; fetch it again")
    (length,) = struct.unpack("<Q", head)
    if length > min(LARGEST_HEADER, size - 8):
        raise UserError(f"{fault}: its header claims {length:,} bytes of a {size:,} byte file; fetch it again")
    try:
        values = json.loads(files.read(name, 8, length))
        tensors = {key: _tensor(entry) for key, entry in values.items() if key != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{fault}: its header is not what the format says; fetch it again") from error
    _check(files.source, name, size - 8 - length, tensors)
    return Header(values, 8 + length, tensors)


def check_fetched(files: Files, name: str) -> None:
    """Raise `core.errors.UserError` for what Git leaves in the place of a large file until it is fetched."""
    if files.names[name] < 1024 and files.read(name, 0, len(GIT_LFS)) == GIT_LFS:
        raise UserError(f"{files.source!r}: {name} is a pointer of Git LFS, not the file: run git lfs pull there")


def check_archive(files: Files, name: str) -> None:
    """Raise `core.errors.UserError` for a file of torch's that is cut off: an archive, with a mark at its end."""
    head = files.read(name, 0, len(ZIP_START))
    if head == ZIP_START and files.read(name, max(0, files.names[name] - ZIP_END_BYTES))[:4] != ZIP_END:
        raise UserError(f"{files.source!r}: {name} is cut off, or no file of torch's: fetch it again")


def _tensor(entry: Any) -> Tensor:
    start, end = entry["data_offsets"]
    return Tensor(str(entry["dtype"]), math.prod(entry["shape"]), int(start), int(end))


def _check(source: str, name: str, stored: int, tensors: Mapping[str, Tensor]) -> None:
    at = 0
    for key, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        wide = ELEMENT_BYTES.get(tensor.dtype)
        if tensor.start != at or (wide is not None and tensor.bytes != wide * tensor.elements):
            raise UserError(
                f"{source!r}: {name}: the bytes of tensor {key!r} are not those of its shape and type {tensor.dtype}; "
                "fetch it again"
            )
        at = tensor.end
    if at > stored:
        raise UserError(f"{source!r}: {name} is cut off: {stored:,} bytes of {at:,} after its header; fetch it again")
    if at < stored:
        raise UserError(f"{source!r}: {name} is {stored - at:,} bytes longer than its header says; fetch it again")
