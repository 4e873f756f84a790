"""How a function becomes a Prefect task of ours."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import State
from prefect.tasks import exponential_backoff
from prefect.utilities.annotations import quote

from core.errors import TransientError

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

        run.__qualname__, run.__doc__ = (
            function.__qualname__,
            function.__doc__,
        )  # Prefect's key and description of the task
        prefect_task = task(name=name, cache_policy=NO_CACHE, **options)(run)

        @functools.wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            arguments = signature.bind(*args, **kwargs)
            run_name = f"{name} {label.format(**arguments.arguments)}"
            named = prefect_task.with_options(task_run_name=lambda: run_name)
            return (await named(quote(arguments))).unquote()

        return call

    return decorate


def is_transient(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Whether ``state``'s exception may pass by itself, as a storage or hub that does not answer does; bad input never does."""
    return isinstance(state.data, TransientError)


# Options of a Prefect task that talks to a storage or the hub: tries again after about 2, 4 and 8 seconds.
RETRYING: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(2),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_transient,
}
