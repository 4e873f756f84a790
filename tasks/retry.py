"""Which failures of a task are worth another try."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import TaskRun
from prefect.states import State
from prefect.tasks import exponential_backoff

from core.errors import TransientError


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
