"""What a folder without a checkpoint of its own is, and which to name instead."""

from __future__ import annotations

import re

from core.errors import UserError
from core.model.files import Files
from core.model.weight_choice import choose

CONFIG_FILES = ("config.json", "params.json")  # Hugging Face's, and Mistral's
ADAPTER_CONFIG = "adapter_config.json"


def check_folder(files: Files) -> None:
    """Raise `core.errors.UserError` for an adapter without its base, and for a folder whose folders hold the checkpoints."""
    others = [name for name in files.names if not name.startswith("adapter_")]
    if len(others) < len(files.names) and not choose(others, "hf", (), lambda _: None).files:
        base = (files.json(ADAPTER_CONFIG) or {}).get("base_model_name_or_path")
        raise UserError(
            f"{files.source!r} is an adapter of {repr(base) if base else 'another model'}: merge it into its base first "
            "(peft: merge_and_unload), and name the folder with both"
        )
    if files.names.keys().isdisjoint(CONFIG_FILES) and (folders := _checkpoints_below(files)):
        more = f" (or {', '.join(folders[1:4])}{', …' if len(folders) > 4 else ''})" if folders[1:] else ""
        raise UserError(
            f"{files.source!r} has no config.json, its folder {folders[0]} has: name {folders[0]} itself{more}"
        )


def _checkpoints_below(files: Files) -> list[str]:
    """Return folders with a config, at most two levels down, the one with the highest number first."""
    parted = (path.rpartition("/") for path in files.below(levels=2))
    found = {folder for folder, _, name in parted if name in (*CONFIG_FILES, ADAPTER_CONFIG)}
    return sorted(found, key=_numbers, reverse=True)


def _numbers(name: str) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", name)], name
