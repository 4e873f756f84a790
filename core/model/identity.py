"""The identity of a checkpoint: a digest of everything in its files that changes outputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any

from core.model.files import Files, explained
from core.model.headers import read_header
from core.model.weight_choice import WEIGHT_ENDINGS, is_mistral_weight
from core.model.weight_files import NO_ARGUMENTS

TENSOR_SAMPLE_BYTES = 4096
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
# Read beside the config where there is one: how ModelOpt quantized the weights.
QUANTIZATION_FILE = "hf_quant_config.json"
# Vocabularies that are read where there is no tokenizer.json.
OTHER_VOCABULARIES = ("*.tiktoken", "sentencepiece.bpe.model", "spiece.model", "vocab.txt")
# Files of Mistral's own format, which vLLM goes by where weights of that format are; see its ``resolve_tokenizer_args``.
MISTRAL_FILES = ("params.json", "tekken.json", "tokenizer.model.v*")
# Notes about the file, not about the model.
VOLATILE_CONFIG = ("_name_or_path", "transformers_version")


def read_identity(
    files: Files,
    weights: tuple[str, ...],
    *,
    trust_remote_code: bool = False,
    arguments: Mapping[str, Any] = NO_ARGUMENTS,
) -> str:
    """Digest of config, tokenizer, templates and the ``weights`` files: 64 hex digits, the same wherever a local copy lies.

    The checkpoint's own code is part of it where it may run.
    """
    config = files.json("config.json") or {}
    parts = {
        "config.json": {key: value for key, value in config.items() if key not in VOLATILE_CONFIG},
        **{name: _content_id(files, name) for name in _texts(files, trust_remote_code, arguments)},
        **{name: _content_id(files, name) for name in weights},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def listing_of(files: Files, weights: Collection[str]) -> str:
    """Digest of sizes and a server's ids of all files but weights that are not loaded. Another says that something was written."""
    counted = {
        name: (size, files.ids.get(name))
        for name, size in files.names.items()
        if name in weights or not name.endswith(WEIGHT_ENDINGS)
    }
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


def _texts(files: Files, trust_remote_code: bool, arguments: Mapping[str, Any]) -> list[str]:
    asked = (arguments.get("tokenizer_mode"), arguments.get("config_format"))
    mistral = "mistral" in asked or any(map(is_mistral_weight, files.names))
    patterns = [
        *TEXT_FILES,
        QUANTIZATION_FILE,
        *(MISTRAL_FILES if mistral else ()),
        *(() if "tokenizer.json" in files.names else OTHER_VOCABULARIES),
        *(("*.py",) if trust_remote_code else ()),
    ]
    return [name for name in files.names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _content_id(files: Files, name: str) -> str:
    """Return a string that changes when the file's content does.

    In a directory that is the digest of the whole file; of a safetensors file, its header and a piece of every tensor. Reading
    140 GB to plan a campaign would take minutes. Checkpoints of one training run differ in every tensor; an edit of a few rows
    of one tensor can go unseen.
    """
    if name in files.ids:
        return f"{files.names[name]}:{files.ids[name]}"
    with explained(files.source), files.filesystem.open(f"{files.root}/{name}", "rb") as file:
        if not name.endswith(".safetensors"):
            return hashlib.file_digest(file, "sha256").hexdigest()
        header = read_header(files, name)
        digest = hashlib.sha256(json.dumps(header.values, sort_keys=True).encode())
        for tensor in sorted(header.tensors.values(), key=lambda t: (t.start, t.end)):
            file.seek(header.data_start + tensor.start + max(0, (tensor.bytes - TENSOR_SAMPLE_BYTES) // 2))
            digest.update(file.read(min(tensor.bytes, TENSOR_SAMPLE_BYTES)))
    return digest.hexdigest()
