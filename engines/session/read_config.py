"""What vLLM reads from checkpoints' configs, asked of vLLM's own code: ``python -m engines.session.read_config``.

A process of its own, since vLLM and torch take seconds to import, and since a checkpoint's code may run here and nowhere else.
Each line of its input is a JSON object: ``folder`` (a directory with config.json or params.json), ``arguments`` (of vLLM's engine)
and ``trust_remote_code``; each line of its output is ``{"facts": …}`` or ``{"fault": …}``. It ends with its input, whatever it is
at then, or when nothing was asked for ``IDLE_SECONDS``.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from engines.session.sequence_memory import cache_of, is_attention, layer_kinds

IDLE_SECONDS = 30.0
MOST_TOKENS = 1 << 40  # no config states as many


def main() -> None:
    """Answer until the input ends. Whatever vLLM prints goes to stderr."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    end_with_input()
    for line in requests(sys.stdin.fileno()):
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()


def end_with_input() -> None:
    """End this process as soon as nobody can ask any more, even while it imports."""
    hangup = select.poll()
    hangup.register(sys.stdin.fileno(), 0)  # what is always reported: the other end is gone

    def wait() -> None:
        hangup.poll()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def requests(source: int) -> Any:
    """Yield the lines of ``source`` until it ends or is quiet for `IDLE_SECONDS`."""
    held = b""
    while select.select([source], [], [], IDLE_SECONDS)[0]:
        if not (more := os.read(source, 1 << 16)):
            return
        *lines, held = (held + more).split(b"\n")
        yield from lines


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of one config, or the fault that vLLM finds in it, with the name of its class."""
    return _apart(request) if request["trust_remote_code"] else _answer(request)


def _apart(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer in a fork of this process: what a checkpoint's code does to vLLM or transformers concerns no other checkpoint."""
    import vllm.config  # noqa: F401 - once, before the fork

    source, sink = os.pipe()
    if (fork := os.fork()) == 0:
        try:
            end_with_input()
            with os.fdopen(sink, "w", encoding="utf-8") as file:
                file.write(json.dumps(_answer(request)))
        finally:
            os._exit(0)
    os.close(sink)
    with os.fdopen(source, "rb") as file:
        found = file.read()
    os.waitpid(fork, 0)
    return (
        dict(json.loads(found)) if found else {"fault": "the checkpoint's code ended the process", "kind": "EOFError"}
    )


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {"facts": read(request["folder"], request["arguments"], trusted=request["trust_remote_code"])}
    except Exception as error:  # of any library's config class, or of the checkpoint's own code
        return {"fault": " ".join(str(error).split()), "kind": type(error).__name__}


def read(folder: str, arguments: Mapping[str, Any], *, trusted: bool) -> dict[str, Any]:
    """Return the fields of `core.model.config_facts.ConfigFacts`, by the steps of vLLM's ``ModelConfig``."""
    config = model_config(folder, arguments, trusted=trusted)
    arch = config.model_arch_config
    window, any_window = windows(config, sliding=not arguments.get("disable_sliding_window"))
    if arguments.get("disable_sliding_window") or config.get_sliding_window() == 0:
        config.hf_text_config.sliding_window = None
    if (model := model_class(config)) is None:
        config._model_info.is_hybrid = not all(map(is_attention, layer_kinds(config, arch.total_num_hidden_layers)))
    else:
        from vllm.model_executor.models.registry import _ModelInfo

        config._model_info = _ModelInfo.from_model_cls(model)
    return {
        "architecture": (arch.architectures or ["unknown"])[0],
        "dtype": named_dtype(config.hf_config),
        "quantization": (arch.quantization_config or {}).get("quant_method") or None,
        "layers": arch.total_num_hidden_layers,
        "hidden_size": arch.hidden_size,
        "attention_heads": arch.total_num_attention_heads or 0,
        "kv_heads": arch.total_num_kv_heads or 0,
        "head_dim": arch.head_size,
        "experts": arch.num_experts or 0,
        "mla": config.use_mla,
        "window": window,
        "any_window": any_window,
        "multimodal": config._model_info.supports_multimodal,
        **cache_of(config, model, arguments),
    }


def model_config(folder: str, arguments: Mapping[str, Any], *, trusted: bool) -> Any:
    """Return vLLM's ``ModelConfig`` as far as it depends on the checkpoint alone.

    Its ``__post_init__`` also asks this machine's platform, which may be another than the fleet's.
    """
    from vllm.config import ModelConfig
    from vllm.transformers_utils import config as reading

    reading.with_retry = lambda call, _: call()  # it sleeps for files on their way; these lie here
    overrides = arguments.get("hf_overrides") or {}
    flat = {key: value for key, value in overrides.items() if not isinstance(value, dict)}
    nested = {key: value for key, value in overrides.items() if isinstance(value, dict)}
    config: Any = object.__new__(ModelConfig)
    config.model = folder
    config.revision = config.code_revision = None
    config.trust_remote_code = trusted
    config.hf_config = reading.get_config(
        folder, trusted, config_format=arguments.get("config_format") or "auto", hf_overrides_kw=flat
    )
    if nested:
        config._apply_dict_overrides(config.hf_config, nested)
    config.hf_text_config = reading.get_hf_text_config(config.hf_config)
    config.multimodal_config = config.pooler_config = None
    config.runner_type, config.convert_type = "generate", "none"
    config.model_impl = arguments.get("model_impl") or "auto"
    config._model_info = SimpleNamespace(
        architecture="",
        attn_type="decoder",
        is_hybrid=False,
        is_attention_free=False,
        has_noops=False,
        supports_multimodal=config.hf_text_config is not config.hf_config,
    )
    config.model_arch_config = config.get_model_arch_config()
    return config


def model_class(config: Any) -> Any:
    """Return the class that vLLM would make the model of; None where it cannot be imported on this machine.

    Raises ValueError for an architecture that vLLM does not have.
    """
    from vllm import ModelRegistry

    names = config.architectures
    try:
        return ModelRegistry.resolve_model_cls(names, config)[0]
    except ImportError:
        return None
    except ValueError as error:
        if any(name in ModelRegistry.get_supported_archs() for name in names):
            return None
        raise ValueError(f"architectures = {names}: not one of vLLM's") from error


def windows(config: Any, *, sliding: bool) -> tuple[int, bool]:
    """Return the largest window that vLLM takes and False; its default and True where it takes any."""
    from vllm.config.model import _get_and_verify_max_len

    def verified(asked: int | None) -> int:
        return _get_and_verify_max_len(
            config.hf_text_config,
            config.model_arch_config,
            None,
            asked,
            not sliding,
            config.get_sliding_window() or None,
            encoder_config=config._get_encoder_config(),
        )

    def takes(asked: int) -> bool:
        try:
            return bool(verified(asked))
        except ValueError:
            return False

    default = verified(None)
    if takes(MOST_TOKENS):
        return default, True
    low, high = default, MOST_TOKENS
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (middle, high) if takes(middle) else (low, middle)
    return low, False


def named_dtype(hf_config: Any) -> str | None:
    """Return the type that a config names for its weights."""
    for config in (hf_config, hf_config.get_text_config()):
        if (named := getattr(config, "dtype", None)) is not None:
            return str(named).removeprefix("torch.")
    return None


if __name__ == "__main__":
    main()
