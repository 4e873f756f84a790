"""Folders that people name and that are no plain checkpoint: each is told what to do."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from core.errors import UserError
from core.model.checkpoint import read_checkpoint
from tests.checkpoints import write_checkpoint

ADAPTER = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "/data/base", "r": 8})


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as refused:
        read_checkpoint(str(folder))
    assert "\n" not in str(refused.value)
    return str(refused.value).removeprefix(f"'{folder}'")


@pytest.mark.parametrize("beside", [(), ("config.json",), ("optimizer.pt", "training_args.bin", "rng_state.pth")])
@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_an_adapter_names_its_base(tmp_path: Path, ending: str, beside: tuple[str, ...]) -> None:
    for name in (f"adapter_model.{ending}", *beside):
        (tmp_path / name).write_text("{}")
    assert "is an adapter of another model: merge it into its base first" in refusal(tmp_path)
    (tmp_path / "adapter_config.json").write_text(ADAPTER)
    assert refusal(tmp_path).startswith(" is an adapter of '/data/base': merge it into its base first")


def test_an_adapter_beside_weights_is_loaded_with_them(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "adapter_config.json").write_text(ADAPTER)
    merged = read_checkpoint(str(folder)).identity
    shutil.copy(folder / "model.safetensors", folder / "adapter_model.safetensors")
    assert "vLLM would load adapter_model.safetensors with the other weights" in refusal(folder)
    index = {"weight_map": {"model.embed_tokens.weight": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_checkpoint(str(folder)).identity == merged


def test_a_trainer_s_folder_names_its_checkpoints_the_last_first(tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text("{}")
    for step in (500, 1000, 60):
        write_checkpoint(tmp_path / f"checkpoint-{step}")
    assert refusal(tmp_path) == (
        " has no config.json, its folder checkpoint-1000 has: name checkpoint-1000 itself (or checkpoint-500, checkpoint-60)"
    )


def test_a_repository_of_the_hub_s_cache_names_its_snapshot(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "models--a--b" / "snapshots" / "0123")
    assert "name snapshots/0123 itself" in refusal(tmp_path / "models--a--b")


def test_an_index_left_behind_is_to_be_deleted(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    parts = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("wb", parts, strict=True))})
    )
    assert refusal(folder) == (
        f": model.safetensors.index.json names '{parts[0]}', and none of its 2 files is here: delete "
        "model.safetensors.index.json if model.safetensors is the whole checkpoint, or else fetch it again"
    )
    shutil.copy(folder / "model.safetensors", folder / parts[0])
    assert "(1 of 2 shards missing): fetch the checkpoint again" in refusal(folder)


def test_an_index_of_bin_files_left_behind_is_no_matter(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    plain = read_checkpoint(str(folder)).identity
    (folder / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": {"w": "pytorch_model-00001-of-00002.bin"}})
    )
    assert read_checkpoint(str(folder)).identity == plain


def test_a_missing_bin_file_is_missed(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "model.safetensors").rename(folder / "first.bin")
    (folder / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": {"w": "first.bin", "b": "second.bin"}})
    )
    assert "lacks 'second.bin', named in pytorch_model.bin.index.json" in refusal(folder)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("model-Q8_0.gguf", "only GGUF: convert it to safetensors first"),
        ("tf_model.h5", "only TensorFlow's format: convert it"),
        ("consolidated.00.pth", "only Meta's format (.pth): convert it"),
        ("weights.npz", "only MLX's format: convert it"),
        ("zero_to_fp32.py", "in DeepSpeed's parts; run its zero_to_fp32.py first"),
        ("README.md", "has no weights (*.safetensors, *.bin or *.pt): fetch the checkpoint again"),
    ],
)
def test_weights_of_another_kind_are_named(tmp_path: Path, file: str, words: str) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "model.safetensors").rename(folder / file)
    assert words in refusal(folder)


def test_mistral_s_weights_in_a_folder_below_are_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "original").mkdir()
    shutil.copy(folder / "model.safetensors", folder / "original" / "consolidated.safetensors")
    assert "original/consolidated.safetensors has vLLM look for Mistral's format" in refusal(folder)
    assert read_checkpoint(str(folder), arguments={"load_format": "hf"}).weight_files == ("model.safetensors",)


@pytest.mark.parametrize(
    ("load_format", "words"),
    [
        ("pt", "has no weights (*.pt), for which vllm.load_format = 'pt' looks: leave that out"),
        ("tensorizer", "vllm.load_format = 'tensorizer': the weights would not be those of the checkpoint's files"),
        ("safetensor", "it cannot be known which files it loads — did you mean 'safetensors'?"),
    ],
)
def test_a_load_format_that_cannot_be_followed_is_refused(tmp_path: Path, load_format: str, words: str) -> None:
    folder = write_checkpoint(tmp_path / "a")
    with pytest.raises(UserError) as refused:
        read_checkpoint(str(folder), arguments={"load_format": load_format})
    assert words in str(refused.value)


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    for name in ("model.safetensors", "pytorch_model.bin"):
        (folder / "model.safetensors").unlink(missing_ok=True)
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
        assert f"{name} is a pointer of Git LFS, not the file: run git lfs pull there" in refusal(folder)


def test_a_file_of_torch_s_that_is_cut_off_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "model.safetensors").unlink()
    file = folder / "pytorch_model.bin"
    with zipfile.ZipFile(file, "w") as archive:  # as torch.save writes it
        archive.writestr("archive/data.pkl", b"1" * 1000)
    assert read_checkpoint(str(folder)).weight_bytes == file.stat().st_size
    file.write_bytes(file.read_bytes()[:-100])
    assert "pytorch_model.bin is cut off" in refusal(folder)


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "model-2.safetensors").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"cannot be read: .*/a/model-2\.safetensors: No such file"):
        read_checkpoint(str(folder))
