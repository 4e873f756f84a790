"""The choice of weight files, as vLLM makes it. Pure; `tests/core/model/test_weight_choice.py` has vLLM itself choose beside it.

Restates ``DefaultModelLoader._prepare_weights``, ``filter_duplicate_safetensors_files`` and
``filter_files_not_needed_for_inference`` of vLLM 0.32, which takes ten seconds to import and knows directories only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

SAFETENSORS_INDEX = "model.safetensors.index.json"
MISTRAL_WEIGHTS = "consolidated*.safetensors"
WEIGHT_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
LEFT_BY_TRAINERS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")


@dataclass(frozen=True)
class LoadFormat:
    """One of vLLM's ways to read weights: all files of the first of ``patterns`` that has any, cut to what ``index`` names.

    With ``in_ranks``, each file holds one rank's part of the tensors.
    """

    patterns: tuple[str, ...]
    index: str = ""
    in_ranks: bool = False


_SAFETENSORS = LoadFormat(("*.safetensors",), SAFETENSORS_INDEX)
_RANKS = LoadFormat(("model-*-part-*.safetensors",), in_ranks=True)
LOAD_FORMATS: Mapping[str, LoadFormat] = {
    "hf": LoadFormat(("*.safetensors", "*.bin", "*.pt"), SAFETENSORS_INDEX),
    "safetensors": _SAFETENSORS,
    "fastsafetensors": _SAFETENSORS,
    "instanttensor": _SAFETENSORS,
    "mistral": LoadFormat((MISTRAL_WEIGHTS,), "consolidated.safetensors.index.json"),
    "pt": LoadFormat(("*.pt",)),
    "npcache": LoadFormat(("*.bin", "*.pt")),
    "runai_streamer": LoadFormat(("*.safetensors",)),
    "runai_streamer_sharded": _RANKS,
    "sharded_state": _RANKS,
}
# Of these, where the weights come from is no matter of the checkpoint's files.
UNKNOWABLE = frozenset({"dummy", "ipc_cache", "modelexpress", "tensorizer"})


@dataclass(frozen=True)
class Choice:
    """Files that vLLM reads weights from, sorted by name, and those that ``index`` ("" for none) names and that are missing."""

    format: str
    files: tuple[str, ...]
    index: str
    missing: tuple[str, ...]


def choose(
    names: Collection[str],
    load_format: str,
    below: Iterable[str],
    indexed: Callable[[str], Collection[str] | None],
) -> Choice:
    """Choose among the ``names`` of files beside the config. Pure.

    ``load_format`` is vLLM's, "auto" or of `LOAD_FORMATS`; ``below`` are paths in folders under the checkpoint, which are read for
    "auto" alone; ``indexed`` returns the files that an index names, None where there is no such index.
    """
    chosen = resolved(load_format, names, below)
    reads = LOAD_FORMATS[chosen]
    files = next(filter(None, (matching(names, pattern) for pattern in reads.patterns)), [])
    if not all(name.endswith(".safetensors") for name in files):
        return Choice(chosen, tuple(name for name in files if not name.endswith(LEFT_BY_TRAINERS)), "", ())
    named = indexed(reads.index) if files and reads.index else None
    if named is None:
        return Choice(chosen, tuple(files), "", ())
    kept = tuple(name for name in files if name in named)
    return Choice(chosen, kept, reads.index, tuple(sorted(set(named) - set(files))))


def resolved(load_format: str, names: Iterable[str], below: Iterable[str]) -> str:
    """Return the format that "auto" is: Mistral's where its weights are, be it in a folder below; vLLM looks there, too."""
    if load_format != "auto":
        return load_format
    return "mistral" if any(map(is_mistral_weight, names)) or any(map(is_mistral_weight, below)) else "hf"


def is_mistral_weight(path: str) -> bool:
    """Whether a file has the name of weights in Mistral's own format."""
    return fnmatchcase(path.rpartition("/")[2], MISTRAL_WEIGHTS)


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """Return the names that a shell's pattern matches, sorted; hidden files never."""
    return sorted(name for name in names if fnmatchcase(name, pattern) and not name.startswith("."))


def asked_format(arguments: Mapping[str, Any]) -> str:
    """Return the load format among a model's further engine arguments, written as vLLM does."""
    return str(arguments.get("load_format", "auto")).lower()
