from pathlib import Path

import pytest

from core.errors import UserError
from core.planning.schedule.fleet_file import NodeGroup, load_fleet, nodes_of


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    return path


def test_groups_become_nodes_and_mig_slices_devices(tmp_path: Path) -> None:
    groups = load_fleet(
        written(
            tmp_path,
            "- {nodes: 2, gpus: 8, gpu_memory_gb: 80, gpu_kind: H100, price_per_gpu_hour: 3}\n"
            "- {nodes: 1, gpus: 2, gpu_memory_gb: 80, gpu_kind: H100, mig_slices: 4, price_per_gpu_hour: 4}\n",
        )
    )
    first, second, sliced = nodes_of(groups)
    assert (first.name, second.name, first.gpus, first.links) == ("H100-000", "H100-001", 8, True)
    assert (sliced.kind, sliced.gpus, sliced.memory_gb, sliced.links) == ("H100/4", 8, 20, False)
    assert groups[1].devices().price_per_gpu_hour == 1


def test_one_group_needs_no_list(tmp_path: Path) -> None:
    (group,) = load_fleet(written(tmp_path, "{nodes: 3, gpus: 4, gpu_memory_gb: 24}"))
    assert (group.kind, len(nodes_of([group]))) == ("GPU", 3)
    assert NodeGroup(device="cpu").kind == "cpu"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {nodes: 0}", r"fleet.yaml\[0\]: nodes = 0"),
        ("{gpuz: 8}", "did you mean 'gpus'"),
        ("[]", "not a group of machines"),
        ("[1]", "not a group of machines"),
        ("{", "is not YAML"),
        ("{mig_slices: 9}", "mig_slices = 9"),
        ("[{gpu_kind: A100, gpu_memory_gb: 40}, {gpu_kind: A100, gpu_memory_gb: 80}]", "'A100-80GB'"),
    ],
)
def test_wrong_input_is_one_message_with_the_field(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_fleet(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fleet .*none\.yaml.*cannot be read"):
        load_fleet(tmp_path / "none.yaml")
