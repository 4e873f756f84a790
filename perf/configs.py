"""What we read from checkpoints' configs against what vLLM's own ``ModelConfig`` says of them: ``python -m perf.configs``.

For every architecture that the installed vLLM registers and transformers can default-construct, and for real configurations
(`tests.core.real_configs`, and ``--folders`` that hold a config.json each), a checkpoint's folder is written and read by
`core.model.checkpoint.read_checkpoint`, as a plan does. Beside that, in this process, vLLM makes a ``ModelConfig`` of the same
folder; where the platform here will not have it (a quantisation that CPUs lack, a package that is missing), its converter is asked
alone, and the row says so. A window is equal where vLLM takes it and refuses one token more. What a sequence keeps in the KV cache
is compared with what vLLM's layers say (`perf.config_caches`), where the model can be made here. A difference that is known is
listed with its reason (`EXPLAINED`); exits with 1 where another is found.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from safetensors.numpy import save_file

from core.errors import UserError
from core.model.checkpoint import Checkpoint, read_checkpoint
from core.tables import Row, Table, numbers, texts
from perf import config_caches
from perf.default_configs import defaults
from perf.measure import say
from tests.core.real_configs import REAL

# Differences that stay, by architecture and value.
EXPLAINED = {
    ("Cohere2ForCausalLM", "sliding window"): "its class keeps one token more than the config's window",
    ("Cohere2MoeForCausalLM", "sliding window"): "its class keeps one token more than the config's window",
    ("HYV4ForCausalLM", "KV bytes"): "some of its layers share an indexer; one in each is counted",
}
FIELDS = ("layers", "hidden size", "heads", "KV heads", "head size", "experts", "MLA", "takes images")


@dataclass
class Reading:
    """One config: our values and vLLM's by name, how vLLM's were had, or why there are none."""

    name: str
    ours: dict[str, Any] = field(default_factory=dict)
    theirs: dict[str, Any] = field(default_factory=dict)
    by: str = ""
    fault: str = ""
    cache_fault: str = ""  # why vLLM's layers could not be asked

    @property
    def differing(self) -> list[str]:
        """Names of the values that differ."""
        return [name for name, value in self.theirs.items() if self.ours.get(name) != value]

    @property
    def unexplained(self) -> list[str]:
        """Names of the values that differ for no known reason."""
        return [name for name in self.differing if (self.name, name) not in EXPLAINED]

    @property
    def degenerate(self) -> bool:
        """Whether we refuse what vLLM takes for a model without layers, heads or size."""
        return bool(self.fault) and any(self.theirs.get(name) == 0 for name in ("layers", "hidden size", "heads"))

    def text(self, name: str) -> str:
        """Our value, and vLLM's where it is another."""
        ours = self.ours.get(name)
        theirs = self.theirs.get(name, ours)
        shown = f"{ours:,}" if isinstance(ours, int) and not isinstance(ours, bool) else str(ours)
        return shown if ours == theirs else f"{shown} ≠ {theirs}"


def write_folder(folder: Path, config: Mapping[str, Any]) -> Path:
    """Write a checkpoint whose weights are two numbers."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"w": np.zeros(2, np.float16)}, folder / "model.safetensors")
    return folder


def ours(folder: Path) -> Checkpoint:
    """Read a folder as a plan does."""
    return read_checkpoint(str(folder))


def our_values(found: Checkpoint) -> dict[str, Any]:
    """Return the values that are compared."""
    values = (
        *(found.layers, found.hidden_size, found.attention_heads, found.kv_heads, found.head_dim, found.experts),
        *(found.kv_replicated, found.multimodal),
    )
    cached = (found.kv_bytes_per_token, found.kv_sliding_bytes_per_token, found.kv_sliding_window, found.state_bytes)
    return dict(zip((*FIELDS, *config_caches.FIELDS), (*values, *cached), strict=True))


def their_values(folder: Path, window: int) -> tuple[dict[str, Any], str]:
    """Return vLLM's values and how they were had. Raises what vLLM does where it cannot read the config either."""
    try:
        config = model_config(folder)
        by = "ModelConfig"
        takes = {asked: _makes(folder, asked) for asked in (window, window + 1)}
    except Exception as error:  # of vLLM's platform, of a package that is not here
        config, by = converted(folder), f"converter ({type(error).__name__})"
        takes = {asked: _verifies(config, asked) for asked in (window, window + 1)}
    arch = config.model_arch_config
    values = (
        *(arch.total_num_hidden_layers, arch.hidden_size, arch.total_num_attention_heads or 0),
        *(arch.total_num_kv_heads or 0, arch.head_size, arch.num_experts or 0, arch.is_deepseek_mla),
    )
    found = dict(zip(FIELDS, values, strict=False))
    if by == "ModelConfig":
        found["takes images"] = config._model_info.supports_multimodal
    return {"window": _window(window, takes, config), **found}, by


def _window(window: int, takes: Mapping[int, bool], config: Any) -> Any:
    """Return ``window`` where it is the largest that vLLM takes, or its default where it takes any."""
    if takes[window] and not takes[window + 1]:
        return window
    if takes[window + 1] and config.model_arch_config.derived_max_model_len_and_key[1] is None:
        return config.max_model_len
    return "larger" if takes[window + 1] else "smaller"


def model_config(folder: Path, window: int | None = None) -> Any:
    """Return vLLM's whole ``ModelConfig``, with this machine's platform."""
    from vllm.config import ModelConfig

    return ModelConfig(model=str(folder), tokenizer=str(folder), skip_tokenizer_init=True, max_model_len=window)


def _makes(folder: Path, window: int) -> bool:
    try:
        return bool(model_config(folder, window))
    except ValueError as error:
        if "User-specified max_model_len" in str(error):
            return False
        raise


def converted(folder: Path) -> Any:
    """Return what the converter alone makes of a config, with the window that follows."""
    from types import SimpleNamespace

    from vllm.config.model import _get_and_verify_max_len
    from vllm.transformers_utils.config import get_config, get_hf_text_config
    from vllm.transformers_utils.model_arch_config_convertor import (
        MODEL_ARCH_CONFIG_CONVERTORS,
        ModelArchConfigConvertorBase,
    )

    whole = get_config(str(folder), trust_remote_code=False)
    text = get_hf_text_config(whole)
    arch = MODEL_ARCH_CONFIG_CONVERTORS.get(whole.model_type, ModelArchConfigConvertorBase)(whole, text).convert()
    sliding = getattr(text, "sliding_window", None)
    usual = _get_and_verify_max_len(text, arch, None, None, False, sliding)
    return SimpleNamespace(model_arch_config=arch, text=text, max_model_len=usual)


def _verifies(config: Any, window: int) -> bool:
    from vllm.config.model import _get_and_verify_max_len

    try:
        sliding = getattr(config.text, "sliding_window", None)
        return bool(_get_and_verify_max_len(config.text, config.model_arch_config, None, window, False, sliding))
    except ValueError:
        return False


def read(name: str, folder: Path) -> Reading:
    """Read one folder in both ways."""
    found = Reading(name)
    try:
        checkpoint = ours(folder)
        found.ours = {"window": checkpoint.context_window, **our_values(checkpoint)}
    except UserError as error:
        found.fault = str(error).replace(repr(str(folder)), "…")
    window = found.ours.get("window", 1)
    try:
        found.theirs, found.by = their_values(folder, window)
    except Exception as error:  # vLLM refuses it too, in its words
        found.by = f"vLLM refuses it too ({type(error).__name__})"
        return found
    try:
        found.theirs |= config_caches.kept(folder)
    except Exception as error:  # the model cannot be made on this machine
        found.cache_fault = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return found


def inspect_here() -> None:
    """Have vLLM look at its model classes in this process: it starts one for each, which takes ten seconds."""
    from vllm.model_executor.models import registry

    def inspect(self: Any) -> Any:
        return registry._ModelInfo.from_model_cls(self.load_model_cls())

    registry._LazyRegisteredModel.inspect_model_cls = inspect


def readings(configs: Mapping[str, Mapping[str, Any]]) -> Iterator[Reading]:
    """Read each config, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="steelyard-configs-") as root:
        config_caches.initialize(write_folder(Path(root, "experts"), REAL["jamba"].config))
        for index, (name, config) in enumerate(configs.items()):
            yield read(name, write_folder(Path(root, str(index)), config))


def table(found: list[Reading]) -> Table:
    """Return a row for each config that was read: our value, and vLLM's where it is another."""
    names = ("window", *FIELDS[:-1], *config_caches.FIELDS)
    rows = [
        Row((each.name, *(each.text(name) for name in names), each.by, "no" if each.cache_fault else "yes"))
        for each in found
    ]
    columns = (*texts("config"), *numbers(*names), *texts("vLLM by", "layers asked"))
    return Table("Configs as we read them (≠ what vLLM reads)", columns, rows)


def compare(configs: Mapping[str, Mapping[str, Any]]) -> list[Reading]:
    """Read each config in both ways, and say what differs as it is found."""
    inspect_here()
    found = []
    for each in readings(configs):
        found.append(each)
        if each.differing or not each.ours:
            known = {name: EXPLAINED.get((each.name, name), "") for name in each.differing if each.ours}
            say(
                f"{each.name}: {each.fault or [f'{name}: {each.text(name)} {why}' for name, why in known.items()]} [{each.by}]"
            )
    return found


def wrong(found: Iterable[Reading]) -> list[Reading]:
    """Return those that vLLM reads otherwise than we do, or only one of us reads."""
    return [
        each
        for each in found
        if (each.ours and (each.unexplained or not each.theirs)) or (each.fault and each.theirs and not each.degenerate)
    ]


def main() -> int:
    """Compare, print, and return 1 where something differs."""
    parser = argparse.ArgumentParser(prog="python -m perf.configs", description=__doc__)
    parser.add_argument(
        "--folders", nargs="*", type=Path, default=[], help="that hold a config.json each, at any depth"
    )
    parser.add_argument("--only", nargs="*", help="architectures")
    asked = parser.parse_args()
    begun = time.monotonic()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    configs, faults = defaults()
    given = {
        str(path.parent): json.loads(path.read_text()) for root in asked.folders for path in root.rglob("config.json")
    }
    every = {**configs, **{name: entry.config for name, entry in REAL.items()}, **given}
    found = compare({name: every[name] for name in asked.only or every if name in every})
    out = Console(width=240)
    both = [each for each in found if each.theirs and each.ours]
    out.print(table(both))
    for name, fault in faults.items():
        out.print(f"{name}: not read: {fault}", markup=False, soft_wrap=True)
    for each in found:
        if each.fault:
            out.print(f"{each.name}: {each.fault} [{each.by}]", markup=False, soft_wrap=True)
    for (name, value), why in EXPLAINED.items():
        out.print(f"{name}: {value}: {why}", markup=False, soft_wrap=True)
    ways = ", ".join(f"{count} by {way}" for way, count in Counter(each.by.split(" (")[0] for each in both).items())
    equal = sum(not each.differing for each in both)
    caches = sum(not each.cache_fault for each in both)
    differ = wrong(found)
    out.print(
        f"{len(both)} read ({ways}), {equal} of them equal in all; {caches} compared with vLLM's layers; {len(faults)} have no "
        f"default; {len(differ)} differ for no known reason; {time.monotonic() - begun:.0f} s"
    )
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
