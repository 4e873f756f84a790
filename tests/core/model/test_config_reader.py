"""vLLM's reading of configs: right, once for each, and without a checkpoint's code unless it is trusted."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.model import config_reader
from core.model.checkpoint import read_checkpoint
from core.model.config_facts import ConfigFacts
from core.model.config_reader import COMMAND, child_environment, fault_line, read_config
from core.model.files import open_files
from tests.checkpoints import write_checkpoint
from tests.core.real_configs import read_all, recorded


def test_what_is_written_down_is_what_vllm_reads() -> None:
    assert read_all() == recorded()


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this user."""
    monkeypatch.setenv("STEELYARD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "configs"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the child is asked, while it is."""
    requests: list[Any] = []
    ask = config_reader._asked

    def counted(request: Any) -> dict[str, Any]:
        requests.append(request)
        return ask(request)

    monkeypatch.setattr(config_reader, "_asked", counted)
    return requests


def read(folder: Path, **arguments: Any) -> ConfigFacts:
    return read_config(open_files(str(folder), None), arguments)


def test_a_config_is_read_once_wherever_it_lies_and_anew_when_it_changes(
    tmp_path: Path, cold: Path, asked: list[Any]
) -> None:
    first = read(write_checkpoint(tmp_path / "a"))
    assert read(write_checkpoint(tmp_path / "b", seed=1)) == first
    assert len(asked) == 1
    assert cold.stat().st_mode & 0o777 == 0o700
    assert read(write_checkpoint(tmp_path / "c", num_hidden_layers=7)).layers == 7
    assert read(tmp_path / "a", hf_overrides={"num_hidden_layers": 3}).layers == 3
    assert read(tmp_path / "a", kv_cache_dtype="fp8").kv_bytes * 2 == first.kv_bytes
    assert read(tmp_path / "a", hf_overrides={"max_position_embeddings": 8192}).window == 8192
    assert len(asked) == 5


@pytest.mark.parametrize("damage", ["", "{", '{"digest": "", "facts": {}}', "swap"])
def test_an_answer_that_is_not_whole_is_asked_for_again(
    tmp_path: Path, cold: Path, asked: list[Any], damage: str
) -> None:
    first = read(write_checkpoint(tmp_path / "a"))
    (kept,) = cold.iterdir()
    kept.write_text(kept.read_text().replace('"layers": 2', '"layers": 3') if damage == "swap" else damage)
    assert read(tmp_path / "a") == first
    assert len(asked) == 2
    assert json.loads(kept.read_text())["facts"]["layers"] == 2


def test_a_cache_that_others_may_write_to_is_not_believed(tmp_path: Path, cold: Path, asked: list[Any]) -> None:
    read(write_checkpoint(tmp_path / "a"))
    cold.chmod(0o777)
    read(tmp_path / "a")
    assert len(asked) == 2


def test_many_configs_are_read_by_one_process(tmp_path: Path, cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Counted(config_reader._Child):
        def __init__(self) -> None:
            started.append(1)
            super().__init__()

    monkeypatch.setattr(config_reader, "_Child", Counted)
    for layers in range(1, 13):
        assert read_checkpoint(str(write_checkpoint(tmp_path / str(layers), num_hidden_layers=layers))).layers == layers
    assert len(started) <= 1  # none where an earlier test's is there still


CODE = """
from pathlib import Path
from transformers import LlamaConfig
Path({marker!r}).write_text("ran")
class MineConfig(LlamaConfig):
    model_type = "mine"
"""


def write_code(folder: Path, marker: Path) -> Path:
    write_checkpoint(folder, model_type="mine", auto_map={"AutoConfig": "configuration_mine.MineConfig"})
    (folder / "configuration_mine.py").write_text(CODE.format(marker=str(marker)))
    return folder


def test_a_checkpoint_s_code_runs_with_trust_remote_code_alone(tmp_path: Path, cold: Path) -> None:
    marker = tmp_path / "marker"
    folder = write_code(tmp_path / "mine", marker)
    with pytest.raises(UserError, match="brings its own config code: set trust_remote_code: true to run it"):
        read_checkpoint(str(folder))
    assert not marker.exists()
    assert read_checkpoint(str(folder), trust_remote_code=True).layers == 2
    assert marker.read_text() == "ran"


def test_code_that_ends_its_process_ends_no_other(tmp_path: Path, cold: Path) -> None:
    folder = write_code(tmp_path / "mine", tmp_path / "marker")
    with (folder / "configuration_mine.py").open("a") as file:
        file.write("import os; os._exit(3)\n")
    with pytest.raises(UserError, match="the checkpoint's code ended the process"):
        read_checkpoint(str(folder), trust_remote_code=True)
    assert read(write_checkpoint(tmp_path / "other")).layers == 2


def test_of_a_model_of_its_own_nothing_runs_either(tmp_path: Path, cold: Path) -> None:
    marker = tmp_path / "marker"
    folder = write_code(tmp_path / "mine", marker)
    config = json.loads((folder / "config.json").read_text())
    mapped = {"AutoModelForCausalLM": "configuration_mine.MineConfig"}
    (folder / "config.json").write_text(
        json.dumps({**config, "model_type": "llama", "architectures": ["MineForCausalLM"], "auto_map": mapped})
    )
    with pytest.raises(UserError, match="config.json"):
        read_checkpoint(str(folder))
    assert not marker.exists()


def test_what_lies_about_is_not_imported(tmp_path: Path) -> None:
    """A checkpoint's folder may hold a module of any name, and a person may stand in it."""
    (tmp_path / "warnings.py").write_text("open('marker', 'w')")
    (tmp_path / "select.py").write_text("open('marker', 'w')")
    done = subprocess.run(COMMAND, cwd=tmp_path, input=b"", capture_output=True, env=child_environment(), check=True)
    assert (done.stdout, (tmp_path / "marker").exists()) == (b"", False)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "no_such_kind"}, "config.json: model_type is none that transformers"),
        (
            {"architectures": ["NoSuchForCausalLM"]},
            "config.json: architectures = ['NoSuchForCausalLM']: not one of vLLM's 0.32",
        ),
    ],
)
def test_a_config_that_vllm_does_not_know_is_refused_in_a_line(
    tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        read_checkpoint(str(write_checkpoint(tmp_path / "a", **config)))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_child_ends_with_whoever_asks_even_while_it_imports() -> None:
    child = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, env=child_environment())
    assert child.stdin is not None
    child.stdin.write(b'{"folder": "/", "arguments": {}, "trust_remote_code": false}\n')
    child.stdin.close()
    assert child.wait(timeout=5) == 0


def test_a_long_fault_is_cut() -> None:
    assert len(fault_line("m", "config.json", "ValueError", "x" * 9999)) < 400


def test_mistral_s_own_format_is_read(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "native")
    (folder / "config.json").unlink()
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    params = {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "hidden_dim": 128}
    (folder / "params.json").write_text(
        json.dumps({**params, "vocab_size": 128, "norm_eps": 1e-5, "max_seq_len": 4096})
    )
    found = read(folder)
    assert (found.layers, found.attention_heads, found.kv_heads, found.head_dim) == (2, 4, 2, 16)
    assert found.architecture == "MistralForCausalLM"


def test_without_vllm_a_person_is_told(tmp_path: Path, cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_reader, "vllm_version", lambda: None)
    with pytest.raises(UserError, match="read by vLLM, which is not installed"):
        read(write_checkpoint(tmp_path / "a"))
