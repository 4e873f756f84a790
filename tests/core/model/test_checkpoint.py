import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.model.checkpoint import Checkpoint, describe, read_checkpoint
from core.model.weight_files import Weights
from tests.checkpoints import CONFIG, write_checkpoint
from tests.core.real_configs import REAL, real, recorded


def test_facts_come_from_config_and_headers(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(str(write_checkpoint(tmp_path / "any-name")))
    assert (checkpoint.layers, checkpoint.attention_heads, checkpoint.kv_heads, checkpoint.head_dim) == (2, 4, 2, 16)
    assert (checkpoint.parameters, checkpoint.weight_bytes, checkpoint.dtype) == (256 * 64, 256 * 64 * 4, "float32")
    assert checkpoint.kv_bytes_per_token == 2 * 2 * 2 * 16 * 4
    assert checkpoint.context_window == 2048
    assert not checkpoint.has_chat_template


def test_the_same_files_elsewhere_are_the_same_checkpoint(tmp_path: Path) -> None:
    first = write_checkpoint(tmp_path / "a")
    shutil.copytree(first, tmp_path / "b")
    assert read_checkpoint(str(first)).identity == read_checkpoint(str(tmp_path / "b")).identity


def test_a_directory_of_links_is_the_checkpoint_that_they_lead_to(tmp_path: Path) -> None:
    first, links = write_checkpoint(tmp_path / "a"), tmp_path / "snapshot"
    links.mkdir()
    for file in first.iterdir():
        (links / file.name).symlink_to(file)
    found = read_checkpoint(str(links))
    assert replace(found, source=str(first)) == read_checkpoint(str(first))


def test_other_weights_of_one_shape_are_another_checkpoint(tmp_path: Path) -> None:
    first, second = (read_checkpoint(str(write_checkpoint(tmp_path / str(seed), seed))) for seed in (1, 2))
    assert first.identity != second.identity
    assert first.revision == f"sha256:{first.identity[:16]}"


@pytest.mark.parametrize("name", ["tokenizer.json", "generation_config.json", "chat_template.jinja"])
def test_what_shapes_prompts_is_part_of_the_identity(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path / "a")
    before = read_checkpoint(str(folder)).identity
    (folder / name).write_text("{}")
    assert read_checkpoint(str(folder)).identity != before


def test_notes_in_the_config_are_not_part_of_the_identity(tmp_path: Path) -> None:
    plain = write_checkpoint(tmp_path / "a")
    noted = write_checkpoint(tmp_path / "b", transformers_version="9.9", _name_or_path="/somewhere")
    assert read_checkpoint(str(plain)).identity == read_checkpoint(str(noted)).identity


def test_a_chat_template_is_found_in_either_place(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert read_checkpoint(str(folder)).has_chat_template


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_checkpoint(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_directory_is_refused_with_its_nearest_sibling(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "llama-70b")
    assert "did you mean 'llama-70b'" in refusal(tmp_path / "llama-7b")


def test_a_directory_without_config_is_refused(tmp_path: Path) -> None:
    assert "has no config.json" in refusal(tmp_path)


def test_a_config_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    assert "config.json is not JSON" in refusal(tmp_path)


def test_a_config_without_layers_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": None}))
    assert "config.json cannot be read by vLLM" in refusal(folder)
    assert "'num_hidden_layers' expected int" in refusal(folder)


def test_no_weights_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "model.safetensors").unlink()
    assert "has no weights" in refusal(folder)


def test_gguf_alone_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "model.safetensors").rename(folder / "model.gguf")
    assert "GGUF" in refusal(folder)


def test_a_shard_that_the_index_names_must_be_there(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "'model-00002.safetensors'" in refusal(folder)
    assert "1 of 2 shards" in refusal(folder)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "model.safetensors is cut off" in refusal(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01\x02",
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 4) + b"{{{{",
        struct.pack("<Q", 9) + b'{"a": 1}  ',
    ],
)
def test_a_header_that_cannot_be_one_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "model.safetensors").write_bytes(content)
    assert "model.safetensors is not a safetensors file" in refusal(folder)


@pytest.mark.parametrize("name", REAL)
def test_real_configurations(name: str) -> None:
    found = real(name)
    for field, value in REAL[name].facts.items():
        assert getattr(found, field) == value, field


def facts(**values: Any) -> Checkpoint:
    return describe(replace(recorded()["Llama-3.1-8B"], **values), Weights(1, 1, values.pop("dtype", None)), source="x")


def test_keys_and_values_are_as_wide_as_the_model_computes_unless_their_type_is_named() -> None:
    half = facts(dtype="bfloat16").kv_bytes_per_token
    assert facts(dtype="float32").kv_bytes_per_token == 2 * half
    assert facts(dtype="float32", kv_dtype="fp8").kv_bytes_per_token == half


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ({"layers": 0}, "config.json has no num_hidden_layers"),
        ({"hidden_size": 0}, "config.json has no hidden_size"),
        ({"attention_heads": 0}, "config.json has no num_attention_heads"),
    ],
)
def test_what_vllm_takes_for_nothing_is_refused(missing: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        facts(**missing)


def test_a_model_that_attends_to_nothing_needs_no_heads() -> None:
    assert facts(attention_heads=0, state_bytes=1).attention_heads == 0


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json", "chat_template.json"])
def test_what_a_processor_reads_is_part_of_the_identity(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path / "a")
    bare = read_checkpoint(str(folder))
    (folder / name).write_text("{}")
    seeing = read_checkpoint(str(folder))
    assert seeing.identity != bare.identity
    assert (bare.has_chat_template, seeing.has_chat_template) == (False, "template" in name)
    assert not seeing.multimodal  # its architecture takes text alone


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None], more: bytes = b"") -> None:
    """Change the header of the weights, and add bytes at their end."""
    file = folder / "model.safetensors"
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :] + more)


TENSOR = "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("change", "more", "words"),
    [
        (
            lambda header: header[TENSOR].update(dtype="BF16"),
            b"",
            f"the bytes of tensor '{TENSOR}' are not those of its shape",
        ),
        (
            lambda header: header[TENSOR].update(shape=[256, 63]),
            b"",
            "are not those of its shape and type F32; fetch it again",
        ),
        (lambda header: header[TENSOR].update(data_offsets=[4, 65540]), b"", "are not those of its shape"),
        (lambda header: None, b"....", "model.safetensors is 4 bytes longer than its header says; fetch it again"),
        (lambda header: header[TENSOR].update(data_offsets=["0", None]), b"", "is not a safetensors file"),
    ],
)
def test_weights_that_are_not_what_their_header_says_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], more: bytes, words: str
) -> None:
    folder = write_checkpoint(tmp_path / "a")
    rewritten(folder, change, more)
    assert words in refusal(folder)


def test_a_tensor_that_the_index_names_must_be_in_its_file(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    index = {"weight_map": {TENSOR: "model.safetensors", "lm_head.weight": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model.safetensors lacks tensor 'lm_head.weight', which model.safetensors.index.json says" in refusal(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ["model.safetensors"]}')
    assert "does not map tensors to files" in refusal(folder)


def test_a_shard_that_the_names_count_must_be_there(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00003.safetensors")
    assert "lacks 'model-00002-of-00003.safetensors'" in refusal(folder)
    assert "(2 of 3 shards missing)" in refusal(folder)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"torch_dtype": "bfloat17"}, "dtype = 'bfloat17': torch has no such type — did you mean 'bfloat16'?"),
        ({"rope_scaling": 5}, "config.json cannot be read by vLLM"),
        ({"text_config": "llama"}, "config.json cannot be read by vLLM"),
        ({"quantization_config": "awq"}, "config.json cannot be read by vLLM"),
        ({"hidden_size": "64"}, "config.json cannot be read by vLLM"),
        ({"num_attention_heads": 0}, "config.json cannot be read by vLLM"),
    ],
)
def test_a_config_of_odd_values_is_refused(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    assert words in refusal(write_checkpoint(tmp_path / "a", **config))
