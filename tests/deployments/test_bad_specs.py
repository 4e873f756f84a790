"""Wrong specs: one line that names field, value and fix, exit code 2, and nothing started. Fields are those of the models."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.strict import shown
from tests.deployments.bad_specs import FIELDS, placed, written

Run = Callable[..., tuple[int, str, str]]
FIX = re.compile(r"use |list at least |give one |drop |leave |add it|needs |did you mean")


@pytest.fixture
def base(campaign: Callable[..., str]) -> dict[str, Any]:
    """A campaign that is right, with an entry in every list."""
    spec: dict[str, Any] = yaml.safe_load(Path(campaign()).read_text())
    return {
        **spec,
        "models": [{"model": spec["models"][0], "name": "m"}],
        "benchmarks": [{"name": "steelyard_arithmetic", "judge": {"model": "m"}}],
        "fleet": {
            **spec["fleet"],
            "kuberay": {"image": "registry/steelyard:1", "claims": [{"name": "c", "path": "/c"}]},
        },
        "schedules": [{"cron": "0 2 * * *"}],
    }


@pytest.fixture
def refuse(steelyard: Run, tmp_path: Path) -> Callable[[dict[str, Any] | str], str]:
    """Have the command line refuse a spec (``plan`` or another ``command``); returns its one line."""

    def refused(spec: dict[str, Any] | str, command: str = "plan") -> str:
        path = tmp_path / "spec.yaml"
        path.write_text(spec if isinstance(spec, str) else yaml.dump(spec, Dumper=yaml.CSafeDumper), encoding="utf-8")
        code, out, err = steelyard(command, str(path))
        assert (code, out) == (2, ""), (spec, code, out, err)
        assert err.startswith("steelyard: ")
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        assert not (tmp_path / "results").exists()
        return err

    return refused


def test_the_base_is_right(steelyard: Run, base: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(base))
    assert steelyard("plan", str(tmp_path / "spec.yaml"))[0] == 0


def test_every_field_wrong_in_type_or_range_is_one_line_of_field_value_and_fix(
    base: dict[str, Any], refuse: Callable[..., str]
) -> None:
    assert len(FIELDS) > 400
    for where, value in FIELDS:
        line = refuse(placed(base, where, value))
        field = written(where)
        if isinstance(value, dict) and "no_such_field" in value:
            assert f"{field}: unknown field 'no_such_field'" in line, line
        else:
            assert f"{field} = {shown(value)}: " in line or f"{field} is missing" in line, line
        assert FIX.search(line), line


# What the fields' types cannot tell: (where, value, words of the line).
REFERENCES: list[tuple[tuple[str | int, ...], Any, str]] = [
    (("name",), "a/../b", "name = 'a/../b': use letters, digits"),
    (("models", 0, "model"), "/no/such/checkpoint", "model directory '/no/such/checkpoint' does not exist"),
    (("models", 0, "model"), "~nobody-here/m", "there is no such user"),
    (("models", 0, "model"), "a\0b", "use printable characters"),
    (("models", 0, "model"), "x" * 300, "it is too long"),
    (("models", 0, "model"), "org/model", "no such directory here"),
    (("models", 0, "name"), "../up", "models[0].name = '../up': use letters, digits"),
    (("models", 0, "system_prompt"), "Hi.", "system_prompt needs chat_template: true"),
    (("models", 0, "system_as_user"), True, "system_as_user needs chat_template: true"),
    (("models", 0, "chat_template"), True, "the checkpoint has none; set chat_template: false"),
    (("models", 0, "max_model_len"), 4096, "max_model_len = 4096: the checkpoint's window is 2,048 tokens"),
    (("models", 0, "tensor_parallel"), 3, "tensor_parallel = 3 does not divide"),
    (("models", 0, "pipeline_parallel"), 2, "vLLM has no pipeline parallel on CPUs; leave it out"),
    (
        ("models", 0, "vllm"),
        {"max_num_seq": 4},
        "vllm.max_num_seq = 4: vLLM has no such engine argument — did you mean 'max_num_seqs'",
    ),
    (
        ("models", 0, "vllm"),
        {"trust_remote_code": True},
        "trust_remote_code is set by the model's trust_remote_code: leave it out",
    ),
    (("models", 0, "vllm"), {"load_format": "Dummy"}, "makes random weights"),
    (("models", 0, "vllm"), {"load_format": "tensorizer"}, "would not be those of the checkpoint's files"),
    (("models", 0, "model"), "s3://models//base", "there is nothing between two of its '/'"),
    (("results",), "s3://evals//double//slash", "results = 's3://evals//double//slash': there is nothing between two"),
    (("models", 0, "stream_weights"), True, "stream_weights is for checkpoints on S3, and model = '"),
    (("models", 1), "b/m", "models: two entries are named 'm'; give each its own name"),
    (("benchmarks", 0, "name"), "steelyard_fact", "did you mean 'steelyard_facts'?"),
    (("benchmarks", 0, "name"), "no/such/folder", "no such folder"),
    (("benchmarks", 0, "name"), "none.yaml", "none.yaml"),
    (("benchmarks", 0, "judge"), "n", "benchmarks[0].judge.model = 'n': the judge is one of the campaign's models"),
    (("benchmarks", 0, "judge", "prompt"), "{{answer", "no Jinja2 template"),
    (("benchmarks", 0, "judge", "prompt"), "Rate it.", "write {{answer}} where it belongs"),
    (("benchmarks", 0, "judge", "verdict"), "([0-9]", "no regular expression"),
    (("benchmarks", 0, "judge", "verdict"), "[0-9]", "needs one group around the number"),
    (("benchmarks", 0, "judge", "low"), 10, "low = 10 must be less than high = 10"),
    (("benchmarks", 0), {"name": "math", "dataset_revision": "v1"}, "dataset_revision is one dataset's"),
    (
        ("datasets", "mirror"),
        "ftp://mirror",
        "datasets.mirror = 'ftp://mirror': use s3://bucket/prefix or a local directory",
    ),
    (("datasets", "mirror"), "/no/such/mirror", "/no/such/mirror"),
    (("fleet", "ray_address"), "head", "fleet.ray_address = 'head': use host:port"),
    (("fleet", "ray_address"), "head:6379", "give one of ray_address and kuberay"),
    (("fleet", "kuberay", "worker_memory"), "64 GB", "use a quantity of Kubernetes"),
    (("fleet", "kuberay", "namespace"), "Evals", "use a name of Kubernetes"),
    (("fleet", "kuberay", "env"), {"HF_TOKEN": "x"}, "HF_TOKEN looks like a secret"),
    (("fleet", "kuberay", "claims", 0, "path"), "models", "use an absolute path"),
    (("policy", "activation_headroom_gb"), 100, "GB headroom"),
    (("results",), "ftp://x", "results = 'ftp://x': use s3://bucket/prefix or a local path"),
    (("results",), "s3://", "s3:// needs a bucket"),
    (("results",), "s3://b/../c", "'..' cannot stand in a URI"),
    (("models", 0, "model"), "s3://b/../c", "'..' cannot stand in a URI"),
    (("models", 0, "model"), "https://hub/org/m", "use s3://bucket/prefix or a directory, or a name on the hub"),
    (("schedules", 0, "cron"), "every night", "schedules[0].cron = 'every night': "),
    (("schedules", 0, "cron"), "0 0 31 2 *", "0 0 31 2 *': failed to find next date"),
    (("schedules", 0, "timezone"), "Berlin", "did you mean 'Europe/Berlin'?"),
    (("schedules", 0, "rrule"), "FREQ=DAILY", "give one of cron, interval_seconds and rrule"),
    (("schedules", 0), {"rrule": "FREQ=SOMETIMES"}, "schedules[0].rrule = 'FREQ=SOMETIMES': "),
]


@pytest.mark.parametrize(("where", "value", "words"), REFERENCES, ids=lambda each: str(each)[:40])
def test_what_names_nothing_or_fits_nothing_is_one_line(
    base: dict[str, Any], refuse: Callable[..., str], where: tuple[str | int, ...], value: Any, words: str
) -> None:
    assert words in refuse(placed(base, where, value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a mapping of fields"),
        ("- a\n- b\n", "is not a mapping of fields"),
        ("name: a\nname: b\n", "at line 2, column 1: the field 'name' stands twice"),
        ("name: [\n", "is not YAML at line 2"),
        ("name: a\n  models: b\n", "is not YAML at line 2"),
        ("name: 2024-02-31\n", "put the value in quotes"),
        (f"seed: {'9' * 5000}\n", "put the value in quotes"),
        (f"name: {'[' * 5000}\n", "nested too deeply"),
        ("name: a\x07b\n", "is not YAML"),
        ("name: !!python/object/apply:os.system [id]\n", "is not YAML at line 1"),
        ("1: x\n", "unknown field '1'"),
        ("models: &a [*a]\n", "models[0] = [[...]]: use a mapping of its fields"),
        ("nmae: a\n", "unknown field 'nmae' — did you mean 'name'?"),
    ],
)
def test_a_file_that_is_no_spec_is_one_line(refuse: Callable[..., str], text: str, words: str) -> None:
    assert words in refuse(text)


ODD = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    [
        "..",
        "../..",
        "/",
        "//",
        "~",
        "~root",
        "s3://",
        "file://",
        "s3://a/../b",
        "C:\\x",
        "-",
        "None",
        "a/b/c",
        "a//b",
        "%2e%2e/x",
    ]
)
PLACES = [
    ("name",),
    ("models", 0, "model"),
    ("models", 0, "name"),
    ("models", 0, "revision"),
    ("benchmarks", 0, "name"),
    ("datasets", "mirror"),
    ("results",),
]


@settings(max_examples=12, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=ODD)
@pytest.mark.parametrize("where", PLACES, ids=written)
def test_no_text_is_more_than_one_line(
    steelyard: Run, base: dict[str, Any], tmp_path: Path, where: tuple[str | int, ...], text: str
) -> None:
    spec = {**base, "schedules": []}
    (tmp_path / "spec.yaml").write_text(yaml.dump(placed(spec, where, text), Dumper=yaml.CSafeDumper), encoding="utf-8")
    code, out, err = steelyard("plan", str(tmp_path / "spec.yaml"))
    assert (code, err) == (0, "") or (code, out, err.count("\n")) == (2, "", 1), (text, out, err)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("name",), 5),
        (("models", 0, "model"), "/no/such/checkpoint"),
        (("benchmarks", 0, "limit"), "all"),
        (("results",), "x"),
    ],
    ids=lambda each: str(each)[:30],
)
def test_run_in_a_process_of_its_own_starts_nothing(
    base: dict[str, Any], tmp_path: Path, where: tuple[str | int, ...], value: Any
) -> None:
    (tmp_path / "x").write_text("a file where results should go")
    home = tmp_path / "prefect"
    spec = placed({**base, "schedules": []}, where, value)
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    done = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "run", "spec.yaml"],
        cwd=tmp_path,
        env={**os.environ, "PREFECT_HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert written(where).split(".")[-1] in done.stderr or str(value) in done.stderr
    assert not list(home.glob("*.db")), "Prefect's server makes its database when it starts"
    assert not (tmp_path / "results").exists()
