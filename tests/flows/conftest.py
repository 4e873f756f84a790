import pytest


@pytest.fixture(scope="session", autouse=True)
def prefect_server(prefect_harness: None) -> None:
    """Flows of this folder run on the session's temporary server."""
