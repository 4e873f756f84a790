"""Images on their way into vLLM: decoded, expanded into the prompt, fitted to the window. For engine processes only."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL import Image
from vllm.inputs import MultiModalInput, TokensPrompt
from vllm.v1.engine.async_llm import AsyncLLM

from engines.session.tokens import Generation, TokenError


async def render(engine: AsyncLLM, generation: Generation, window: int) -> tuple[MultiModalInput, int]:
    """Return vLLM's input for a prompt with its images, and the number of text tokens dropped from its left to fit.

    Raises `engines.session.tokens.TokenError` for images that cannot be decoded, placed in the prompt or fitted into the window.
    """
    renderer, images = engine.renderer, generation.request.images
    if renderer.mm_processor is None:
        raise TokenError("the request comes with images and the model takes none")
    token = getattr(engine.model_config.hf_config, "image_token_id", -1)
    if (places := generation.prompt.count(token)) > len(images):  # vLLM would leave the others as they are
        raise TokenError(f"the prompt has places for {places} images and comes with {len(images)}")
    # Without bounds: only with its images in it is the prompt as long as it gets.
    unbounded = replace(renderer.default_cmpl_tok_params, max_total_tokens=None)
    try:
        decoded = await asyncio.to_thread(_decoded, images)
        prompt = TokensPrompt(prompt_token_ids=list(generation.prompt), multi_modal_data={"image": decoded})
        # vLLM's cache of images that the engine core holds goes wrong where a request ends between here and there.
        (rendered,) = await renderer.render_cmpl_async([prompt], unbounded, skip_mm_cache=True)
    except Exception as error:  # whatever the model's processor raises
        raise TokenError(f"{len(images)} images cannot take their places in the prompt: {error}") from error
    return fit(rendered, window - generation.request.sampling.max_tokens)


def fit(rendered: MultiModalInput, room: int) -> tuple[MultiModalInput, int]:
    """Drop text tokens from the left where the prompt has more than ``room``.

    Raises `engines.session.tokens.TokenError` where an image would be cut.
    """
    tokens, places = rendered["prompt_token_ids"], rendered["mm_placeholders"]
    dropped = len(tokens) - room
    if dropped <= 0:
        return rendered, 0
    if any(place.offset < dropped for ranges in places.values() for place in ranges):
        raise TokenError(f"the prompt has {len(tokens)} tokens with its images; {room} fit, and an image cannot be cut")
    moved: dict[str, Any] = {
        kind: [replace(place, offset=place.offset - dropped) for place in ranges] for kind, ranges in places.items()
    }
    return {**rendered, "prompt_token_ids": tokens[dropped:], "mm_placeholders": moved}, dropped


def _decoded(images: Sequence[bytes]) -> list[Image.Image]:
    decoded: list[Image.Image] = [Image.open(io.BytesIO(png)) for png in images]
    for image in decoded:
        image.load()
    return decoded
