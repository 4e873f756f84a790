"""The weight files of a checkpoint: names, safetensors headers, checks and identity. Weights are never read whole."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import UserError
from core.model.files import Files

INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SHARD = re.compile(r"(?P<stem>.+)-\d+-of-(?P<count>\d+)(?P<ending>\.safetensors|\.bin)")
TENSOR_SAMPLE_BYTES = 4096
LARGEST_HEADER = 100_000_000  # the format's own limit
# Of the element types that fill whole bytes; others are packed.
ELEMENT_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 1),
}
# safetensors' names for element types; what is missing here is packed or integer and says nothing about the compute type.
SAFETENSORS_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "BF16": "bfloat16",
    "F16": "float16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
# Small files that decide what goes into the model and what comes out.
TEXT_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
# Notes about the file, not about the model.
VOLATILE_CONFIG = ("_name_or_path", "transformers_version")


@dataclass(frozen=True)
class Weights:
    """The weights by their files' headers. ``parameters`` is None for files without readable headers."""

    bytes: int
    parameters: int | None
    dtype: str | None


@dataclass(frozen=True)
class Tensor:
    """One tensor: element type by safetensors' name, count of elements, and its bytes, ``start`` to ``end`` after the header."""

    dtype: str
    elements: int
    start: int
    end: int


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


def _tensor(entry: Any) -> Tensor:
    start, end = entry["data_offsets"]
    return Tensor(str(entry["dtype"]), math.prod(entry["shape"]), int(start), int(end))


def _check(source: str, name: str, stored: int, tensors: Mapping[str, Tensor]) -> None:
    at = 0
    for key, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        wide = ELEMENT_BYTES.get(tensor.dtype)
        if tensor.start != at or (wide is not None and tensor.end - tensor.start != wide * tensor.elements):
            raise UserError(
                f"{source!r}: {name}: the bytes of tensor {key!r} are not those of its shape and type {tensor.dtype}; "
                "fetch it again"
            )
        at = tensor.end
    if at > stored:
        raise UserError(f"{source!r}: {name} is cut off: {stored:,} bytes of {at:,} after its header; fetch it again")
    if at < stored:
        raise UserError(f"{source!r}: {name} is {stored - at:,} bytes longer than its header says; fetch it again")


def weight_files(files: Files) -> list[str]:
    """Name the files that vLLM would load. Raises `core.errors.UserError` where there are none or one is missing."""
    for index_name in INDEX_FILES:
        shards = sorted(set(_weight_map(files, index_name).values()))
        _check_shards(files, shards, f"named in {index_name}")
        if shards:
            return shards
    safetensors = [
        n for n in files.names if n.endswith(".safetensors") and not n.startswith(("consolidated", "adapter"))
    ]
    binaries = [n for n in files.names if n.startswith("pytorch_model") and n.endswith(".bin")]
    chosen = ["model.safetensors"] if "model.safetensors" in files.names else safetensors or binaries
    for parts in filter(None, map(SHARD.fullmatch, chosen)):
        stem, count, ending = parts["stem"], parts["count"], parts["ending"]
        every = [f"{stem}-{number:0{len(count)}}-of-{count}{ending}" for number in range(1, int(count) + 1)]
        _check_shards(files, every, f"one of the {int(count)} that the names of the others count")
    if chosen:
        return sorted(chosen)
    if any(name.endswith(".gguf") for name in files.names):
        raise UserError(f"{files.source!r} holds GGUF only: convert it to safetensors first")
    raise UserError(f"{files.source!r} has no weights (*.safetensors or pytorch_model*.bin)")


def _weight_map(files: Files, index_name: str) -> dict[str, str]:
    """Return tensor → file of an index, empty where there is none."""
    index = files.json(index_name) or {}
    found = index.get("weight_map", {})
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise UserError(
            f"{files.source!r}: the weight_map of {index_name} does not map tensors to files: fetch it again"
        )
    return found


def _check_shards(files: Files, shards: list[str], why: str) -> None:
    missing = [name for name in shards if name not in files.names]
    if missing:
        raise UserError(
            f"{files.source!r} lacks {missing[0]!r}, {why} "
            f"({len(missing)} of {len(shards)} shards missing): fetch the checkpoint again"
        )


def read_weights(files: Files) -> Weights:
    """Add up the weight files. Raises `core.errors.UserError` for one that is no whole safetensors file or lacks a tensor."""
    elements: Counter[str] = Counter()
    total, readable = 0, True
    held: dict[str, set[str]] = {}
    for name in weight_files(files):
        if not name.endswith(".safetensors"):
            total, readable = total + files.names[name], False
            continue
        tensors = read_header(files, name).tensors
        held[name] = set(tensors)
        for tensor in tensors.values():
            total += tensor.end - tensor.start
            elements[tensor.dtype] += tensor.elements
    for tensor_name, name in _weight_map(files, INDEX_FILES[0]).items():
        if name in held and tensor_name not in held[name]:
            raise UserError(
                f"{files.source!r}: {name} lacks tensor {tensor_name!r}, which {INDEX_FILES[0]} says it holds: "
                "fetch the checkpoint again"
            )
    plain = {SAFETENSORS_DTYPES[kind]: count for kind, count in elements.items() if kind in SAFETENSORS_DTYPES}
    return Weights(
        bytes=total,
        parameters=sum(elements.values()) if readable else None,
        dtype=max(plain, key=lambda kind: plain[kind]) if plain else None,
    )


def read_identity(files: Files, config: Mapping[str, Any]) -> str:
    """Digest of config, tokenizer, templates and weights: 64 hex digits, the same wherever a local copy lies."""
    parts = {
        "config.json": {key: value for key, value in config.items() if key not in VOLATILE_CONFIG},
        **{name: _content_id(files, name) for name in TEXT_FILES if name in files.names},
        **{name: _content_id(files, name) for name in weight_files(files)},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _content_id(files: Files, name: str) -> str:
    """Return a string that changes when the file's content does.

    In a directory that is the digest of the whole file; of a safetensors file, its header and a piece of every tensor. Reading
    140 GB to plan a campaign would take minutes. Checkpoints of one training run differ in every tensor; an edit of a few rows
    of one tensor can go unseen.
    """
    if name in files.ids:
        return f"{files.names[name]}:{files.ids[name]}"
    with files.filesystem.open(f"{files.root}/{name}", "rb") as file:
        if not name.endswith(".safetensors"):
            return hashlib.file_digest(file, "sha256").hexdigest()
        header = read_header(files, name)
        digest = hashlib.sha256(json.dumps(header.values, sort_keys=True).encode())
        for tensor in sorted(header.tensors.values(), key=lambda t: (t.start, t.end)):
            size = tensor.end - tensor.start
            file.seek(header.data_start + tensor.start + max(0, (size - TENSOR_SAMPLE_BYTES) // 2))
            digest.update(file.read(min(size, TENSOR_SAMPLE_BYTES)))
    return digest.hexdigest()
