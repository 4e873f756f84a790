"""Who may talk to the Prefect servers that this project starts on a machine that others use, too."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_API_AUTH_STRING,
    get_current_settings,
    temporary_settings,
)

from core.errors import UserError
from core.redact import redact
from flows.login import is_loopback, kept_file, log_in, require_login, temporary_login
from flows.prefect_server import TemporaryServer

LOOPBACK = "http://127.0.0.1:4200/api"
HOSTS = {
    "127.0.0.1": True,
    "127.8.8.8": True,
    "::1": True,
    "localhost": True,
    "0.0.0.0": False,
    "::": False,
    "10.0.0.5": False,
    "example.org": False,
}


@pytest.fixture
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Prefect home of its own, and no login yet."""
    for name in ("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"):
        monkeypatch.setenv(name, "")  # so that it is gone again at the end, too
        monkeypatch.delenv(name)
    logins = [PREFECT_API_AUTH_STRING, PREFECT_SERVER_API_AUTH_STRING]
    with temporary_settings({PREFECT_HOME: tmp_path}, restore_defaults=logins):
        yield


def sent() -> str | None:
    """What clients of this process log in with."""
    found = get_current_settings().api.auth_string
    return None if found is None else found.get_secret_value()


@pytest.mark.parametrize(("host", "own"), HOSTS.items())
def test_what_only_this_machine_reaches(host: str, own: bool) -> None:
    assert is_loopback(host) == own


def test_a_temporary_server_knows_its_own_process_alone() -> None:
    url = TemporaryServer().api_url
    health = httpx.get(f"{url}/health")
    assert health.status_code == httpx.codes.OK
    guessed = base64.b64encode(b"steelyard:guess").decode()
    for headers in ({}, {"Authorization": f"Basic {guessed}"}):
        for method, path in (("POST", "flow_runs/filter"), ("POST", "block_documents/"), ("GET", "admin/settings")):
            assert httpx.request(method, f"{url}/{path}", headers=headers, json={}).status_code == 401, path
    with get_client(sync_client=True) as client:
        client.read_work_pools()


def test_a_page_of_another_site_is_told_nothing() -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    told = httpx.options(
        f"{TemporaryServer().api_url}/flow_runs/filter", headers={**asks, "Origin": "http://evil.example"}
    )
    assert "access-control-allow-origin" not in told.headers


@pytest.mark.usefixtures("nothing_set")
def test_a_temporary_login_is_sent_masked_and_kept_for_children() -> None:
    login = temporary_login()
    assert sent() == login == temporary_login() == os.environ["PREFECT_API_AUTH_STRING"]
    assert login not in redact(f"what {login} says")


@pytest.mark.usefixtures("nothing_set")
def test_one_that_is_set_by_hand_is_the_temporary_server_s_too() -> None:
    with temporary_settings({PREFECT_API_AUTH_STRING: "me:mine"}):
        assert temporary_login() == "me:mine"


@pytest.mark.usefixtures("nothing_set")
def test_a_server_makes_a_login_once_for_its_user_alone() -> None:
    made = require_login()
    assert made == kept_file()
    assert kept_file().stat().st_mode & 0o777 == 0o600
    first = PREFECT_SERVER_API_AUTH_STRING.value()
    with temporary_settings(restore_defaults=[PREFECT_SERVER_API_AUTH_STRING]):
        assert require_login() is None
        assert PREFECT_SERVER_API_AUTH_STRING.value() == first
    with temporary_settings({PREFECT_API_URL: LOOPBACK}):
        log_in()
        assert sent() == first


@pytest.mark.usefixtures("nothing_set")
def test_a_server_keeps_the_login_that_is_set() -> None:
    with temporary_settings({PREFECT_SERVER_API_AUTH_STRING: "me:mine"}):
        assert require_login() is None
    assert not kept_file().exists()


@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize("url", ["https://api.prefect.cloud/api", "http://10.0.0.5:4200/api", None])
def test_the_kept_login_goes_to_no_other_machine(url: str | None) -> None:
    require_login()
    with temporary_settings({PREFECT_API_URL: url}):
        log_in()
        assert sent() is None


@pytest.mark.usefixtures("nothing_set")
def test_one_that_is_set_goes_before_the_kept_one() -> None:
    require_login()
    with temporary_settings({PREFECT_API_URL: LOOPBACK, PREFECT_API_AUTH_STRING: "me:mine"}):
        log_in()
        assert sent() == "me:mine"


@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize("kind", ["readable", "link", "folder"])
def test_a_login_that_others_may_read_or_gave_is_refused(kind: str, tmp_path: Path) -> None:
    file = kept_file()
    if kind == "folder":
        file.mkdir()
    elif kind == "link":
        (tmp_path / "theirs").write_text("them:theirs")
        (tmp_path / "theirs").chmod(0o600)
        file.symlink_to(tmp_path / "theirs")
    else:
        file.write_text("me:mine")
        file.chmod(0o644)
    with pytest.raises(UserError, match="delete it"):
        require_login()
