"""Token arithmetic: encoding as lm-evaluation-harness does, fitting the window, prefills that serve several scores.

Pure apart from the tokenizer handed in; knows no vLLM. The rules that decide a score are those of the harness's ``TemplateLM``
and of its causal Hugging Face and vLLM backends, so the same text gives the same tokens here and there. vLLM needs room for one
generated token, hence a window of n tokens here scores as the harness's Hugging Face backend does with ``max_length = n - 1``.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.request import Generate, Generated, Loglikelihood, LoglikelihoodRolling, Request, Response, Scored

MAX_TARGETS = 128  # vLLM's bound on SamplingParams.logprob_token_ids
BARE = {"add_special_tokens": False}


class TokenError(ValueError):
    """A request that has no valid tokens for this model; the message says why. Becomes the response's ``error``."""


class Encoder:
    """Text to token ids by a Hugging Face (or vLLM) tokenizer. Not for use from two threads at once."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.prefix_id: int | None = bos if bos is not None else eos
        self._prefix_text = "" if self.prefix_id is None else tokenizer.decode(self.prefix_id)
        self.eos_text: str = "" if eos is None else tokenizer.decode(eos) or tokenizer.eos_token or ""
        # vLLM's Mistral tokenizer has no such argument; every Hugging Face tokenizer has a name_or_path.
        self._options: dict[str, Any] = {"return_attention_mask": False} if hasattr(tokenizer, "name_or_path") else {}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode with the tokenizer's own special tokens, except where a text already begins with the prefix token."""
        plain = [index for index, text in enumerate(texts) if text and not self._has_prefix(text)]
        prefixed = [index for index, text in enumerate(texts) if text and self._has_prefix(text)]
        encoded: list[list[int]] = [[] for _ in texts]
        for indices, options in ((plain, {}), (prefixed, BARE)):
            for index, ids in zip(indices, self._call([texts[i] for i in indices], options), strict=True):
                encoded[index] = ids
        return encoded

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """Encode (context, continuation) pairs; an empty context becomes the prefix token (BOS, else EOS).

        Spaces at the end of a context go to its continuation, and both are encoded as one text that is cut where the
        context alone would end. Either list may come back empty; `score` refuses that.
        """
        moved = [_move_spaces(*pair) for pair in pairs]
        contexts = list(dict.fromkeys(context for (context, _), (given, _) in zip(moved, pairs, strict=True) if given))
        context_ids = dict(zip(contexts, self.encode(contexts), strict=True))
        wholes = iter(self.encode([c + t for (c, t), (given, _) in zip(moved, pairs, strict=True) if given]))
        bare = iter(self._call([continuation for given, continuation in pairs if not given], BARE))
        encoded = []
        for (given, _), (context, _) in zip(pairs, moved, strict=True):
            head, whole = (context_ids[context], next(wholes)) if given else ([], next(bare))
            encoded.append((head, whole[len(head) :]) if head else self._with_prefix(whole))
        return encoded

    def _with_prefix(self, continuation: list[int]) -> tuple[list[int], list[int]]:
        if self.prefix_id is None:
            return [], continuation
        if continuation[:1] == [self.prefix_id]:
            return continuation[:1], continuation[1:]
        return [self.prefix_id], continuation

    def _has_prefix(self, text: str) -> bool:
        return self._prefix_text != "" and text.startswith(self._prefix_text)

    def _call(self, texts: Sequence[str], options: dict[str, Any]) -> list[list[int]]:
        if not texts:
            return []
        return self._tokenizer(list(texts), **self._options, **options).input_ids


def _move_spaces(context: str, continuation: str) -> tuple[str, str]:
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


@dataclass(frozen=True, slots=True)
class ScoredSpan:
    """Tokens of which those from ``start`` on are scored, each given all before it. ``owner`` indexes the request."""

    owner: int
    tokens: tuple[int, ...]
    start: int
    truncated: int = 0  # tokens dropped from the left


@dataclass(frozen=True, slots=True)
class Prefill:
    """One pass over ``prompt`` that serves every span which is ``prompt`` and one more token.

    The last token of each span is read from the step after the prompt, the others from the prompt's log-probabilities.
    """

    prompt: tuple[int, ...]
    spans: tuple[ScoredSpan, ...]

    @property
    def targets(self) -> list[int]:
        """Distinct last tokens, at most `MAX_TARGETS`."""
        return list(dict.fromkeys(span.tokens[-1] for span in self.spans))

    @property
    def first_scored(self) -> int:
        """First prompt position whose log-probability is read; ``len(prompt)`` where none is."""
        return min(span.start for span in self.spans)

    @property
    def reads_prompt(self) -> bool:
        """Whether any of the prompt's own log-probabilities are needed."""
        return self.first_scored < len(self.prompt)


@dataclass(frozen=True, slots=True)
class Generation:
    """A prompt to continue, cut to leave room for ``request.sampling.max_tokens``; one with images is still to be cut."""

    request: Generate
    prompt: list[int]
    truncated: int = 0  # tokens dropped from the left


@dataclass(frozen=True)
class EncodedPlan:
    """The work for some requests. ``spans_of[i]`` is the number of spans that make up the score of ``requests[i]``."""

    requests: Sequence[Request]
    generations: list[Generation] = field(default_factory=list)
    prefills: list[Prefill] = field(default_factory=list)
    spans_of: dict[int, int] = field(default_factory=dict)
    answered: list[Response] = field(default_factory=list)


def plan(requests: Sequence[Request], encoder: Encoder, window: int) -> EncodedPlan:
    """Encode ``requests`` for a window of ``window`` tokens: generations in their order, scores grouped and sorted."""
    work = EncodedPlan(requests)
    generates = [(index, r) for index, r in enumerate(requests) if isinstance(r, Generate)]
    pairs = [(index, r) for index, r in enumerate(requests) if isinstance(r, Loglikelihood)]
    rollings = [(index, r) for index, r in enumerate(requests) if isinstance(r, LoglikelihoodRolling)]
    spans: list[ScoredSpan] = []
    for (_, generate), prompt in zip(generates, encoder.encode([r.prompt for _, r in generates]), strict=True):
        try:
            fitted = _fit_prompt(generate, prompt, encoder, window)
            work.generations.append(Generation(generate, fitted, max(0, len(prompt) - len(fitted))))
        except TokenError as error:
            work.answered.append(failed(generate, str(error)))
    encoded = encoder.encode_pairs([(r.context, r.continuation) for _, r in pairs])
    for (index, pair), (context, continuation) in zip(pairs, encoded, strict=True):
        try:
            spans.append(score(index, context, continuation, window))
        except TokenError as error:
            work.answered.append(failed(pair, str(error)))
            continue
        work.spans_of[index] = 1
    for (index, rolling), ids in zip(rollings, encoder.encode([r.text for _, r in rollings]), strict=True):
        if not ids:
            work.answered.append(Scored(rolling.id, logprob=0.0, is_greedy=False, tokens=0, prompt_tokens=0))
            continue
        try:
            parts = [score(index, *part, window) for part in rolling_windows(ids, encoder.prefix_id, window - 1)]
        except TokenError as error:
            work.answered.append(failed(rolling, str(error)))
            continue
        spans += parts
        work.spans_of[index] = len(parts)
    work.prefills.extend(share(spans))
    return work


def failed(request: Request, reason: str) -> Response:
    """Answer ``request`` with an error; a score's log-probability is then NaN."""
    if isinstance(request, Generate):
        return Generated(request.id, "", "error", prompt_tokens=0, completion_tokens=0, error=reason)
    return Scored(request.id, logprob=math.nan, is_greedy=False, tokens=0, prompt_tokens=0, error=reason)


def _fit_prompt(request: Generate, prompt: list[int], encoder: Encoder, window: int) -> list[int]:
    """Cut ``prompt`` from the left to leave room for the answer; an empty one becomes the prefix token.

    One with images stays whole: how long it is shows when they take their places in it.
    """
    wanted = request.sampling.max_tokens
    room = window - wanted
    if room < 1:
        raise TokenError(f"max_tokens = {wanted} leaves no room for a prompt in a window of {window} tokens")
    if not prompt:
        if encoder.prefix_id is None:
            raise TokenError("the prompt is empty and the tokenizer has neither a BOS nor an EOS token to start from")
        return [encoder.prefix_id]
    return prompt if request.images else prompt[-room:]


def score(owner: int, context: Sequence[int], continuation: Sequence[int], window: int) -> ScoredSpan:
    """Fit both into ``window`` tokens by dropping context from the left; at least one token of it must stay."""
    if not continuation:
        raise TokenError("the continuation has no tokens of its own")
    if not context:
        raise TokenError("the context is empty and the tokenizer has neither a BOS nor an EOS token to start from")
    dropped = max(0, len(context) + len(continuation) - window)
    if dropped >= len(context):
        raise TokenError(f"the continuation has {len(continuation)} tokens, the window {window}")
    return ScoredSpan(owner, (*context[dropped:], *continuation), len(context) - dropped, dropped)


def rolling_windows(
    tokens: Sequence[int], prefix_id: int | None, length: int
) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """Split ``tokens`` into (context, continuation) windows that score each token once.

    The first window's context is the prefix token, each later one's at least one token; a window holds at most
    ``length`` + 1 tokens, and the last is filled up with context. The same windows as lm-evaluation-harness's
    ``get_rolling_token_windows(tokens, prefix_id, length, context_len=1)`` made disjoint.
    """
    if prefix_id is None:
        raise TokenError("the tokenizer has neither a BOS nor an EOS token to start a text from")
    if length < 1:
        raise TokenError(f"a window of {length + 1} tokens is too short to score a text")
    yield [prefix_id], tokens[:length]
    for begin in range(length, len(tokens), length):
        end = min(begin + length, len(tokens))
        yield tokens[end - length - 1 : begin], tokens[begin:end]


def tokens_key(tokens: Sequence[int]) -> bytes:
    """Return a key by which token sequences that begin alike are neighbours; bytes compare far faster than tuples."""
    return array("i", tokens).tobytes()


def share(spans: Iterable[ScoredSpan]) -> list[Prefill]:
    """Group spans that differ in their last token only; order the groups so that shared prefixes are neighbours."""
    groups: defaultdict[bytes, list[ScoredSpan]] = defaultdict(list)
    for span in spans:
        groups[tokens_key(span.tokens[:-1])].append(span)
    return [
        Prefill(members[0].tokens[:-1], tuple(chunk))
        for _, members in sorted(groups.items())
        for chunk in _at_most(MAX_TARGETS, members)
    ]


def _at_most(targets: int, spans: list[ScoredSpan]) -> Iterator[list[ScoredSpan]]:
    chunk: list[ScoredSpan] = []
    seen: set[int] = set()
    for span in spans:
        if span.tokens[-1] not in seen and len(seen) == targets:
            yield chunk
            chunk, seen = [], set()
        chunk.append(span)
        seen.add(span.tokens[-1])
    yield chunk
