"""Secrets taken out of texts, logs and errors, and found in specs."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from typing import Any

import pytest

from core.campaign import load_spec
from core.errors import EngineDiedError, UserError
from core.redact import is_secret_name, redact, redact_all, redact_logs, secrets_in

SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCY"
HUB_TOKEN = "hf_" + "aB3" * 12


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SESSION_TOKEN",
        "HF_TOKEN",
        "PREFECT_API_KEY",
        "PREFECT_API_AUTH_STRING",
        "RAY_AUTH_TOKEN",
        "PGPASSWORD",
        "db_password",
        "GOOGLE_CREDENTIALS",
        "OPENAI_APIKEY",
    ],
)
def test_variables_that_hold_a_secret_are_known_by_name(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["TOKENIZERS_PARALLELISM", "AWS_SHARED_CREDENTIALS_FILE", "RAY_AUTH_TOKEN_PATH", "PATH", "KEYBOARD_LAYOUT"]
)
def test_where_a_secret_lies_is_none(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"denied for {SECRET}.", "denied for ***."),
        ("http://user:hunter2@host:9000/x", "http://***@host:9000/x"),
        ("postgresql+asyncpg://prefect:p%40ss@db/prefect", "postgresql+asyncpg://***@db/prefect"),
        ("http://:hunter2@host", "http://***@host"),
        (f"Bearer {HUB_TOKEN}", "Bearer ***"),
        ("key AKIAIOSFODNN7EXAMPLE", "key ***"),
        ("pnu_" + "0" * 36, "***"),
        ("s3://bucket/prefix at http://host:9000", "s3://bucket/prefix at http://host:9000"),
        ("git@host:org/repo, mail user@host", "git@host:org/repo, mail user@host"),
    ],
)
def test_secrets_become_stars(text: str, clean: str) -> None:
    assert redact(text) == clean


def test_values_too_short_to_be_secrets_are_left() -> None:
    assert redact("no key", {"API_KEY": "no"}) == "no key"


def test_errors_come_without_them_and_travel() -> None:
    error = EngineDiedError(f"the log says {SECRET}")
    assert str(error) == "the log says ***"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_secrets_are_found_wherever_they_stand() -> None:
    value = {"a": [{"b": f"x{SECRET}"}, "http://u:p@h"], HUB_TOKEN: HUB_TOKEN, "fine": "text", "n": 5}
    assert list(secrets_in(value)) == [
        ("a[0].b", "the value of AWS_SECRET_ACCESS_KEY"),
        ("a[1]", "a user and a password"),
        ("***", "a key"),
    ]


def test_a_value_that_holds_itself_ends() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert list(secrets_in(loop)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"results": "s3://minio:hunter2hunter2@bucket/p"}, "results holds a user and a password"),
        ({"models": [f"https://{HUB_TOKEN}@hub/m"]}, "models[0] holds a key"),
        (
            {"models": [{"model": "m", "vllm": {"additional_config": [SECRET]}}]},
            "models[0].vllm.additional_config[0] holds",
        ),
        (
            {"models": [{"model": "m", "vllm": {"hf_token": "shortone"}}]},
            "hf_token is set by HF_TOKEN in the environment",
        ),
        ({"datasets": {"mirror": "s3://k:hunter2hunter2@b"}}, "datasets.mirror holds a user and a password"),
        ({"fleet": {"ray_address": "ray://u:hunter2hunter2@h:1"}}, "fleet.ray_address holds a user and a password"),
        (
            {"fleet": {"kuberay": {"image": "i", "env": {"MY_PASSWORD": "hunter2hunter2"}}}},
            "MY_PASSWORD looks like a secret",
        ),
        ({SECRET: 1, "name": f"n{SECRET}"}, "name holds the value of AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_a_spec_with_a_secret_is_refused_without_showing_it(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_spec({"name": "n", "models": ["m"], "benchmarks": ["b"], **changes})
    assert words in str(caught.value)
    for secret in (SECRET, HUB_TOKEN, "hunter2"):
        assert secret not in str(caught.value)


def test_log_records_are_made_without_them(caplog: pytest.LogCaptureFixture) -> None:
    redact_logs()
    redact_logs()
    log = logging.getLogger("some.library")
    with caplog.at_level(logging.WARNING):
        log.warning("key %s of %d", SECRET, 5)
        try:
            raise ValueError(f"http://user:{SECRET}@host")
        except ValueError:
            log.exception("it failed")
        log.warning("%d%% of nothing special", 5)
    assert "key *** of 5" in caplog.text
    assert "ValueError: http://***@host" in caplog.text
    assert "5% of nothing special" in caplog.text
    assert SECRET not in caplog.text


def test_logs_are_clean_wherever_flows_run() -> None:
    script = "import core.log, logging; logging.warning('a %s', 'b' * 20); print(logging.getLogRecordFactory().redacts)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"MY_SECRET": "b" * 20, "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\n"
    assert done.stderr == "WARNING:root:a ***\n"


def test_every_text_of_a_value_is_redacted_and_its_shape_stays() -> None:
    value = {"a": [f"x {SECRET}", ("y", HUB_TOKEN)], f"key {SECRET}": {"deep": SECRET}, "number": 1.5, "none": None}
    assert redact_all(value) == {
        "a": ["x ***", ("y", "***")],
        "key ***": {"deep": "***"},
        "number": 1.5,
        "none": None,
    }
    assert redact_all(SECRET, {"OTHER_TOKEN": "nothing"}) == SECRET
