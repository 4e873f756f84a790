"""vLLM as both engines use it, so that their scores agree: requests in, responses out. For engine processes only."""

from __future__ import annotations

import asyncio
import copy
import itertools
import os
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import vllm
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError
from vllm.inputs.engine import EngineInput, tokens_input
from vllm.outputs import RequestOutput
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from core.errors import EngineDiedError, UserError
from core.model.weights import check_unchanged, streaming_environment
from core.request import Generated, Request, Response, Scored
from engines.engine import EngineConfig
from engines.session import params
from engines.session.feed import Feed, Work
from engines.session.images import render
from engines.session.in_flight import Room, Tally
from engines.session.row_check import score_rows_only
from engines.session.stats import EngineStats, stats_of
from engines.session.tokens import EncodedPlan, Encoder, Generation, Prefill, TokenError, failed, plan

WATCH_SECONDS = 1.0
CORE_ENDED = "vLLM's engine core ended"
NO_SCORES = "vLLM returned no log-probabilities for this prompt"
NO_NUMBERS = (
    "its log-probabilities are not numbers (NaN): the weights are damaged, or overflow in {dtype}; "
    "fetch them again, or set another dtype"
)
PROMPT_TOKENS_IN_FLIGHT = 1 << 18  # prompt log-probabilities cost some 200 bytes a token in this process


class Session:
    """One ``AsyncLLM`` and its tokenizer; turns requests into responses. Belongs to the event loop that opened it."""

    def __init__(self, engine: AsyncLLM) -> None:
        config = engine.vllm_config
        self.vllm_version: str = vllm.__version__
        self.max_model_len: int = config.model_config.max_model_len
        self.dtype = str(config.model_config.dtype).removeprefix("torch.")
        self.model_runner = 2 if config.use_v2_model_runner else 1
        self._engine = engine
        self._stats = stats_of(engine)
        # A copy: encoding may change a fast tokenizer's state while vLLM decodes with the original on another thread.
        self._encoder = Encoder(copy.deepcopy(engine.get_tokenizer()))
        self._block_size: int = config.cache_config.block_size or 1
        self._numbers = itertools.count()
        room = Room(2 * config.scheduler_config.max_num_seqs, PROMPT_TOKENS_IN_FLIGHT)
        self._feed = Feed(self._plan, self._serve, room)
        self.scored_rows_only = False
        self._closed = False
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    @classmethod
    async def open(cls, config: EngineConfig, *, executor: str | None = None) -> Session:
        """Load the model. ``executor`` (None, "mp", "ray", "uni") is vLLM's ``distributed_executor_backend``.

        Raises `core.errors.EngineDiedError` with vLLM's reason, `core.errors.UserError` for arguments that cannot work.
        """
        arguments = params.engine_arguments(config, executor)
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        if config.stream:
            os.environ.update(streaming_environment(os.environ))
        if config.device == "cpu" and arguments["enforce_eager"]:
            # vLLM compiles one small function even so: 20 s at the first score, for nothing on a CPU.
            os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        try:
            session = cls(AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments), stat_loggers=[EngineStats]))
        except Exception as error:
            raise EngineDiedError(f"{config.model}: vLLM did not start: {error}") from error
        try:
            if executor == "ray":  # those of a process are cleared up after it: engines.host.folder
                await session._engine.collective_rpc("steelyard_unlink_shared_memory")
            session.scored_rows_only = await score_rows_only(session._engine)
            await session.check_numbers(config.model)
            if config.checkpoint is not None and config.stream:
                trusted, arguments = config.trust_remote_code, config.extra
                await asyncio.to_thread(
                    check_unchanged, config.checkpoint, trust_remote_code=trusted, arguments=arguments
                )
        except BaseException:
            await session.close()
            raise
        return session

    async def check_numbers(self, model: str) -> None:
        """Raise `core.errors.UserError` where the model computes no numbers, which generated texts would not show."""
        prompt = (await asyncio.to_thread(self._encoder.encode, ["The"]))[0]
        try:
            output = await self._complete(tokens_input(prompt), params.probe_params()) if prompt else None
        except _RefusedError:  # then requests will be, too, and say why
            return
        if output is not None and params.has_nan(output):
            raise UserError(f"{model}: {NO_NUMBERS.format(dtype=self.dtype)}")

    async def run(self, requests: Sequence[Request], client: str = "") -> AsyncGenerator[Response, None]:
        """Yield one response per request as each finishes; concurrent calls are fine.

        The requests of one ``client``, from however many calls, go to vLLM in one order; clients get equal shares of it.
        ``aclose()`` aborts what is in flight. Raises `core.errors.EngineDiedError` when vLLM's engine core is gone or
        the session is closed meanwhile.
        """
        if self._closed or self._engine.errored:
            raise EngineDiedError("the engine is closed" if self._closed else CORE_ENDED)
        run = self._feed.add(requests, client)
        try:
            for _ in requests:
                yield await run.response()
        finally:
            await self._feed.drop(run)

    @property
    def facts(self) -> dict[str, Any]:
        """Fields of `engines.engine.EngineInfo`."""
        return {
            "vllm_version": self.vllm_version,
            "max_model_len": self.max_model_len,
            "dtype": self.dtype,
            "detail": {"model_runner": self.model_runner, "scored_rows_only": self.scored_rows_only},
        }

    def stats(self) -> dict[str, float]:
        """Return vLLM's latest figures; see `engines.engine.Engine.stats`. For any thread."""
        return self._stats.latest()

    async def close(self, *, keep: bool = False) -> None:
        """Shut the engine down and free its memory; nothing of it can be kept. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._watching.cancel()
        await self._feed.close("the engine was closed")
        await asyncio.to_thread(self._engine.shutdown)

    async def _watch(self) -> None:
        """Break all runs once vLLM is dead: it fails the requests it knows of, but not one that arrives meanwhile."""
        while not self._engine.errored:
            await asyncio.sleep(WATCH_SECONDS)
        self._feed.end_all(CORE_ENDED)

    def _plan(self, requests: Sequence[Request]) -> EncodedPlan:
        return plan(requests, self._encoder, self.max_model_len)

    async def _serve(self, work: Work) -> list[Response]:
        if isinstance(work.item, Generation):
            return await self._generate(work.item)
        return await self._score(work.item, work.tallies)

    async def _generate(self, generation: Generation) -> list[Response]:
        request = generation.request
        prompt: EngineInput = tokens_input(generation.prompt)
        truncated = generation.truncated
        try:
            wanted = params.generation_params(request.sampling, self._encoder.eos_text)
            if request.images:
                prompt, truncated = await render(self._engine, generation, self.max_model_len)
            output = await self._complete(prompt, wanted)
        except (_RefusedError, TokenError) as error:
            return [failed(request, str(error))]
        except (TypeError, ValueError, VLLMClientError) as error:
            return [failed(request, f"sampling: {error}")]
        answer = output.outputs[0]
        return [
            Generated(
                id=request.id,
                text=params.cut(answer.text, wanted.stop),
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
            for skip_cache in (prefill.first_scored <= self._block_size, True):
                rows, output = await self._rows(prefill, skip_cache=skip_cache)
                scores = None if rows is None else params.add_up(prefill, rows, output)
                if scores is not None:
                    break
        except _RefusedError as error:
            return [r for owner in owners if (r := owner.fail(str(error)))]
        if scores is None:
            fault = NO_NUMBERS.format(dtype=self.dtype) if params.has_nan(output) else NO_SCORES
            return [r for owner in owners if (r := owner.fail(fault))]
        cached = output.num_cached_tokens or 0
        finished = []
        for owner, span, (logprob, is_greedy) in zip(owners, prefill.spans, scores, strict=True):
            tokens, length = len(span.tokens) - span.start, len(prefill.prompt)
            part = Scored(owner.request.id, logprob, is_greedy, tokens, length, cached, span.truncated)
            cached = length  # the other spans had their whole prompt for nothing
            if response := owner.add(part):
                finished.append(response)
        return finished

    async def _rows(self, prefill: Prefill, *, skip_cache: bool) -> tuple[list[params.Row] | None, RequestOutput]:
        """Run a prefill. Returns the rows of all positions that are read (None where one is missing), and vLLM's output."""
        output = await self._complete(
            tokens_input(list(prefill.prompt)), params.scoring_params(prefill, skip_cache=skip_cache)
        )
        rows = params.read_rows(prefill, output)
        head = params.swallowed(prefill, output)
        if rows is None or head is None:
            return rows, output
        if len(head.prompt) >= head.first_scored + self._block_size:  # blocks one by one would take as many requests
            return None, output
        before, there = await self._rows(head, skip_cache=False)
        last = params.read_step(there).get(head.spans[0].tokens[-1])
        return None if before is None or last is None else [*before, last, *rows], output

    async def _complete(self, prompt: EngineInput, wanted: SamplingParams) -> RequestOutput:
        """Run one request to its end. Raises `_RefusedError` for this request, `EngineDiedError` for the engine."""
        output = None
        try:
            async for part in self._engine.generate(prompt, wanted, str(next(self._numbers))):
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
