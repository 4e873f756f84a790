"""How a function becomes a Prefect task of ours."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.utilities.annotations import quote

P = ParamSpec("P")
R = TypeVar("R")


def step(name: str, label: str, **options: Any) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
    """Make a Prefect task, called ``name``, of an async function; options as for `prefect.task`.

    Its run is called ``name`` and ``label``, formatted with the arguments. Arguments and result pass as they are: Prefect would
    walk through engines and thousands of responses in search of futures.
    """

    def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        signature = inspect.signature(function)

        async def run(arguments: inspect.BoundArguments) -> quote[R]:
            return quote(await function(*arguments.args, **arguments.kwargs))

        prefect_task = task(name=name, cache_policy=NO_CACHE, **options)(run)

        @functools.wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            arguments = signature.bind(*args, **kwargs)
            run_name = f"{name} {label.format(**arguments.arguments)}"
            named = prefect_task.with_options(task_run_name=lambda: run_name)
            return (await named(quote(arguments))).unquote()

        return call

    return decorate
