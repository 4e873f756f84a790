"""The command line in process: exit codes, one line for bad input, and what is printed. Nothing here starts an engine."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.monitor.timeline import Span
from core.results import open_store
from core.sample import Scoring
from deployments.local_s3 import S3Server
from tests.checkpoints import write_checkpoint
from tests.core.store_parts import METADATA, make_cell, make_scoring


def test_bad_input_is_one_line_and_exit_2(
    steelyard: Callable[..., tuple[int, str, str]], campaign: Callable[..., str], tmp_path: Path
) -> None:
    corrupt = write_checkpoint(tmp_path / "corrupt")
    (corrupt / "model.safetensors").write_bytes(b"\xff" * 64)
    good = str(tmp_path / "checkpoint")
    for changes, words in (
        ({"benchmarks": ["steelyard_fact"]}, "did you mean 'steelyard_facts'"),
        ({"models": [str(tmp_path / "chekpoint")]}, "did you mean 'checkpoint'"),
        ({"models": [str(corrupt)]}, "model.safetensors is not a safetensors file"),
        ({"models": [{"model": good, "tensor_parallel": 3}]}, "does not divide 4 attention and 2 key/value heads"),
        ({"benchmarks": [{"name": "steelyard_facts", "limit": -1}]}, "benchmarks[0].limit = -1"),
        ({"models": [good, {"model": good}]}, "two entries are named 'checkpoint'"),
        ({"fleet": {"gpus": 1, "gpu_memory_gb": 1, "device": "cpu"}}, "GB headroom"),
    ):
        code, out, err = steelyard("run", campaign(**changes))
        assert (code, out) == (2, ""), changes
        assert words in err
        assert err.count("\n") == 1, err


def test_a_spec_that_is_not_yaml_is_one_line(steelyard: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    path = tmp_path / "campaign.yaml"
    path.write_text("models: [a\nname: {")
    code, _, err = steelyard("run", str(path))
    assert code == 2
    assert "is not YAML at line" in err
    assert err.count("\n") == 1


def test_an_s3_that_does_not_answer_is_one_line(
    steelyard: Callable[..., tuple[int, str, str]], campaign: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    code, _, err = steelyard("run", campaign(results="s3://bucket/prefix"))
    assert code == 2
    assert "s3://bucket/prefix" in err
    assert err.count("\n") == 1


@pytest.mark.s3
def test_a_wrong_s3_key_is_one_line_and_not_in_it(
    steelyard: Callable[..., tuple[int, str, str]],
    campaign: Callable[..., str],
    s3_root: str,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    code, _, err = steelyard("run", campaign(results=s3_root))
    assert code == 2
    assert err.count("\n") == 1
    assert "not-the-secret" not in err


def test_plan_shows_placements_with_reasons(
    steelyard: Callable[..., tuple[int, str, str]], campaign: Callable[..., str]
) -> None:
    code, out, _ = steelyard("plan", campaign())
    assert code == 0
    assert "lightweight" in out
    assert "fit one GPU" in out


def test_models_shows_what_a_checkpoint_is(steelyard: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, _ = steelyard("models", str(write_checkpoint(tmp_path / "m")), "--gpus", "2", "--gpu-memory-gb", "8")
    assert code == 0
    for fact in ("LlamaForCausalLM", "4 attention, 2 key/value", "bytes per token", "2,048 tokens", "would run"):
        assert fact in out


def test_results_of_an_unknown_campaign_are_refused(
    steelyard: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, _, err = steelyard("results", str(tmp_path), "--campaign", "nightly")
    assert code == 2
    assert "no campaign 'nightly'" in err


def test_an_unknown_format_is_refused(steelyard: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, _, err = steelyard("results", str(tmp_path), "--format", "excel")
    assert code == 2
    assert "'excel'" in err


def test_json_results_are_lines_of_json(steelyard: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, _ = steelyard("results", str(tmp_path), "--format", "json")
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == []


@pytest.fixture
def filled(tmp_path: Path) -> str:
    """A store where one model answers every doc and the other none; returns its path."""
    store = open_store(str(tmp_path / "filled"))
    for model, letter, value in (("best", "a", 1.0), ("poor", "b", 0.0)):
        store.commit(make_cell(letter, model), make_scoring(docs=20, value=value), METADATA)
        store.commit(make_cell({"a": "c", "b": "d"}[letter], model, "prose"), unscored(), METADATA)
    return store.uri


def unscored() -> Scoring:
    scoring = make_scoring()
    return replace(scoring, samples=tuple(replace(sample, value=None) for sample in scoring.samples))


def test_results_show_intervals_and_letters(steelyard: Callable[..., tuple[int, str, str]], filled: str) -> None:
    code, out, _ = steelyard("results", filled)
    assert code == 0
    assert "1.0000 │ [0.8389, 1.0000] │ a " in out
    assert "0.0000 │ [0.0000, 0.1611] │ b " in out
    assert "1.0000 ± 0.1000 │" in out  # prose has no values per doc


def test_pairs_are_shown_and_what_cannot_be_compared_is_named(
    steelyard: Callable[..., tuple[int, str, str]], filled: str
) -> None:
    code, out, _ = steelyard("results", filled, "--pairs")
    assert code == 0
    assert "+1.0000" in out
    assert "McNemar" in out
    assert "Not compared, for a score is not a mean of values per doc: prose" in out


def test_pairs_come_in_every_format(steelyard: Callable[..., tuple[int, str, str]], filled: str) -> None:
    (line,) = steelyard("results", filled, "--pairs", "--format", "json")[1].splitlines()
    row = json.loads(line)
    assert (row["model_a"], row["model_b"], row["docs"], row["wins"]) == ("best", "poor", 20, 20)
    assert row["p"] == pytest.approx(2 / 2**20, abs=1e-12)
    assert (
        steelyard("results", filled, "--pairs", "--format", "csv")[1]
        .splitlines()[0]
        .startswith("benchmark,metric,model_a,")
    )
    assert "| **+1.0000** |" in steelyard("results", filled, "--pairs", "--format", "markdown")[1]


def test_pairs_of_an_empty_store_are_no_error(steelyard: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, _ = steelyard("results", str(tmp_path), "--pairs")
    assert (code, out.startswith("No complete results in ")) == (0, True)


def test_a_timeline_is_shown_of_each_campaigns_newest_run(
    steelyard: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    store = open_store(str(tmp_path))
    assert "No timeline in" in steelyard("results", str(tmp_path), "--timeline")[1]
    for name, model in (("nightly", "tiny"), ("weekly", "large")):
        store.write_campaign({"campaign": name, "run": "r1"})
        phases = (("load", 0.0, 4.0), ("generate", 4.0, 8.0))
        store.write_timeline(name, "r1", [Span(model, "benchmarks", "lightweight", p, "", s, e) for p, s, e in phases])
    _, out, _ = steelyard("results", str(tmp_path), "--timeline")
    assert all(word in out for word in ("nightly: 8 s", "weekly: 8 s", "tiny", "large", "50%"))
    _, out, _ = steelyard("results", str(tmp_path), "--timeline", "--campaign", "weekly", "--format", "json")
    assert [(json.loads(row)["phase"], json.loads(row)["end"]) for row in out.splitlines()] == [
        ("load", 4.0),
        ("generate", 8.0),
    ]
    code, _, err = steelyard("results", str(tmp_path), "--timeline", "--format", "jsn")
    assert (code, "did you mean 'json'" in err) == (2, True)


@pytest.mark.parametrize("command", ["run", "plan", "status", "results", "rescore", "simulate"])
def test_an_endpoint_without_its_scheme_is_one_line_of_every_command(
    command: str,
    steelyard: Callable[..., tuple[int, str, str]],
    campaign: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9000")
    code, out, err = steelyard(command, campaign(results="s3://evals/x"))
    assert (code, out) == (2, "")
    assert err == "steelyard: AWS_ENDPOINT_URL = '127.0.0.1:9000': write http:// or https:// before it\n"


def test_plan_is_refused_for_missing_keys_as_a_run_would_be(
    steelyard: Callable[..., tuple[int, str, str]],
    campaign: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "none-of-this-name")
    code, out, err = steelyard("plan", campaign(results="s3://evals/x"))
    assert (code, out) == (2, "")
    assert "AWS_PROFILE = 'none-of-this-name': no such profile" in err
