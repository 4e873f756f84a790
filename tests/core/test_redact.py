"""Secrets taken out of texts, logs and errors, and found in specs."""

from __future__ import annotations

import json
import logging
import pickle
import re
import subprocess
import sys
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

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
        "GITHUB_PAT",
        "DB_PASS",
        "MYSQL_PWD",
        "SENTRY_DSN",
        "AZURE_STORAGE_CONNECTION_STRING",
        "DB_CONNSTR",
        "API_KEY_OPENAI",
        "API_KEYS",
        "SECRET_KEY_BASE",
        "HF_TOKEN_2",
        "SLACK_WEBHOOK_URL",
        "TEAMS_WEBHOOK",
    ],
)
def test_variables_that_hold_a_secret_are_known_by_name(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "TOKENIZERS_PARALLELISM",
        "AWS_SHARED_CREDENTIALS_FILE",
        "RAY_AUTH_TOKEN_PATH",
        "API_KEY_FILE",
        "API_KEY_OPENAI_PATH",
        "PATH",
        "PWD",
        "OLDPWD",
        "SSH_ASKPASS",
        "COMPASS",
        "MAX_TOKENS",
        "KEYBOARD_LAYOUT",
    ],
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
        ("https://TOKEN@host/x", "https://***@host/x"),
        (r'{"url": "https:\/\/user:hunter2@host\/x"}', r'{"url": "https:\/\/***@host\/x"}'),
        ("http://user:p@ss:w@host/x", "http://***@host/x"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
        ("'authorization': 'Bearer a1b2c3d4e5'", "'authorization': 'Bearer ***'"),
        ("https://hooks.slack.com/services/T0/B0/XX see", "https://hooks.slack.com/services/*** see"),
        ("https://discord.com/api/webhooks/123/aBc-d", "https://discord.com/api/webhooks/***"),
        ("https://x.webhook.office.com/webhookb2/a@b/IncomingWebhook/c", "https://x.webhook.office.com/webhook***"),
        ("https://p.logic.azure.com:443/workflows/ab/x?sig=c", "https://p.logic.azure.com:443/workflows/***"),
        (f'aws_secret_access_key = "{"wJalrXUt/+" * 4}"', 'aws_secret_access_key = "***"'),
        ("AccountName=x;AccountKey=" + "aB3+" * 22 + "==;E=1", "AccountName=x;AccountKey=***;E=1"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nend", "***\nend"),
        (r"key -----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl", "key ***"),
        ("s3://bucket/prefix at http://host:9000", "s3://bucket/prefix at http://host:9000"),
        ("git@host:org/repo, mail user@host", "git@host:org/repo, mail user@host"),
    ],
)
def test_secrets_become_stars(text: str, clean: str) -> None:
    assert redact(text) == clean


KEYS = [
    "sk-" + "aB3d" * 12,
    "sk-proj-" + "aB3d_-" * 20,
    "sk-ant-api03-" + "aB3d" * 20,
    "sk-or-v1-" + "ab12" * 16,
    "sk-" + "a" * 40,
    "ghp_" + "aB3d" * 9,
    "gho_" + "aB3d" * 9,
    "github_pat_" + "aB3d" * 5 + "_" + "aB3d" * 14,
    "glpat-" + "aB3d-" * 4,
    "glpat-" + "aB3d" * 8 + ".01.0a1b2c3d4",
    "xoxb-123456789012-123456789012-aBcDeFgHiJkLmNoPqRsTuVwX",
    "xoxp-1234567890-abcdef",
    "xapp-1-A0123456789-123456-abcdef",
    "AIza" + "aB3d-" * 7,
    "ASIA" + "ABCDEFGH12345678",
    "npm_" + "aB3d" * 9,
    "sk_live_" + "aB3d" * 6,
    "nvapi-" + "aB3d_" * 12,
    "dapi" + "ab12" * 8,
    "hvs." + "aB3d" * 20,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN",
    HUB_TOKEN,
]


@pytest.mark.parametrize("key", KEYS)
def test_keys_of_known_services_are_hidden_wherever_they_stand(key: str) -> None:
    assert redact(f"key={key}, again '{key}'") == "key=***, again '***'"
    assert redact(json.dumps({"key": key})) == '{"key": "***"}'
    with pytest.raises(UserError, match=r"models\[0\]\.vllm\.x holds a key") as caught:
        load_spec({"name": "n", "models": [{"model": "m", "vllm": {"x": key}}], "benchmarks": ["b"]})
    assert key not in str(caught.value)


ORDINARY = [
    "meta-llama/Llama-3.1-8B-Instruct",
    "mistralai/Mixtral-8x22B-Instruct-v0.1@sha256:" + "ab12" * 16,
    "task-sk-learn-based-classification-with-many-words-2024-8b",
    "sk-learn-contrib/sk-llama-3-70b-instruct-2024-long-name",
    "hf_models/hf_cache/models--org--name/snapshots/0123456789abcdef0123456789abcdef01234567",
    "AKIA is a prefix, xoxb- too; ghp_ and glpat-short",
    "9b2f7c1e-6f5d-4c0a-8f4e-0a1b2c3d4e5f",
    "s3://evals/AccountKey/secret_key=short",
    "abfs://container@account.dfs.core.windows.net/path",
    "git@host:org/repo and ssh://git@host/org/repo",
    "https://medium.com/@author/post?mail=a@b",
    "Basic knowledge of chemistry; Basic Statistics1",
    "Authorization: Bearer is a scheme; authorization: required",
    "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
    "-----BEGIN PUBLIC KEY-----\nMIIE",
    "https://discord.com/channels/1/2 and https://hooks.example.com/x",
    "data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUg" * 40,
    "leaderboard_gpqa_diamond mmlu_pro_computer_science winogrande arc_challenge (25-shot)",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_names_hashes_paths_and_prose_are_no_secrets(text: str) -> None:
    assert redact(text) == text
    assert list(secrets_in({"a": text})) == []


def test_no_page_example_or_bundled_task_of_ours_holds_a_secret() -> None:
    root = Path(__file__).parents[2]
    files = [path for each in ("docs", "examples", "core") for path in (root / each).rglob("*")]
    texts = [path.read_text(encoding="utf-8") for path in files if path.suffix in (".md", ".yaml", ".jsonl", ".py")]
    assert len(texts) > 150
    assert [text for text in texts if redact(text, {}) != text] == []


ODD = 'p@ss w/ör"d\\x+=\n😀1'


@pytest.mark.parametrize(
    "encode",
    [
        str,
        quote,
        lambda text: quote(text, safe=""),
        quote_plus,
        lambda text: re.sub("%..", lambda found: found[0].lower(), quote(text, safe="")),
        lambda text: quote(quote(text)),
        json.dumps,
        lambda text: json.dumps(text, ensure_ascii=False),
        lambda text: json.dumps(json.dumps({"a": text})),
        lambda text: json.dumps(text).replace("/", r"\/"),
        repr,
        lambda text: repr(text.encode()),
        lambda text: b64encode(text.encode()).decode(),
        lambda text: b64encode(f"user:{text}".encode()).decode(),
        lambda text: b64encode(f"user1:{text}".encode()).decode(),
        lambda text: b64encode(f"user12:{text}, more".encode()).decode(),
        lambda text: urlsafe_b64encode(f"user:{text}".encode()).decode(),
    ],
)
@pytest.mark.parametrize("value", [ODD, f'"{ODD}', SECRET, "tokenwithletters"])
def test_a_value_is_found_however_it_is_encoded(value: str, encode: Callable[[str], str]) -> None:
    environment = {"DB_PASS": value}
    shown = redact(f"before {encode(value)} after", environment)
    assert re.fullmatch(r"""before (?:b?(?:\\?["'])*(?:\{\\"a\\": \\")?)\*\*\*(?:(?:\\?["'])*\}?"?) after""", shown), (
        shown
    )


@pytest.mark.parametrize("before", ["\\", "%", "x", "\\\\"])
def test_a_value_is_found_whatever_stands_before_it(before: str) -> None:
    for value in ("p@ssword", "@password"):
        for text in (value, quote(value)):
            assert "ssword" not in redact(before + text, {"DB_PASS": value})


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text", ["\\" * 10**6 + "ord", "_eyJ" * 250_000, "authorization: bearer aaaaaaaaaa " * 30_000, "a://a:" * 10**5]
)
def test_no_text_is_looked_through_again_and_again(text: str) -> None:
    """Quadratic patterns take hours here."""
    assert redact(text, {"DB_PASS": '"\\p@ss" w/ord'}) == text


def test_the_password_in_a_secret_value_is_hidden_alone_too() -> None:
    environment = {
        "PREFECT_API_AUTH_STRING": "admin:correct horse",
        "MAIN_DSN": "postgresql://u:q%40werty9999@h/db",
        "AZ_CONNECTION_STRING": "AccountName=x;AccountKey=abcdEFGH1234+/==;E=1",
        "CACHE_KEY": "steelyard:leaderboards",
    }
    text = "correct horse, q@werty9999, q%40werty9999, abcdEFGH1234+/==, admin, leaderboards"
    assert redact(text, environment) == "***, ***, ***, ***, admin, leaderboards"


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
        ({"models": ["https://TOKENTOKEN@host/m"]}, "models[0] holds a login"),
        (
            {"models": [{"model": "m", "vllm": {"x": "https://hooks.slack.com/services/hunter2"}}]},
            "models[0].vllm.x holds a webhook's address",
        ),
        (
            {"models": [{"model": "m", "vllm": {"x": "-----BEGIN PRIVATE KEY-----\nhunter2"}}]},
            "models[0].vllm.x holds a private key",
        ),
        (
            {"models": [{"model": "m", "vllm": {"x": b64encode(f"u:{SECRET}".encode()).decode()}}]},
            "models[0].vllm.x holds the value of AWS_SECRET_ACCESS_KEY",
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
