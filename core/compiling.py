"""Whether a model is compiled on its GPU before it answers, or starts eagerly: decided by how much there is to answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.campaign import FleetSpec, PolicySpec
from core.placement import Placement
from core.request import Generate, Request

OPTION = "enforce_eager"  # vLLM's own name


def tokens_ahead(requests: Iterable[Request]) -> int:
    """Count the tokens to generate at most; what is only scored takes one step."""
    return sum(request.sampling.max_tokens if isinstance(request, Generate) else 1 for request in requests)


def starts_eagerly(
    placement: Placement, vllm: Mapping[str, Any], fleet: FleetSpec, policy: PolicySpec, tokens: int
) -> str | None:
    """Return why an engine starts eagerly, as an addition to its placement's reason; None where that is not ours to say.

    Compiling and capturing graphs costs a fixed time, and saves some in every step. A distributed model stays loaded for others,
    a CPU's engine is always eager, and what ``vllm`` says wins.
    """
    if placement.engine != "lightweight" or fleet.device == "cpu" or OPTION in vllm or tokens >= policy.compile_tokens:
        return None
    return f"starts eagerly: at most {tokens:,} tokens to generate (compiled from {policy.compile_tokens:,})"
