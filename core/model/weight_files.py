"""The weight files of a checkpoint: those that vLLM loads, checked to be whole, and what they come to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import UserError, nearest
from core.model.files import Files
from core.model.headers import Header, check_archive, check_fetched, read_header
from core.model.holding import held, parameters_in, stored_dtype, without_copy
from core.model.weight_choice import (
    LOAD_FORMATS,
    UNKNOWABLE,
    Choice,
    asked_format,
    choose,
    is_mistral_weight,
    resolved,
)

SHARD = re.compile(r"(?P<stem>.+)-\d+-of-(?P<count>\d+)(?P<ending>\.safetensors|\.bin|\.pt)")
BIN_INDEX = "pytorch_model.bin.index.json"  # vLLM does not read it; it tells a missing file
PIECE_BYTES = 4096
NO_ARGUMENTS: Mapping[str, Any] = {}
# By their files' endings, weights in formats that vLLM does not load.
FOREIGN = {
    ".gguf": "GGUF",
    ".h5": "TensorFlow's format",
    ".msgpack": "Flax's format",
    ".npz": "MLX's format",
    ".onnx": "ONNX",
    ".pth": "Meta's format (.pth)",
    ".ckpt": "a trainer's format (.ckpt)",
}

Place = tuple[str, str]  # a file, and a tensor in it


@dataclass(frozen=True)
class Weights:
    """The weights as vLLM holds them once loaded, by their files' headers: those of ``files`` that it does not drop.

    ``parameters`` is None for files without readable headers and for packings that are not known here.
    """

    bytes: int
    parameters: int | None
    dtype: str | None
    files: tuple[str, ...] = ()


def weight_files(files: Files, arguments: Mapping[str, Any] = NO_ARGUMENTS) -> Choice:
    """Choose the files that vLLM loads under the engine arguments ``arguments``.

    Raises `core.errors.UserError` where there are none, where one is missing, and where it cannot be known which they are.
    """
    load_format = asked_format(arguments)
    _check_format(load_format)
    _check_below(files, load_format)
    choice = choose(files.names, load_format, (), lambda name: _named_in(files, name))
    _check_index(files, choice)
    if not choice.files:
        raise UserError(f"{files.source!r} has no weights {_looked_for(choice.format)}{_instead(files, choice)}")
    _check_adapters(files, choice.files)
    if not choice.index:
        _check_count(files, choice.files)
    return choice


def _check_format(load_format: str) -> None:
    if load_format != "auto" and load_format not in LOAD_FORMATS:
        why = (
            "the weights would not be those of the checkpoint's files"
            if load_format in UNKNOWABLE
            else f"it cannot be known which files it loads{nearest(load_format, LOAD_FORMATS)}"
        )
        raise UserError(
            f"vllm.load_format = {load_format!r}: {why}, which tell its results apart: leave it out, or use one of "
            f"{', '.join(LOAD_FORMATS)}"
        )


def _check_below(files: Files, load_format: str) -> None:
    """Refuse what vLLM cannot load: Mistral's weights in a folder have it look for others beside the config, in vain."""
    if load_format != "auto" or any(map(is_mistral_weight, files.names)):
        return
    if resolved(load_format, (), below := files.below()) == "mistral":
        found = next(filter(is_mistral_weight, below))
        raise UserError(
            f"{files.source!r}: {found} has vLLM look for Mistral's format, which is not here: set vllm: "
            "{load_format: hf}, or move that file elsewhere"
        )


def _named_in(files: Files, index: str) -> frozenset[str] | None:
    return frozenset(_weight_map(files, index).values()) if index in files.names else None


def _weight_map(files: Files, index_name: str) -> dict[str, str]:
    """Return tensor → file of an index, empty where there is no such file."""
    index = files.json(index_name)
    if index is None:
        return {}
    found = index.get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise UserError(
            f"{files.source!r}: the weight_map of {index_name} does not map tensors to files: fetch it again"
        )
    return found


def _check_index(files: Files, choice: Choice) -> None:
    if not choice.index:
        return
    count = len(choice.missing) + len(choice.files)
    if choice.missing and not choice.files:
        others = _others(files, choice)
        raise UserError(
            f"{files.source!r}: {choice.index} names {choice.missing[0]!r}, and none of its {_shards(count)} is here: delete "
            f"{choice.index} if {others[0]} is the whole checkpoint, or else fetch it again"
        )
    _check_missing(files, choice.missing, count, f"named in {choice.index}")
    if not choice.files:
        raise UserError(
            f"{files.source!r}: {choice.index} names no file, and vLLM goes by it: delete it, or fetch it again"
        )


def _others(files: Files, choice: Choice) -> tuple[str, ...]:
    return choose(files.names, choice.format, (), lambda _: None).files


def _shards(count: int) -> str:
    return f"{count} file{'s' if count > 1 else ''}"


def _check_missing(files: Files, missing: Iterable[str], count: int, why: str) -> None:
    if lacking := list(missing):
        raise UserError(
            f"{files.source!r} lacks {lacking[0]!r}, {why} "
            f"({len(lacking)} of {count} shards missing): fetch the checkpoint again"
        )


def _check_count(files: Files, chosen: Iterable[str]) -> None:
    """Refuse a checkpoint without a shard that its other shards' names count, or that the index of *.bin files names."""
    for parts in filter(None, map(SHARD.fullmatch, chosen)):
        stem, count, ending = parts["stem"], parts["count"], parts["ending"]
        every = [f"{stem}-{number:0{len(count)}}-of-{count}{ending}" for number in range(1, int(count) + 1)]
        missing = [name for name in every if name not in files.names]
        _check_missing(files, missing, int(count), f"one of the {int(count)} that the names of the others count")
    if any(name.endswith(".bin") for name in chosen):
        named = set(_weight_map(files, BIN_INDEX).values())
        missing = sorted(named - set(files.names))
        if named & set(files.names):  # else it was left behind by other files
            _check_missing(files, missing, len(named), f"named in {BIN_INDEX}")


def _check_adapters(files: Files, chosen: Iterable[str]) -> None:
    if adapters := [name for name in chosen if name.startswith("adapter_model")]:
        raise UserError(
            f"{files.source!r}: vLLM would load {adapters[0]} with the other weights, and an adapter is none: "
            "move it elsewhere, or merge it into them"
        )


def _looked_for(load_format: str) -> str:
    patterns = LOAD_FORMATS[load_format].patterns
    return f"({' or '.join([', '.join(patterns[:-1]), patterns[-1]] if patterns[1:] else patterns)})"


def _instead(files: Files, choice: Choice) -> str:
    """Return what to do about it, by what lies there instead."""
    foreign = {known for name in files.names for ending, known in FOREIGN.items() if name.endswith(ending)}
    if foreign:
        return f", only {', '.join(sorted(foreign))}: convert it to safetensors first"
    if "zero_to_fp32.py" in files.names:
        return ": they are in DeepSpeed's parts; run its zero_to_fp32.py first"
    if choice.format != "hf" and _others(files, Choice("hf", (), "", ())):
        return f", for which vllm.load_format = {choice.format!r} looks: leave that out"
    return ": fetch the checkpoint again"


def read_weights(
    files: Files, config: Mapping[str, Any] = NO_ARGUMENTS, arguments: Mapping[str, Any] = NO_ARGUMENTS
) -> Weights:
    """Add up what vLLM holds of the weight files of a model with ``config``, under the engine's ``arguments``.

    Raises `core.errors.UserError` for a file that is no whole safetensors file or lacks a tensor, and for two of one tensor.
    """
    choice = weight_files(files, arguments)
    _check_elsewhere(files, config)
    if not choice.files[0].endswith(".safetensors"):
        for name in choice.files:
            check_fetched(files, name)
            check_archive(files, name)
        return Weights(sum(files.names[name] for name in choice.files), None, None, choice.files)
    headers = {name: read_header(files, name) for name in choice.files}
    _check_tensors(files, choice, headers)
    tensors = {(name, key): tensor for name, header in headers.items() for key, tensor in header.tensors.items()}
    if not LOAD_FORMATS[choice.format].in_ranks:
        kept = {key: tensor for key, tensor in tensors.items() if held(key[1], config, arguments)}
        tensors = without_copy(kept, lambda key: key[1], _same(files, headers), config)
    named = [(key, tensor) for (_, key), tensor in tensors.items()]
    return Weights(
        bytes=sum(tensor.bytes for tensor in tensors.values()),
        parameters=parameters_in(named, config),
        dtype=stored_dtype(named, config),
        files=choice.files,
    )


def _check_elsewhere(files: Files, config: Mapping[str, Any]) -> None:
    """Refuse a model whose language model vLLM would take from another repository, as Ultravox's is."""
    if other := config.get("text_model_id"):
        raise UserError(
            f"{files.source!r}: config.json has vLLM load weights of {other!r} besides (text_model_id), which may change without a "
            "trace in the results: merge the two into one checkpoint"
        )


def _same(files: Files, headers: Mapping[str, Header]) -> Callable[[Place, Place], bool]:
    """Return the comparison of two tensors by pieces of their bytes: it decides sizes only, and they may take gigabytes."""

    def pieces(place: Place) -> list[bytes]:
        name, key = place
        tensor = headers[name].tensors[key]
        starts = (max(0, (tensor.bytes - PIECE_BYTES) * part // 7) for part in range(8))
        length = min(PIECE_BYTES, tensor.bytes)
        return [files.read(name, headers[name].data_start + tensor.start + start, length) for start in starts]

    return lambda one, other: pieces(one) == pieces(other)


def _check_tensors(files: Files, choice: Choice, headers: Mapping[str, Header]) -> None:
    for key, name in (_weight_map(files, choice.index) if choice.index else {}).items():
        if key not in headers[name].tensors:
            raise UserError(
                f"{files.source!r}: {name} lacks tensor {key!r}, which {choice.index} says it holds: "
                "fetch the checkpoint again"
            )
    if choice.index or LOAD_FORMATS[choice.format].in_ranks:
        return
    first: dict[str, str] = {}
    for name, header in headers.items():
        for key in header.tensors:
            if key in first:
                raise UserError(
                    f"{files.source!r}: {first[key]} and {name} both hold tensor {key!r}, and vLLM loads both, one over the "
                    "other: move one of the two elsewhere"
                )
            first[key] = name
