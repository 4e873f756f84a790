"""Who may reach the Prefect server that the command line starts."""

from collections.abc import Callable

import pytest


def test_a_server_for_others_wants_a_login(
    steelyard: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    code, out, err = steelyard("server", "--host", "0.0.0.0")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "host = '0.0.0.0': whoever reaches the port could run code on the workers: set PREFECT_SERVER_API" in err
