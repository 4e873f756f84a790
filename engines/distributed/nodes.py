"""A checkpoint on the nodes of a Ray cluster that may be other machines: what each has of it, and has to have. Imports Ray."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from core.checkpoint.checkpoint import Checkpoint
from core.checkpoint.files import open_files, weight_files
from core.checkpoint.weights import fetch_checkpoint
from core.errors import UserError
from engines.engine import FETCHING, EngineConfig


def on_every_node(config: EngineConfig) -> EngineConfig:
    """Return ``config`` as all nodes with GPUs can load it.

    Tokenizer, config and the like are fetched by each that lacks them. Weights that are not everywhere, nor streamed, are left to
    vLLM's workers (`engines.node_loader`): only they know which nodes the model is on.

    Raises `core.errors.UserError` for a directory that is not on all nodes, and where nodes would keep what they fetch in
    different places.
    """
    checkpoint = config.checkpoint
    if checkpoint is None:
        return config
    found = _ask_nodes(look, config.model, checkpoint)
    if len(places := {place for place, _ in found.values()}) > 1:
        raise UserError(
            f"{checkpoint.source!r} would be in different places on the nodes of the Ray cluster "
            f"({', '.join(sorted(places))}): set HF_HOME and STEELYARD_CACHE to the same on all of them"
        )
    placed = replace(config, model=places.pop())
    if config.stream or all(whole for _, whole in found.values()):
        return placed
    inner = {name: config.extra[name] for name in ("load_format", "model_loader_extra_config") if name in config.extra}
    fetching = {"checkpoint": asdict(checkpoint), "inner": inner}
    return replace(placed, extra={**config.extra, "load_format": FETCHING, "model_loader_extra_config": fetching})


def look(model: str, checkpoint: Checkpoint) -> tuple[str, bool]:
    """Return the directory of this node that holds the checkpoint, and whether its weights are there too.

    Without it, it is fetched but for the weights. Raises `core.errors.UserError` for a user's own directory that is not here.
    """
    if has_weights(model):
        return model, True
    if not checkpoint.is_remote:
        raise UserError(
            f"{model!r} is not on the Ray cluster's node {socket.gethostname()}: put it there, or name a checkpoint on "
            "the hub or on S3, which nodes fetch themselves"
        )
    folder = str(fetch_checkpoint(checkpoint, weights=False))
    return folder, has_weights(folder)


def has_weights(folder: str) -> bool:
    """Whether a directory of this node holds all weight files of a checkpoint."""
    try:
        return bool(weight_files(open_files(folder, None))) if Path(folder).is_dir() else False
    except UserError:
        return False


def _ask_nodes(function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Return node id → what ``function`` says there, of the nodes with GPUs and this one."""
    here = ray.get_runtime_context().get_node_id()
    alive = [node for node in ray.nodes() if node["Alive"]]
    chosen = [node["NodeID"] for node in alive if node["Resources"].get("GPU") or node["NodeID"] == here]
    asked = ray.remote(num_cpus=0)(function)
    answers = [
        asked.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(*arguments)
        for node in chosen
    ]
    try:
        return dict(zip(chosen, ray.get(answers), strict=True))
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, UserError) else error from None
