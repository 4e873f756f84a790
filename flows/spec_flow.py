"""Flows that are called with a spec, which is checked before Prefect sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Flow

from core.campaign import load_spec

P = ParamSpec("P")
R = TypeVar("R")


class SpecFlow(Flow[P, R]):
    """A flow whose first parameter is ``spec``, as `core.campaign.load_spec` takes it: also a mapping, or a file's path.

    Prefect stores the parameters of a call before it validates them, secrets and all; so a wrong spec has to be refused earlier.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the flow. Raises `core.errors.UserError` for a wrong spec; nothing is stored or started then."""
        if args:
            args = (load_spec(args[0]), *args[1:])
        elif "spec" in kwargs:
            kwargs = {**kwargs, "spec": load_spec(kwargs["spec"])}
        return super().__call__(*args, **kwargs)


def spec_flow(**options: Any) -> Callable[[Callable[P, R]], SpecFlow[P, R]]:
    """Make a function a `SpecFlow`; options as for `prefect.flow`."""
    return lambda function: SpecFlow(function, **options)
