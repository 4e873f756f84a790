"""Translation to and from vLLM's terms: engine arguments, ``SamplingParams``, log-probabilities in outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import psutil
from vllm import SamplingParams
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind

from core.errors import UserError
from core.request import Sampling
from engines.engine import EngineConfig
from engines.session.score_rows import FIRST_SCORED
from engines.session.tokens import Prefill, ScoredSpan

LARGEST_LOGPROB = 1e-3  # rounding may lift a log-probability of 0 a little; memory that was never written exceeds this

Row = tuple[float, bool]  # a log-probability, and whether no other token is more likely


def engine_arguments(config: EngineConfig, executor: str | None) -> dict[str, Any]:
    """Return the fields of ``AsyncEngineArgs`` for ``config``; its ``extra`` wins."""
    arguments: dict[str, Any] = {
        "model": config.model,
        "revision": config.revision,
        "tokenizer_revision": config.revision,
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "tensor_parallel_size": config.tensor_parallel,
        "pipeline_parallel_size": config.pipeline_parallel,
        "trust_remote_code": config.trust_remote_code,
        "seed": config.seed,
        "disable_log_stats": True,  # vLLM's own loggers; `engines.session.stats` gets its figures all the same
        "worker_extension_cls": "engines.session.worker.WorkerExtension",
    }
    if config.checkpoint is not None and config.stream:
        arguments["model_weights"] = config.checkpoint.source
    if executor is not None:
        arguments["distributed_executor_backend"] = executor
    if config.device == "cpu":
        arguments |= {
            "enforce_eager": True,  # compiling takes a minute and gains nothing on small models
            "block_size": 32,  # 1.2 to 2.1 times as fast as the default of 128 where prefixes are shared
            "kv_cache_memory_bytes": cpu_kv_cache_bytes(config.gpu_memory_gb),
        }
    arguments |= config.extra
    if (mode := arguments.get("logprobs_mode", "raw_logprobs")) != "raw_logprobs":
        raise UserError(f"vllm.logprobs_mode = {mode!r}: scores need 'raw_logprobs', leave it out")
    return arguments


def cpu_kv_cache_bytes(memory_gb: float | None) -> int:
    """Return the KV cache's bytes on a CPU: half of ``memory_gb`` GB (4 if unknown) or of free memory if less; 1 GiB at least."""
    allowed = (4.0 if memory_gb is None else memory_gb) * 1e9
    return max(1 << 30, int(min(allowed, psutil.virtual_memory().available) / 2))


def generation_params(sampling: Sampling, eos_text: str) -> SamplingParams:
    """Return the ``SamplingParams`` of a generation. The end-of-text token stops as a string too, as in lm-evaluation-harness."""
    stop = [text for text in dict.fromkeys((*sampling.until, eos_text)) if text]
    fields: dict[str, Any] = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "seed": sampling.seed,
        "stop": stop,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
    }
    fields |= sampling.extra
    return SamplingParams(**fields | {"output_kind": RequestOutputKind.FINAL_ONLY, "skip_clone": True})


def cut(text: str, stop: Sequence[str]) -> str:
    """Return ``text`` before the first of ``stop``."""
    for end in stop:
        text = text.split(end, 1)[0]
    return text


def one_step(**fields: Any) -> SamplingParams:
    """Return parameters of one greedy step that reports what ``fields`` name; its text is not needed."""
    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
        **fields,
    )


def scoring_params(prefill: Prefill, *, skip_cache: bool) -> SamplingParams:
    """Return parameters of a greedy step that reports the last tokens' log-probabilities and, where needed, the prompt's.

    The prompt's most likely token is asked for beside its own, so that a tie for the first place counts as greedy.
    """
    return one_step(
        logprob_token_ids=prefill.targets,
        prompt_logprobs=1 if prefill.reads_prompt else None,
        skip_reading_prefix_cache=skip_cache,
        extra_args={FIRST_SCORED: prefill.first_scored} if prefill.reads_prompt else None,
    )


def probe_params() -> SamplingParams:
    """Return parameters of a greedy step that reports its token's log-probability."""
    return one_step(logprobs=0, skip_reading_prefix_cache=True)


def has_nan(output: RequestOutput) -> bool:
    """Whether a log-probability that was computed is not a number. Rows of cached positions may be anything."""
    step = output.outputs[0].logprobs
    flat = output.prompt_logprobs if (output.num_cached_tokens or 0) == 0 else None
    return any(math.isnan(logprob) for each in (step, flat) if each is not None for logprob in each.logprobs)


def swallowed(prefill: Prefill, output: RequestOutput) -> Prefill | None:
    """Return the prefill that is still to be scored: the prompt's beginning, where positions to be read were cached.

    vLLM computes no logits for cached positions. It never takes a prompt's last token from the cache, only whole blocks: of the
    returned prefill one block is computed.
    """
    cached = output.num_cached_tokens or 0
    if not prefill.reads_prompt or cached < prefill.first_scored:
        return None
    return Prefill(prefill.prompt[:cached], (ScoredSpan(0, prefill.prompt[: cached + 1], prefill.first_scored),))


def read_rows(prefill: Prefill, output: RequestOutput) -> list[Row] | None:
    """Return rows of the prompt's positions from ``first_scored`` on, but for those that the cache covers.

    None where one of them was not computed. Depending on vLLM's model runner the rows of cached positions are missing or
    hold whatever was in memory: rows are therefore counted from the end, and one that cannot be right counts as missing.
    """
    if not prefill.reads_prompt:
        return []
    prompt, flat = prefill.prompt, output.prompt_logprobs
    if flat is None or output.num_cached_tokens is None:
        return None
    offset = len(flat) - len(prompt)
    rows = []
    for position in range(max(prefill.first_scored, output.num_cached_tokens + 1), len(prompt)):
        row = position + offset
        if row < 0 or flat.end_indices[row] - flat.start_indices[row] < 2:
            return None
        own = flat.start_indices[row]
        logprob, best = flat.logprobs[own], flat.logprobs[own + 1]
        if flat.token_ids[own] != prompt[position] or not -math.inf <= logprob <= best <= LARGEST_LOGPROB:
            return None
        rows.append((logprob, logprob >= best))
    return rows


def read_step(output: RequestOutput) -> dict[int, Row]:
    """Return rows by token at the step behind the prompt, but for those that are not numbers."""
    step = output.outputs[0].logprobs
    best = step.logprobs[0]  # greedy: the sampled token, which comes first, is the most likely one
    tokens = zip(step.token_ids, step.logprobs, strict=True)
    return {token: (logprob, logprob >= best) for token, logprob in tokens if not math.isnan(logprob)}


def add_up(prefill: Prefill, rows: Sequence[Row], output: RequestOutput) -> list[Row] | None:
    """Return (log-probability, is greedy) of each span from ``rows`` of all positions that are read, and the step behind them."""
    scores, step = [], read_step(output)
    for span in prefill.spans:
        final = step.get(span.tokens[-1])
        if final is None:
            return None
        own = [*rows[span.start - prefill.first_scored :], final]
        scores.append((math.fsum(logprob for logprob, _ in own), all(greedy for _, greedy in own)))
    return scores
