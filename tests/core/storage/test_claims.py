"""Creating once on a server without create-only writes: a real one, whose door takes conditions off every request."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.storage.claims import put_once
from core.storage.s3 import S3Storage
from deployments.local_s3 import S3Server
from tests.s3_proxy import door_to

pytestmark = pytest.mark.s3


@pytest.fixture
def storage(s3_server: S3Server, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Storage]:
    with door_to(s3_server.endpoint) as door:
        door.keys = s3_server.keys
        monkeypatch.setenv("AWS_ENDPOINT_URL", door.endpoint)
        yield S3Storage(s3_root)


def test_a_campaign_starts_with_a_warning_and_what_is_created_is_created_once(
    storage: S3Storage, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        storage.check()
    assert "no create-only writes" in caplog.text
    assert storage.put_new("a/1", b"one")
    assert not storage.put_new("a/1", b"another")
    assert storage.put_new("a/1", b"one")  # a try of ours that landed unheard
    assert storage.read("a/1") == b"one"
    assert storage.list("") == ["a/1"], "claims are left"


def test_of_racing_writers_one_wins(storage: S3Storage) -> None:
    contents = [b"%d" % number for number in range(6)]
    with ThreadPoolExecutor(len(contents)) as pool:
        won = list(pool.map(lambda data: put_once(storage, "a/raced", data), contents))
    assert sum(won) == 1
    assert storage.read("a/raced") == contents[won.index(True)]


def test_a_claim_whose_owner_died_holds_the_others_up_for_a_while_only(storage: S3Storage) -> None:
    def dies(seconds: float) -> None:
        raise InterruptedError

    gone = S3Storage(storage.uri.removesuffix("/"))
    gone.delete = lambda paths: None  # type: ignore[method-assign]
    with pytest.raises(InterruptedError):
        put_once(gone, "a/2", b"never", rest=dies)
    threading.Event().wait(1.1)  # modification times come in whole seconds
    begun = time.monotonic()
    assert put_once(storage, "a/2", b"two", stale=6.0)
    assert 6.0 < time.monotonic() - begun < 60
    assert storage.read("a/2") == b"two"
