"""What vLLM's layers keep of a sequence, as they say it: a model is made without memory, and each layer asked for its spec.

It is what `engines.session.sequence_memory` derives from the config alone. Not every model can be made here: some need packages or
kernels that a CPU's build lacks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

FIELDS = ("KV bytes", "sliding bytes", "sliding window", "state bytes")


def initialize(folder: Path) -> None:
    """Make vLLM's process groups, once in a process, by the config of a model with experts: others lack a group."""
    from vllm.config import set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel
    from vllm.utils.network_utils import get_open_port

    with set_current_vllm_config(_engine_config(folder)):
        init_distributed_environment(1, 0, f"tcp://127.0.0.1:{get_open_port()}", 0, "gloo")
        initialize_model_parallel()


def kept(folder: Path) -> dict[str, int]:
    """Return the values of `FIELDS` of the checkpoint in ``folder``. Raises what vLLM does where it cannot make the model here."""
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    whole = _engine_config(folder)
    if whole.model_config.runner_type != "generate":
        raise ValueError("a pooling model, which answers in one step")
    # CPUs have states in 32 bits; the fleet's devices as the model says.
    stated = getattr(whole.model_config.hf_text_config, "mamba_ssm_dtype", None)
    whole.cache_config.mamba_ssm_cache_dtype = stated or "auto"
    with set_current_vllm_config(whole), torch.device("meta"), set_default_torch_dtype(torch.bfloat16):
        model = initialize_model(whole)
    layers = whole.compilation_config.static_forward_context.values()
    specs = [each.get_kv_cache_spec(whole) for each in layers if isinstance(each, AttentionLayerBase)]
    del model
    return totals([spec for spec in specs if spec is not None])


def totals(specs: list[Any]) -> dict[str, int]:
    """Add up specs of vLLM's ``kv_cache_interface``; cross-attention, whose length another model decides, is left out."""
    from vllm.v1.kv_cache_interface import (
        ChunkedLocalAttentionSpec,
        CrossAttentionSpec,
        MambaSpec,
        SlidingWindowSpec,
    )

    full = sliding = window = state = 0
    for spec in specs:
        if isinstance(spec, MambaSpec):
            state += spec.state_content_size_bytes
        elif isinstance(spec, SlidingWindowSpec | ChunkedLocalAttentionSpec):
            sliding += spec.real_page_size_bytes // spec.block_size
            window = spec.sliding_window if isinstance(spec, SlidingWindowSpec) else spec.attention_chunk_size
        elif not isinstance(spec, CrossAttentionSpec):
            full += spec.real_page_size_bytes // spec.block_size
    return dict(zip(FIELDS, (full, sliding, window, state), strict=True))


def _engine_config(folder: Path) -> Any:
    from vllm.engine.arg_utils import EngineArgs

    return EngineArgs(
        model=str(folder),
        tokenizer=str(folder),
        skip_tokenizer_init=True,
        dtype="bfloat16",
        load_format="dummy",
        max_num_batched_tokens=2048,
        max_num_seqs=8,
    ).create_engine_config()
