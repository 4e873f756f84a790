"""Places that cannot be are refused where they are named, before anything is asked of them."""

from __future__ import annotations

import pytest

from core.errors import StoreKeysError, UserError
from core.model.checkpoint import read_checkpoint
from core.results import open_store
from core.storage.open import open_filesystem, open_storage
from core.storage.s3 import check_endpoint


@pytest.mark.parametrize("uri", ["s3://evals//double//slash", "s3://evals//x", "s3:///x", "s3://", "s3://evals/../x"])
def test_a_uri_with_an_empty_part_names_no_place(uri: str) -> None:
    for opened in (open_storage, open_filesystem):
        with pytest.raises(UserError, match=f"^'{uri}': "):
            opened(uri)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("127.0.0.1:9000", "write http:// or https:// before it"),
        ("localhost", "write http:// or https:// before it"),
        ("s3://minio:9000", "use http://host:port or https://host:port"),
        ("http://", "use http://host:port"),
        ("http://minio:port", "use http://host:port"),
        ("http://minio:99999", "use http://host:port"),
        ("http://mi nio", "use http://host:port"),
    ],
)
@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_endpoint_that_is_no_url_is_named(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv(variable, value)
    for opened in (open_store, open_filesystem, read_checkpoint):
        with pytest.raises(UserError) as refused:
            opened("s3://evals/x")
        assert str(refused.value).startswith(f"{variable} = '{value}': {words}")


def test_an_endpoint_that_is_a_url_is_taken() -> None:
    for value in (
        "",
        "http://127.0.0.1:9000",
        "https://s3.example.org",
        "https://example.org/storage/",
        "http://[::1]:9000",
    ):
        check_endpoint({"AWS_ENDPOINT_URL": value})


@pytest.fixture
def keyless(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    none = str(tmp_path_factory.getbasetemp() / "none")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, none)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody is asked


@pytest.mark.usefixtures("keyless")
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "a"}, "no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        (
            {"AWS_PROFILE": "lab"},
            "AWS_PROFILE = 'lab': no such profile in the AWS config files: correct it, or unset it",
        ),
    ],
)
def test_missing_keys_are_named_alike_for_models_and_results(
    variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as refused:
        read_checkpoint("s3://models/base")
    assert str(refused.value) == f"model 's3://models/base': {words}"
    with pytest.raises(StoreKeysError) as refused:
        open_store("s3://evals/x").check()
    assert str(refused.value) == f"results 's3://evals/x': {words}"
