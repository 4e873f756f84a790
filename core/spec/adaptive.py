"""Adaptive sampling, as a person writes it: after how few docs a benchmark may end for a model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from core.strict import Strict


class AdaptiveSpec(Strict):
    """Ends a benchmark for a model once it is told apart from models that have answered it."""

    against: Annotated[list[str], Field(min_length=1)]
    """Names of those models, from this campaign or in the results store; they answer all docs themselves."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Scores that differ by no more than this may stand either way."""
    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Probability, at most, that any of a model's verdicts is wrong, however often one has looked."""
