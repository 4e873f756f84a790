"""Checkpoints for tests, made once: in $STEELYARD_TEST_CACHE, or in ~/.cache/steelyard where that is present."""

from __future__ import annotations

import os
from pathlib import Path

from deployments.demo_model import _once, make_smollm2, pad_heads

# As those of real vision-language models: a message is a string or a list of parts.
CHAT_TEMPLATE = """{% for turn in messages %}<|im_start|>{{ turn.role }}
{% if turn.content is string %}{{ turn.content }}{% else %}{% for part in turn.content %}\
{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
IMAGE_TOKENS = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>")
TILES = 6  # rows and columns that its processor knows names for


def cache_directory(fallback: Path) -> Path:
    """Where checkpoints outlive the test session; ``fallback`` where there is no such place."""
    named = os.environ.get("STEELYARD_TEST_CACHE")
    if named:
        return Path(named)
    usual = Path.home() / ".cache" / "steelyard"
    return usual if usual.is_dir() else fallback


def smollm2(cache: Path) -> Path:
    """SmolLM2-135M-Instruct, bfloat16."""
    return make_smollm2(cache)


def padded_smollm2(cache: Path) -> Path:
    """The same with heads that two ranks can share."""
    return pad_heads(smollm2(cache), cache / "smollm2-135m-instruct-padded")


def tiny_vlm(cache: Path) -> Path:
    """Idefics3 (the architecture of SmolVLM) with random weights in float32, 26 MB: two layers of sight and two of text.

    An image becomes tiles of 64 pixels a side, of 4 tokens each, and a small whole. One of the few vision-language models whose
    code in vLLM and whose processor do without torchvision.
    """
    return _once(cache / "tiny-idefics3", lambda folder: _write_tiny_vlm(smollm2(cache), folder))


def _write_tiny_vlm(tokenizer: Path, folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    words = AutoTokenizer.from_pretrained(tokenizer)
    words.chat_template = None
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, TILES + 1) for column in range(1, TILES + 1)]
    words.add_tokens([*IMAGE_TOKENS, *tiles], special_tokens=True)
    ends = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    size = {"hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Idefics3Config(
        # Weights this large make answers that differ from image to image.
        text_config={
            **{**size, "num_key_value_heads": 2, "vocab_size": len(words), "max_position_embeddings": 2048},
            **{**ends, "model_type": "llama", "initializer_range": 0.3},
        },
        vision_config={**size, "hidden_size": 64, "image_size": 64, "patch_size": 16, "initializer_range": 0.1},
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        initializer_range=0.3,
        **ends,
    )
    torch.manual_seed(0)
    Idefics3ForConditionalGeneration(config).to(torch.float32).save_pretrained(folder)
    images = Idefics3ImageProcessorPil(size={"longest_edge": 128}, max_image_size={"longest_edge": 64})
    Idefics3Processor(images, words, image_seq_len=4, chat_template=CHAT_TEMPLATE).save_pretrained(folder)
