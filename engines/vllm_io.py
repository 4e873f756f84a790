"""The one place that turns requests into ``SamplingParams`` and vLLM's outputs into responses.

Both engines use it, so their scores agree. It imports vLLM: for engine processes only.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import vllm
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError
from vllm.inputs.engine import EngineInput, tokens_input
from vllm.outputs import RequestOutput
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from core.errors import EngineDiedError
from core.request import Generated, Request, Response
from engines.engine import EngineConfig
from engines.images import render
from engines.in_flight import PIXELS_IN_FLIGHT, Room, Tally, pixels
from engines.row_check import score_rows_only
from engines.tokens import Encoder, Generation, Plan, Prefill, TokenError, failed, plan
from engines.vllm_params import cut, engine_arguments, generation_params, read_scores, scoring_params
from engines.vllm_stats import EngineStats, stats_of

PLANNED_AT_ONCE = 512  # requests encoded and sorted together, while vLLM works on those before
WATCH_SECONDS = 1.0
CORE_ENDED = "vLLM's engine core ended"
PROMPT_TOKENS_IN_FLIGHT = 1 << 18  # prompt log-probabilities cost some 200 bytes a token in this process


class Session:
    """One ``AsyncLLM`` and its tokenizer; turns requests into responses. Belongs to the event loop that opened it."""

    def __init__(self, engine: AsyncLLM) -> None:
        config = engine.vllm_config
        self.vllm_version: str = vllm.__version__
        self.max_model_len: int = config.model_config.max_model_len
        self.dtype = str(config.model_config.dtype).removeprefix("torch.")
        self._engine = engine
        self._stats = stats_of(engine)
        # A copy: encoding may change a fast tokenizer's state while vLLM decodes with the original on another thread.
        self._encoder = Encoder(copy.deepcopy(engine.get_tokenizer()))
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._block_size: int = config.cache_config.block_size or 1
        self._requests_in_flight: int = 2 * config.scheduler_config.max_num_seqs
        self._numbers = itertools.count()
        self._runs: dict[asyncio.Task[None], asyncio.Queue[Response | Exception]] = {}
        self.scored_rows_only = False
        self._closed = False
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    @classmethod
    async def open(cls, config: EngineConfig, *, executor: str | None = None) -> Session:
        """Load the model. ``executor`` (None, "mp", "ray", "uni") is vLLM's ``distributed_executor_backend``.

        Raises `core.errors.EngineDiedError` with vLLM's reason, `core.errors.UserError` for arguments that cannot work.
        """
        arguments = engine_arguments(config, executor)
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        if config.device == "cpu" and arguments["enforce_eager"]:
            # vLLM compiles one small function even so: 20 s at the first score, for nothing on a CPU.
            os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        try:
            session = cls(AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments), stat_loggers=[EngineStats]))
            session.scored_rows_only = await score_rows_only(session._engine)
        except Exception as error:
            raise EngineDiedError(f"{config.model}: vLLM did not start: {error}") from error
        return session

    async def run(self, requests: Sequence[Request]) -> AsyncGenerator[Response, None]:
        """Yield one response per request as each finishes; concurrent calls are fine.

        ``aclose()`` aborts what is in flight. Raises `core.errors.EngineDiedError` when vLLM's engine core is gone or
        the session is closed meanwhile.
        """
        if self._closed or self._engine.errored:
            raise EngineDiedError("the engine is closed" if self._closed else CORE_ENDED)
        responses: asyncio.Queue[Response | Exception] = asyncio.Queue()
        feeding = asyncio.create_task(self._feed(requests, responses))
        self._runs[feeding] = responses
        try:
            for _ in requests:
                response = await responses.get()
                if isinstance(response, Exception):
                    raise response
                yield response
        finally:
            del self._runs[feeding]
            feeding.cancel()
            await asyncio.wait([feeding])

    @property
    def facts(self) -> dict[str, Any]:
        """Fields of `engines.engine.EngineInfo`."""
        return {"vllm_version": self.vllm_version, "max_model_len": self.max_model_len, "dtype": self.dtype}

    def stats(self) -> dict[str, float]:
        """vLLM's latest figures; see `engines.engine.Engine.stats`. For any thread."""
        return self._stats.latest()

    async def close(self, *, keep: bool = False) -> None:
        """Shut the engine down and free its memory; nothing of it can be kept. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._watching.cancel()
        self._break_runs("the engine was closed")
        if self._runs:
            await asyncio.wait(list(self._runs))
        self._encoding.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._engine.shutdown)

    def _break_runs(self, reason: str) -> None:
        for feeding, responses in self._runs.items():
            responses.put_nowait(EngineDiedError(reason))
            feeding.cancel()

    async def _watch(self) -> None:
        """Break all runs once vLLM is dead: it fails the requests it knows of, but not one that arrives meanwhile."""
        while not self._engine.errored:
            await asyncio.sleep(WATCH_SECONDS)
        self._break_runs(CORE_ENDED)

    async def _feed(self, requests: Sequence[Request], responses: asyncio.Queue[Response | Exception]) -> None:
        """Keep vLLM supplied without handing it everything at once; put every response, or the first fatal error."""
        room = Room(self._requests_in_flight, PROMPT_TOKENS_IN_FLIGHT)
        canvas = Room(self._requests_in_flight, PIXELS_IN_FLIGHT)

        async def serve(work: Callable[[], Awaitable[list[Response]]], place: Room, size: int) -> None:
            try:
                for response in await work():
                    responses.put_nowait(response)
            finally:
                place.leave(size)

        try:
            async with asyncio.TaskGroup() as tasks:
                async for part in self._plans(requests):
                    for response in part.answered:
                        responses.put_nowait(response)
                    for generation in part.generations:
                        images = generation.request.images
                        place, size = (canvas, pixels(images)) if images else (room, 0)
                        await place.enter(size)
                        tasks.create_task(serve(partial(self._generate, generation), place, size))
                    tallies = {index: Tally(part.requests[index], spans) for index, spans in part.spans_of.items()}
                    for prefill in part.prefills:
                        tokens = len(prefill.prompt) if prefill.reads_prompt else 0
                        await room.enter(tokens)
                        tasks.create_task(serve(partial(self._score, prefill, tallies), room, tokens))
        except* Exception as errors:
            responses.put_nowait(errors.exceptions[0])

    async def _plans(self, requests: Sequence[Request]) -> AsyncIterator[Plan]:
        """Plan the next requests on another thread while vLLM works on those before."""
        loop = asyncio.get_running_loop()
        coming: asyncio.Future[Plan] | None = None
        for begin in range(0, len(requests), PLANNED_AT_ONCE):
            part = requests[begin : begin + PLANNED_AT_ONCE]
            following = loop.run_in_executor(self._encoding, plan, part, self._encoder, self.max_model_len)
            if coming is not None:
                yield await coming
            coming = following
        if coming is not None:
            yield await coming

    async def _generate(self, generation: Generation) -> list[Response]:
        request = generation.request
        prompt: EngineInput = tokens_input(generation.prompt)
        truncated = generation.truncated
        try:
            params = generation_params(request.sampling, self._encoder.eos_text)
            if request.images:
                prompt, truncated = await render(self._engine, generation, self.max_model_len)
            output = await self._complete(prompt, params)
        except (_RefusedError, TokenError) as error:
            return [failed(request, str(error))]
        except (TypeError, ValueError, VLLMClientError) as error:
            return [failed(request, f"sampling: {error}")]
        answer = output.outputs[0]
        return [
            Generated(
                id=request.id,
                text=cut(answer.text, params.stop),
                finish_reason=answer.finish_reason,
                prompt_tokens=len(output.prompt_token_ids or ()),
                completion_tokens=len(answer.token_ids),
                cached_tokens=output.num_cached_tokens or 0,
                truncated=truncated,
            )
        ]

    async def _score(self, prefill: Prefill, tallies: dict[int, Tally]) -> list[Response]:
        owners = [tallies[span.owner] for span in prefill.spans]
        try:
            # Where less than a block precedes the first scored token, no cached block is of use.
            skip_cache = prefill.reads_prompt and prefill.first_scored <= self._block_size
            prompt = tokens_input(list(prefill.prompt))
            output = await self._complete(prompt, scoring_params(prefill, skip_cache=skip_cache))
            scores = read_scores(prefill, output)
            if scores is None:
                output = await self._complete(prompt, scoring_params(prefill, skip_cache=True))
                scores = read_scores(prefill, output)
        except _RefusedError as error:
            return [r for owner in owners if (r := owner.fail(str(error)))]
        if scores is None:
            return [r for owner in owners if (r := owner.fail("vLLM returned no log-probabilities for this prompt"))]
        cached = output.num_cached_tokens or 0
        finished = []
        for owner, span, (logprob, is_greedy) in zip(owners, prefill.spans, scores, strict=True):
            response = owner.add(
                logprob,
                is_greedy,
                tokens=len(span.tokens) - span.start,
                prompt_tokens=len(prefill.prompt),
                cached_tokens=cached,
                truncated=span.truncated,
            )
            cached = len(prefill.prompt)  # the other spans had their whole prompt for nothing
            if response:
                finished.append(response)
        return finished

    async def _complete(self, prompt: EngineInput, params: SamplingParams) -> RequestOutput:
        """Run one request to its end. Raises `_RefusedError` for this request, `EngineDiedError` for the engine."""
        output = None
        try:
            async for part in self._engine.generate(prompt, params, str(next(self._numbers))):
                output = part
        except EngineDeadError as error:
            raise EngineDiedError(CORE_ENDED) from error
        except Exception as error:
            if self._engine.errored:
                raise EngineDiedError(f"{CORE_ENDED}: {error}") from error
            raise _RefusedError(f"vLLM refused the request: {error.__cause__ or error}") from error
        reason = output.outputs[0].finish_reason if output else None
        if output is None or reason not in ("stop", "length"):
            raise _RefusedError(f"vLLM gave up on the request: {reason}")
        return output


class _RefusedError(Exception):
    """vLLM cannot serve this one request."""
