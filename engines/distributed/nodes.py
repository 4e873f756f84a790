"""A checkpoint on the nodes of a Ray cluster that may be other machines: what each has of it, and has to have. Imports Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from core.errors import UserError
from core.model.facts import Checkpoint
from core.model.weights import fetch_checkpoint, has_weights
from engines.engine import FETCHING, EngineConfig


def on_every_node(config: EngineConfig) -> EngineConfig:
    """Return ``config`` as all nodes with GPUs can load it, whatever of it they have.

    vLLM fetches from the hub by itself. From S3 each node gets all but the weights, and where these are not streamed vLLM's workers
    get them (`engines.session.node_loader`): only they know which nodes the model is on.

    Raises `core.errors.UserError` for a directory that is not on all nodes, and where nodes would keep what they fetch in
    different places.
    """
    checkpoint = config.checkpoint
    if checkpoint is None:
        return config
    if checkpoint.place != "s3":
        lacking = [host for host, found in _ask_nodes(has_weights, config.model) if not found]
        if lacking and checkpoint.place == "directory":
            raise UserError(
                f"{config.model!r} is not whole on {lacking[0]}, a node of the Ray cluster: put it there, or name a checkpoint "
                "on the hub or on S3, which nodes fetch themselves"
            )
        return replace(config, model=checkpoint.source, revision=checkpoint.revision) if lacking else config
    places = {place for _, place in _ask_nodes(fetch_rest, checkpoint)}
    if len(places) > 1:
        raise UserError(
            f"{checkpoint.source!r} would be in different places on the nodes of the Ray cluster "
            f"({', '.join(sorted(places))}): set STEELYARD_CACHE to the same on all of them"
        )
    placed = replace(config, model=places.pop())
    if config.stream:
        return placed
    inner = {name: config.extra[name] for name in ("load_format", "model_loader_extra_config") if name in config.extra}
    fetching = {"checkpoint": asdict(checkpoint), "inner": inner}
    return replace(placed, extra={**config.extra, "load_format": FETCHING, "model_loader_extra_config": fetching})


def fetch_rest(checkpoint: Checkpoint) -> str:
    """Have all of a checkpoint but its weights on this node. Returns the directory."""
    return str(fetch_checkpoint(checkpoint, weights=False))


def _ask_nodes(function: Callable[..., Any], *arguments: Any) -> list[tuple[str, Any]]:
    """Return (host, what ``function`` says there) of the nodes with GPUs and of this one."""
    here = ray.get_runtime_context().get_node_id()
    chosen = [
        node for node in ray.nodes() if node["Alive"] and (node["Resources"].get("GPU") or node["NodeID"] == here)
    ]
    asked = ray.remote(num_cpus=0)(function)
    answers = [
        asked.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(*arguments)
        for node in chosen
    ]
    try:
        found = ray.get(answers)
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, UserError) else error from None
    return [(str(node["NodeManagerHostname"]), answer) for node, answer in zip(chosen, found, strict=True)]
