"""Requests and responses, the same for every engine; matched by ``id`` alone.

Request kinds are those of lm-evaluation-harness (``generate_until``, ``loglikelihood``, ``loglikelihood_rolling``).
A multiple-choice question is several `Loglikelihood` requests with one ``context``; engines group them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings of a generation. ``extra`` holds further vLLM ``SamplingParams`` fields by their own names."""

    max_tokens: int = 256
    until: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Generate:
    """Continue ``prompt``; the response's text ends before the first of ``sampling.until``.

    ``images`` are PNG files, one for each of the places that the model's own image token marks in ``prompt``, in their order.
    """

    id: str
    prompt: str
    sampling: Sampling
    images: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Loglikelihood:
    """Log-probability of ``continuation`` given ``context`` (which may be empty)."""

    id: str
    context: str
    continuation: str


@dataclass(frozen=True, slots=True)
class LoglikelihoodRolling:
    """Log-probability of the whole ``text``, each token scored once, in windows of the model's context length."""

    id: str
    text: str


Request = Generate | Loglikelihood | LoglikelihoodRolling


def strings_of(request: Request) -> tuple[str, ...]:
    """Return the strings of a request, as lm-evaluation-harness names a request: its arguments without the generation settings."""
    match request:
        case Generate(prompt=prompt):
            return (prompt,)
        case Loglikelihood(context=context, continuation=continuation):
            return (context, continuation)
        case LoglikelihoodRolling(text=text):
            return (text,)


@dataclass(frozen=True, slots=True)
class Generated:
    """Response to `Generate`. ``error`` set means this sample failed and ``text`` is empty; the engine lives on."""

    id: str
    text: str
    finish_reason: str  # "stop" | "length" | "error"
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    truncated: int = 0  # prompt tokens dropped from the left to fit the window
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """Response to `Loglikelihood` and `LoglikelihoodRolling`.

    ``logprob`` is the natural-log sum over the continuation's ``tokens`` tokens; ``is_greedy`` says that each of them was the
    argmax (always False for rolling). ``truncated`` counts context tokens dropped from the left to fit the window.
    """

    id: str
    logprob: float
    is_greedy: bool
    tokens: int
    prompt_tokens: int
    cached_tokens: int = 0
    truncated: int = 0
    error: str | None = None


Response = Generated | Scored


def doc_of(request: str) -> str:
    """``<task>/<doc>`` of a request's id ``<task>/<doc>/<request of the doc>/<repeat>``."""
    return request.rsplit("/", 2)[0]
