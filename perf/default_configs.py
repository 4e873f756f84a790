"""The config.json of every architecture that the installed vLLM registers, by the defaults of its class."""

from __future__ import annotations

import json
from typing import Any


def defaults() -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return architecture → config of its class's defaults, as ``save_pretrained`` writes it; and why others have none."""
    from vllm import ModelRegistry

    configs, faults = {}, {}
    kinds = kinds_of()
    for name in sorted(ModelRegistry.get_supported_archs()):
        kind = kinds.get(name) or kinds.get(_plain(name))
        if kind is None:
            faults[name] = "transformers and vLLM have no config class for it: it comes with its checkpoint's code"
            continue
        try:
            configs[name] = default_config(name, kind)
        except Exception as error:  # of any of two hundred classes
            faults[name] = (
                f"{kind} cannot be default-constructed ({type(error).__name__}: {' '.join(str(error).split())[:80]})"
            )
    return configs, faults


def kinds_of() -> dict[str, str]:
    """Return architecture → model_type, by transformers' tables of classes; and the plain name of each kind → the kind."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto import modeling_auto
    from vllm.transformers_utils.config import _CONFIG_REGISTRY

    found = {_plain(kind): kind for kind in (*_CONFIG_REGISTRY, *CONFIG_MAPPING)}
    for table in (value for name, value in vars(modeling_auto).items() if name.endswith("_MAPPING_NAMES")):
        for kind, names in table.items():
            found |= dict.fromkeys([names] if isinstance(names, str) else filter(None, names), kind)
    return found


def _plain(name: str) -> str:
    return name.split("For")[0].replace("_", "").replace("-", "").lower()


def default_config(name: str, kind: str) -> dict[str, Any]:
    """Return the config.json of the defaults of one kind."""
    from transformers import CONFIG_MAPPING
    from vllm.transformers_utils.config import _CONFIG_REGISTRY

    made = (_CONFIG_REGISTRY[kind] if kind in _CONFIG_REGISTRY else CONFIG_MAPPING[kind])()
    return {**json.loads(made.to_json_string()), "architectures": [name], "model_type": kind}
