"""The files that we say vLLM loads are those that it loads: vLLM itself chooses in the same folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from core.errors import UserError
from core.model.files import open_files
from core.model.weight_choice import LOAD_FORMATS, UNKNOWABLE
from core.model.weight_files import weight_files

INDEX = "model.safetensors.index.json"
MISTRAL_INDEX = "consolidated.safetensors.index.json"
PARTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
BINS = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")


def index(*names: str) -> str:
    return json.dumps({"weight_map": {f"t{number}": name for number, name in enumerate(names)}})


# Names of files, or names → content, and what vLLM loads of them; None where it refuses, and so do we.
FOLDERS: dict[str, tuple[dict[str, str], list[str] | None]] = {
    "one file": ({"model.safetensors": ""}, ["model.safetensors"]),
    "shards": ({PARTS[0]: "", PARTS[1]: "", INDEX: index(*PARTS)}, [*PARTS]),
    "shards without an index": ({PARTS[0]: "", PARTS[1]: ""}, [*PARTS]),
    "any name": ({"weights.safetensors": ""}, ["weights.safetensors"]),
    "Mistral's beside one file": (
        {"model.safetensors": "", "consolidated.safetensors": ""},
        ["consolidated.safetensors"],
    ),
    "Mistral's beside shards": (
        {PARTS[0]: "", PARTS[1]: "", INDEX: index(*PARTS), "consolidated.safetensors": ""},
        ["consolidated.safetensors"],
    ),
    "Mistral's alone": ({"consolidated.safetensors": "", "params.json": "{}"}, ["consolidated.safetensors"]),
    "Mistral's in shards": (
        {
            "consolidated-00001-of-00002.safetensors": "",
            "consolidated-00002-of-00002.safetensors": "",
            "consolidated-ema.safetensors": "",
            MISTRAL_INDEX: index("consolidated-00001-of-00002.safetensors", "consolidated-00002-of-00002.safetensors"),
        },
        ["consolidated-00001-of-00002.safetensors", "consolidated-00002-of-00002.safetensors"],
    ),
    "Mistral's, and the other's index of what is missing": (
        {"consolidated.safetensors": "", INDEX: index(*PARTS)},
        ["consolidated.safetensors"],
    ),
    "Mistral's in a folder below": ({"model.safetensors": "", "original/consolidated.safetensors": ""}, None),
    "Mistral's in both places": (
        {"model.safetensors": "", "consolidated.safetensors": "", "original/consolidated.safetensors": ""},
        ["consolidated.safetensors"],
    ),
    "Meta's in a folder below": ({"model.safetensors": "", "original/consolidated.00.pth": ""}, ["model.safetensors"]),
    "an average without an index": (
        {"model.safetensors": "", "pytorch_ema.safetensors": ""},
        ["model.safetensors", "pytorch_ema.safetensors"],
    ),
    "an average that the index leaves out": (
        {PARTS[0]: "", PARTS[1]: "", INDEX: index(*PARTS), "pytorch_ema.safetensors": ""},
        [*PARTS],
    ),
    "an index that names one of two": (
        {"model.safetensors": "", "other.safetensors": "", INDEX: index("other.safetensors")},
        ["other.safetensors"],
    ),
    "two indexes": (
        {PARTS[0]: "", PARTS[1]: "", INDEX: index(*PARTS), "model.fp32.safetensors.index.json": index("a.safetensors")},
        [*PARTS],
    ),
    "indexes of both kinds": (
        {PARTS[0]: "", PARTS[1]: "", INDEX: index(*PARTS), "pytorch_model.bin.index.json": index(*BINS)},
        [*PARTS],
    ),
    "an index left behind": ({"model.safetensors": "", INDEX: index(*PARTS)}, None),
    "a missing shard": ({PARTS[0]: "", INDEX: index(*PARTS)}, None),
    "a shard in a folder": ({"sub/a.safetensors": "", "b.safetensors": "", INDEX: index("sub/a.safetensors")}, None),
    "an index that names nothing": ({"model.safetensors": "", INDEX: index()}, None),
    "an index without a map": ({"model.safetensors": "", INDEX: "{}"}, None),
    "an index that is no JSON": ({"model.safetensors": "", INDEX: "{"}, None),
    "an index of *.bin left behind": (
        {"model.safetensors": "", "pytorch_model.bin.index.json": index(*BINS)},
        ["model.safetensors"],
    ),
    "*.bin beside": ({"model.safetensors": "", "pytorch_model.bin": ""}, ["model.safetensors"]),
    "*.bin": ({"pytorch_model.bin": ""}, ["pytorch_model.bin"]),
    "*.bin in shards": ({BINS[0]: "", BINS[1]: "", "pytorch_model.bin.index.json": index(*BINS)}, [*BINS]),
    "*.bin of any name": ({"pytorch_model.bin": "", "ema.bin": ""}, ["ema.bin", "pytorch_model.bin"]),
    "*.bin, and an index of what is not here": ({"pytorch_model.bin": "", INDEX: index(*PARTS)}, ["pytorch_model.bin"]),
    "what a trainer leaves": (
        {"pytorch_model.bin": "", "training_args.bin": "", "optimizer.bin": "", "optimizer.pt": "", "scheduler.pt": ""},
        ["pytorch_model.bin"],
    ),
    "a trainer's files alone": ({"training_args.bin": "", "model.pt": ""}, None),
    "*.pt": ({"model.pt": "", "optimizer.pt": "", "scheduler.pt": "", "scaler.pt": ""}, ["model.pt"]),
    "*.pt beside": ({"model.safetensors": "", "model.pt": "", "rng_state.pth": ""}, ["model.safetensors"]),
    "GGUF": ({"model-Q8_0.gguf": ""}, None),
    "GGUF beside": ({"model.safetensors": "", "model-Q8_0.gguf": ""}, ["model.safetensors"]),
    "hidden files": ({"model.safetensors": "", "._model.safetensors": ""}, ["model.safetensors"]),
    "capitals": ({"model.safetensors": "", "OTHER.SAFETENSORS": ""}, ["model.safetensors"]),
    "weights in a folder": ({"fp16/model.safetensors": ""}, None),
    "a checkpoint below": ({"model.safetensors": "", "checkpoint-500/model.safetensors": ""}, ["model.safetensors"]),
    "nothing": ({}, None),
}
FORMATS = ("auto", *(name for name, reads in LOAD_FORMATS.items() if not reads.in_ranks))


def lay(folder: Path, contents: dict[str, str]) -> Path:
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    return folder


def ours(folder: Path, load_format: str = "auto") -> list[str] | None:
    try:
        return list(weight_files(open_files(str(folder), None), {"load_format": load_format}).files)
    except UserError:
        return None


@pytest.mark.parametrize("name", FOLDERS)
def test_files_are_chosen(name: str, tmp_path: Path) -> None:
    contents, chosen = FOLDERS[name]
    assert ours(lay(tmp_path / "m", contents)) == chosen


def vllm_s(folder: Path, load_format: str) -> list[str] | None:
    from vllm.config.load import LoadConfig
    from vllm.model_executor.model_loader import get_model_loader

    loader: Any = get_model_loader(LoadConfig(load_format=load_format))
    try:
        if load_format == "runai_streamer":
            found = loader._prepare_weights(str(folder), None)
        else:
            found = loader._prepare_weights(str(folder), None, None, True, None)[1]
    except (RuntimeError, FileNotFoundError, KeyError, ValueError):
        return None
    return sorted(Path(each).name for each in found)


@pytest.mark.vllm
def test_vllm_chooses_the_same_files_in_every_format(tmp_path: Path) -> None:
    found = {}
    for number, (name, (contents, _)) in enumerate(FOLDERS.items()):
        folder = lay(tmp_path / str(number), contents)
        for load_format in FORMATS:
            found[name, load_format] = (ours(folder, load_format), vllm_s(folder, load_format))
    differ = {key for key, (we, vllm) in found.items() if we != vllm}
    assert differ == {("a missing shard", "runai_streamer")}, "which vLLM loads, and finds lacking with a GPU held"


@pytest.mark.vllm
def test_every_format_of_vllm_is_read_or_refused() -> None:
    from vllm.model_executor.model_loader import LoadFormats

    assert {*LOAD_FORMATS, *UNKNOWABLE, "auto"} == set(get_args(LoadFormats))


@pytest.mark.vllm
def test_shards_of_ranks_have_vllm_s_names() -> None:
    from vllm.model_executor.model_loader.sharded_state_loader import ShardedStateLoader

    from core.model.weight_choice import matching

    patterns = (ShardedStateLoader.TP_ONLY_PATTERN, ShardedStateLoader.PP_AND_TP_PATTERN)
    names = [pattern.format(rank=1, pp_rank=1, tp_rank=0, part=0) for pattern in patterns]
    (pattern,) = LOAD_FORMATS["sharded_state"].patterns
    assert matching([*names, "model.safetensors"], pattern) == sorted(names)
