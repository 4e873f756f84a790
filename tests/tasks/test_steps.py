"""Task retries, on a real Prefect server: transient faults are tried again, bad input is not."""

import pytest
from prefect import flow, task

from core.errors import HubUnreachableError, StoreError, StoreUnreachableError, UserError
from tasks.steps import RETRYING

pytestmark = pytest.mark.usefixtures("prefect_harness")


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (StoreUnreachableError("down"), 2),
        (HubUnreachableError("down"), 2),
        (UserError("bad input"), 1),
        (StoreError("wrong key"), 1),
        (ValueError("a bug"), 1),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(error: Exception, tries: int) -> None:
    tried: list[int] = []

    @task(**{**RETRYING, "retries": 1, "retry_delay_seconds": 0})
    def fails() -> None:
        tried.append(1)
        raise error

    @flow
    def once() -> None:
        fails()

    with pytest.raises(type(error)):
        once()
    assert len(tried) == tries
