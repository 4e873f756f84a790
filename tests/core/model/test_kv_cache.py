"""What one sequence takes of a GPU: by layers that keep all, that slide, and that keep a state."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.campaign import ModelSpec
from core.model.kv_cache import BATCHED_TOKENS, KVCache, kv_cache
from tests.core.real_configs import REAL, real


def cache(name: str, **model: Any) -> KVCache:
    return kv_cache(real(name), ModelSpec(model="m", **model))


def test_layers_that_keep_all_grow_with_the_sequence() -> None:
    assert cache("Llama-3.1-8B").bytes(1000, 1, 1) == 131_072_000
    assert cache("Llama-3.1-8B").bytes(1000, 2, 2) == 131_072_000 / 4


def test_layers_that_slide_keep_their_window_and_what_is_in_flight() -> None:
    kept = 4096 - 1 + 2 * BATCHED_TOKENS
    assert cache("gemma3-12b").bytes(100_000, 1, 1) == 65_536 * 100_000 + 327_680 * kept
    assert cache("gemma3-12b").bytes(1000, 1, 1) == (65_536 + 327_680) * 1000
    fewer = cache("gemma3-12b", vllm={"max_num_batched_tokens": 512})
    assert fewer.bytes(100_000, 1, 1) == 65_536 * 100_000 + 327_680 * (4095 + 1024)


def test_without_the_hybrid_manager_they_keep_all_unless_every_layer_slides() -> None:
    asked = {"disable_hybrid_kv_cache_manager": True}
    assert cache("gemma3-12b", vllm=asked).bytes(100_000, 1, 1) == (65_536 + 327_680) * 100_000
    assert cache("mistral-7b-v0.1", vllm=asked) == cache("mistral-7b-v0.1")


def test_mamba_keeps_a_state_and_nothing_per_token() -> None:
    mamba = cache("falcon-mamba")
    # 64 layers: 8,192 channels of 16 numbers, and 3 columns of the convolution, at 16 bits; two states where prefixes are kept.
    assert mamba.bytes(1, 1, 1) == mamba.bytes(10**6, 1, 1) == 2 * 64 * 8192 * (16 + 3) * 2
    assert cache("falcon-mamba", vllm={"enable_prefix_caching": False}).bytes(1, 2, 1) == 64 * 8192 * 19 * 2 / 2


def test_latent_attention_is_held_whole_by_every_rank() -> None:
    latent = cache("DeepSeek-V3")
    assert latent.bytes(100, 8, 1) == latent.bytes(100, 1, 1) == 61 * 576 * 2 * 100


def test_ranks_beyond_the_key_value_heads_hold_copies() -> None:
    assert cache("glm4-9b").bytes(100, 8, 1) == cache("glm4-9b").bytes(100, 2, 1)


def test_a_decoder_keeps_what_the_encoder_read() -> None:
    whisper = cache("whisper-large-v3")
    assert whisper.bytes(0, 1, 1) == 1500 * 32 * 2 * 20 * 64 * 2


def test_the_type_of_the_cache_is_the_one_asked_for() -> None:
    assert cache("Qwen3-0.6B", dtype="float32").per_token == 2 * cache("Qwen3-0.6B").per_token
    assert cache("fp8 cache", dtype="float32").per_token == cache("Llama-3.1-8B").per_token / 2


@pytest.mark.parametrize("degrees", [(1, 1), (4, 1), (2, 3)])
@given(name=st.sampled_from(sorted(REAL)), room=st.floats(0, 1e12), most=st.integers(1, 10**6))
def test_as_many_tokens_fit_as_their_bytes_say(name: str, degrees: tuple[int, int], room: float, most: int) -> None:
    found = cache(name)
    tokens = found.tokens(room, most, *degrees)
    assert 0 <= tokens <= most
    if tokens:
        assert found.bytes(tokens, *degrees) <= room * (1 + 1e-9)
    if tokens < most:
        assert found.bytes(tokens + 1, *degrees) > room * (1 - 1e-9)
