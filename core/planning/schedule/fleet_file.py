"""Fleets that `steelyard simulate` is asked about: groups of machines, as a person writes them, and the nodes they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from core.campaign import FleetSpec
from core.errors import UserError
from core.model.fleet import CPU, gpu_kind
from core.planning.schedule.jobs import Node
from core.strict import fault_lines
from core.yaml_file import read_yaml


class NodeGroup(FleetSpec):
    """Machines of one make: ``nodes`` of them with ``gpus`` GPUs each."""

    mig_slices: Annotated[int, Field(ge=1, le=7)] | None = None
    """Slices that each GPU is cut into (MIG); each is a device with its part of memory and speed, for models that need one GPU."""

    @property
    def kind(self) -> str:
        """The scheduler's name for GPUs of this kind."""
        name = self.gpu_kind or (CPU if self.device == "cpu" else "GPU")
        return f"{name}/{self.mig_slices}" if self.mig_slices else name

    def devices(self) -> FleetSpec:
        """Return the group as placement sees it: slices are GPUs, and nothing is looked up on this machine."""
        parts = self.mig_slices or 1
        return FleetSpec(
            nodes=self.nodes,
            gpus=self.gpus * parts,
            gpu_memory_gb=self.gpu_memory_gb / parts,
            device="cuda" if self.device == "auto" else self.device,
            gpu_kind=self.kind,
            price_per_gpu_hour=None if self.price_per_gpu_hour is None else self.price_per_gpu_hour / parts,
        )


def group_of(fleet: FleetSpec) -> NodeGroup:
    """Return a campaign's fleet as a group, its GPUs called as the fleet or this machine's driver calls them."""
    return NodeGroup.model_validate({**fleet.model_dump(), "gpu_kind": gpu_kind(fleet)})


def load_fleet(path: Path) -> tuple[NodeGroup, ...]:
    """Read a fleet from YAML: one group as a mapping, or a list of them.

    Raises `core.errors.UserError` with one line per wrong field.
    """
    data = read_yaml(path, "fleet")
    entries: list[Any] = data if isinstance(data, list) else [data]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(
            f"fleet {str(path)!r} is not a group of machines or a list of them: write nodes, gpus, gpu_memory_gb, gpu_kind"
        )
    groups = []
    for number, entry in enumerate(entries):
        where = f"{path}[{number}]" if isinstance(data, list) else str(path)
        try:
            groups.append(NodeGroup.model_validate(entry))
        except ValidationError as error:
            raise UserError(f"{where}: " + "; ".join(fault_lines(error))) from error
    _check_kinds(groups, path)
    return tuple(groups)


def nodes_of(groups: Sequence[NodeGroup]) -> tuple[Node, ...]:
    """Return one node per machine, named by its kind and number."""
    nodes: list[Node] = []
    for group in groups:
        devices = group.devices()
        known = sum(node.kind == group.kind for node in nodes)
        nodes += [
            Node(
                f"{group.kind}-{known + number:03d}",
                group.kind,
                devices.gpus,
                devices.gpu_memory_gb,
                links=group.mig_slices is None,
            )
            for number in range(group.nodes)
        ]
    return tuple(nodes)


def _check_kinds(groups: Sequence[NodeGroup], path: Path) -> None:
    """Raise where GPUs of one name differ in size: a model is placed once for each kind."""
    for index, group in enumerate(groups):
        for other in groups[:index]:
            if group.kind == other.kind and group.gpu_memory_gb != other.gpu_memory_gb:
                raise UserError(
                    f"fleet {str(path)!r}: gpu_kind {group.kind!r} has {other.gpu_memory_gb:g} GB in one group and "
                    f"{group.gpu_memory_gb:g} GB in another: give them two names, say '{group.kind}-{group.gpu_memory_gb:g}GB'"
                )
