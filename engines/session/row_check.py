"""The check of `engines.session.score_rows` against vLLM's own rows, on the loaded engine itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from vllm.inputs.engine import tokens_input
from vllm.v1.engine.async_llm import AsyncLLM

from core.errors import EngineDiedError
from engines.session.params import one_step
from engines.session.score_rows import FIRST_SCORED

logger = logging.getLogger(__name__)

PROMPT = tuple(range(3, 43))  # any tokens do
FIRST = 17
TOLERANCE = 0.02  # the same hidden states through products of other shapes, in bfloat16

Row = tuple[int, int, float, float]  # own token, most likely token, and their log-probabilities


async def score_rows_only(engine: AsyncLLM) -> bool:
    """Switch the workers to rows of scored positions only, where they equal vLLM's own. Returns whether they are switched.

    vLLM's way stays where `engines.session.score_rows` does not know its model runner, where it refuses the prompt (a window or
    vocabulary too small for it), and where the rows differ, which is logged. Raises `core.errors.EngineDiedError` where the engine
    dies of it.
    """
    try:
        own = await _rows(engine)
        ours = await _rows(engine) if await _switch(engine, on=True) else []
    except Exception as error:
        if engine.errored:
            raise EngineDiedError(f"vLLM died of its first request: {error}") from error
        logger.warning("scored rows cannot be checked, vLLM's own are used: %s", error)
        ours = []
    else:
        if alike(own[FIRST - 1 :], ours):
            return True
        if ours:
            logger.warning("scored rows differ from vLLM's own, which are used: slower on texts to choose from")
    await _switch(engine, on=False)
    return False


def alike(own: Sequence[Row], ours: Sequence[Row]) -> bool:
    """Whether rows agree in number, in their tokens and, but for rounding, in their log-probabilities."""
    return len(own) == len(ours) and all(
        mine[0] == theirs[0] and abs(mine[2] - theirs[2]) <= TOLERANCE and abs(mine[3] - theirs[3]) <= TOLERANCE
        for theirs, mine in zip(own, ours, strict=True)
    )


async def _switch(engine: AsyncLLM, *, on: bool) -> bool:
    return all(await engine.collective_rpc("steelyard_score_rows", args=(on,)))


async def _rows(engine: AsyncLLM) -> list[Row]:
    params = one_step(prompt_logprobs=1, extra_args={FIRST_SCORED: FIRST})
    rows: list[Row] = []
    async for output in engine.generate(tokens_input(list(PROMPT)), params, "steelyard-row-check"):
        flat = output.prompt_logprobs
        for begin, end in zip(flat.start_indices, flat.end_indices, strict=True):
            if end - begin >= 2:
                rows.append((*flat.token_ids[begin : begin + 2], *flat.logprobs[begin : begin + 2]))
    return rows
