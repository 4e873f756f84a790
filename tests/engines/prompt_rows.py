"""Three prompts with hidden states and a head of plain tensors, and the rows that they give."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

VOCABULARY, WIDTH = 11, 4
PROMPTS = {"a": [1, 5, 2, 7, 3, 9], "b": [4, 4, 8], "c": [6, 2, 10, 1, 3]}
HEAD = torch.randn(WIDTH, VOCABULARY, generator=torch.Generator().manual_seed(0))
HIDDEN = {
    name: torch.randn(len(prompt), WIDTH, generator=torch.Generator().manual_seed(len(prompt)))
    for name, prompt in PROMPTS.items()
}


def expected(name: str, first: int) -> list[tuple[int, float, float]]:
    logprobs = (HIDDEN[name] @ HEAD).log_softmax(-1)
    return [
        (token, float(logprobs[position - 1, token]), float(logprobs[position - 1].max()))
        for position, token in enumerate(PROMPTS[name])
        if position >= first
    ]


def rows(found: Any) -> list[tuple[int, float, float]]:
    return [
        (int(token), own, best)
        for (token, _), (own, best) in zip(found.logprob_token_ids.tolist(), found.logprobs.tolist(), strict=True)
    ]


def same(found: Any, name: str, first: int) -> bool:
    wanted = expected(name, first)
    return len(rows(found)) == len(wanted) and all(
        got == pytest.approx(want, abs=1e-6) for got, want in zip(rows(found), wanted, strict=True)
    )
